"""NT-Xent against Chen et al. 2020, eq. 1, alone and over two processes.

Shapes: B samples, n = 2 B entries, E projection.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from triptych.objectives.contrastive import Contrastive, nt_xent
from triptych.objectives.objective import Read, Spec, Step, TokenSpec
from triptych.tokenizers.view import View

from .helpers import random_tokens

B, E, D, T = 5, 3, 7, 0.3


def naive(z: Tensor, temperature: float) -> Tensor:
    """Eq. 1 and Algorithm 1, pair by pair: the mean over all 2 B entries."""
    n = len(z)
    losses = []
    for i in range(n):
        j = (i + n // 2) % n
        score = torch.stack([F.cosine_similarity(z[i], z[k], dim=0) / temperature for k in range(n)])
        others = torch.stack([score[k].exp() for k in range(n) if k != i])
        losses.append(-(score[j].exp() / others.sum()).log())
    return torch.stack(losses).mean()


def test_loss_and_gradient_are_the_papers() -> None:
    z = torch.randn(2 * B, E, requires_grad=True)
    expected = naive(z, T)
    loss = nt_xent(z, z, 0, T)[0].mean()
    torch.testing.assert_close(loss, expected)
    (wanted,) = torch.autograd.grad(expected, z)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], wanted)


def test_closed_form_collinear() -> None:
    z = torch.arange(1, 2 * B + 1).unsqueeze(1) * torch.randn(1, E)
    loss, _ = nt_xent(z, z, 0, T)
    torch.testing.assert_close(loss, torch.full((2 * B,), math.log(2 * B - 1)))


def test_twins_that_agree_find_each_other() -> None:
    z = torch.eye(E).repeat(2, 1)
    loss, found = nt_xent(z, z, 0, T)
    assert found.all()
    torch.testing.assert_close(loss, torch.full((2 * E,), math.log(1 + (2 * E - 2) * math.exp(-1 / T))))


def objective(**settings: object) -> Contrastive:
    made = Contrastive(view="pair", temperature=T, projection=E, **settings)  # type: ignore[arg-type]
    made.build(Spec(D, 1, {"pair": TokenSpec("image", None, None, ("class",))}, {"image": {}}))
    return made


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_objective_projects_one_vector_an_entry(pool: str) -> None:
    made, tokens = objective(pool=pool), random_tokens([4] * 2 * B, D, ("class",))
    loss = made(Step({"pair": View("image", torch.empty(2 * B, 1), copies=2)}, {Read("pair"): tokens}))
    pooled = (
        tokens.values.view(2 * B, 4, D)[:, 0]
        if pool == "class"
        else tokens.values.view(2 * B, 4, D)[:, 1:].mean(1)
    )
    torch.testing.assert_close(loss.total, naive(made.head(pooled), T))
    assert loss.terms["nt_xent"].scope == "batch"


def test_a_view_of_one_copy_is_refused() -> None:
    tokens = random_tokens([4] * B, D, ("class",))
    with pytest.raises(ValueError, match="2 copies, but 'pair' has 1"):
        objective()(Step({"pair": View("image", torch.empty(B, 1))}, {Read("pair"): tokens}))


def _rank(rank: int, ranks: int, folder: str) -> None:
    """Half of the samples on each process; their gradients, averaged as DDP does, are saved."""
    import torch.distributed as dist
    from triptych.objectives.gather import gather

    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    everything = torch.load(f"{folder}/z.pt", weights_only=True)
    share = slice(rank * B, (rank + 1) * B)
    mine = torch.cat([everything[: 2 * B][share], everything[2 * B :][share]]).requires_grad_()
    loss = nt_xent(mine, gather(mine), rank * len(mine), T)[0].mean()
    loss.backward()
    torch.save((loss.detach(), mine.grad / ranks), f"{folder}/{rank}.pt")  # type: ignore[operator]
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    z = torch.randn(4 * B, E, requires_grad=True)
    torch.save(z.detach(), tmp_path / "z.pt")
    torch.multiprocessing.spawn(_rank, (2, str(tmp_path)), nprocs=2)
    (loss0, grad0), (loss1, grad1) = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    expected = naive(z, T)
    torch.testing.assert_close((loss0 + loss1) / 2, expected.detach())
    expected.backward()
    found = torch.cat([grad0[:B], grad1[:B], grad0[B:], grad1[B:]])
    torch.testing.assert_close(found, z.grad)
