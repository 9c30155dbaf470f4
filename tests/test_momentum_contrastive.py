"""InfoNCE against the teacher's keys, from its formula, alone and over two processes.

Shapes: B samples, n = 2 B entries, E projection, D width.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from triptych.objectives.momentum_contrastive import MomentumContrastive, info_nce
from triptych.objectives.objective import Read, Spec, Step, TokenSpec
from triptych.tokenizers.view import View

from .helpers import random_tokens, randomise

B, E, D, T = 5, 3, 7, 0.3


def naive(queries: Tensor, keys: Tensor) -> Tensor:
    """Query by query: the mean over B."""
    losses = []
    for i in range(len(queries)):
        score = torch.stack([F.cosine_similarity(queries[i], key, dim=0) / T for key in keys])
        losses.append(-(score[i].exp() / score.exp().sum()).log())
    return torch.stack(losses).mean()


def test_loss_and_gradient_are_the_papers() -> None:
    queries, keys = torch.randn(B, E, requires_grad=True), torch.randn(B, E)
    expected, found = naive(queries, keys), info_nce(queries, keys, 0, T)[0].mean()
    torch.testing.assert_close(found, expected)
    (wanted,) = torch.autograd.grad(expected, queries)
    torch.testing.assert_close(torch.autograd.grad(found, queries)[0], wanted)


def test_closed_form_keys_alike() -> None:
    loss, _ = info_nce(torch.randn(B, E), torch.ones(B, E), 0, T)
    torch.testing.assert_close(loss, torch.full((B,), math.log(B)))


def test_each_copy_is_compared_with_the_teachers_other_copy() -> None:
    """Symmetric, times 2 T; the teacher's tokens and head get no gradient."""
    made = MomentumContrastive("pair", T, hidden=11, projection=E)
    made.build(Spec(D, 1, {"pair": TokenSpec("image", None, None, ("class",))}, {"image": {}}))
    randomise(made)
    made.train()
    tokens = {branch: random_tokens([4] * 2 * B, D, ("class",)) for branch in ("student", "teacher")}
    view = View("image", torch.empty(2 * B, 1), copies=2)
    encoded = {Read("pair"): tokens["student"], Read("pair", "teacher"): tokens["teacher"]}
    loss = made(Step({"pair": view}, encoded))
    q, k = made.head(tokens["student"].named("class")), made.teacher_head(tokens["teacher"].named("class"))
    expected = 2 * T * (naive(q[:B], k[B:]) + naive(q[B:], k[:B])) / 2
    torch.testing.assert_close(loss.total, expected)
    assert loss.terms["info_nce"].scope == "batch"
    loss.total.backward()
    assert all(p.grad is None for p in made.teacher_head.parameters())
    assert all(p.grad is not None for p in made.head.parameters())
    assert made.averaged() == ((made.head, made.teacher_head),)


def test_a_view_of_one_copy_is_refused() -> None:
    tokens, view = random_tokens([4] * B, D, ("class",)), View("image", torch.empty(B, 1))
    with pytest.raises(ValueError, match="2 copies, but 'pair' has 1"):
        MomentumContrastive("pair")(Step({"pair": view}, {Read("pair"): tokens}))


def _rank(rank: int, ranks: int, folder: str) -> None:
    import torch.distributed as dist
    from triptych.objectives.gather import gather

    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    queries, keys = (part.split(B)[rank] for part in torch.load(f"{folder}/x.pt", weights_only=True))
    queries.requires_grad_()
    loss = info_nce(queries, gather(keys), rank * B, T)[0].mean()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.save((loss.detach(), queries.grad / ranks), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    queries, keys = torch.randn(2 * B, E, requires_grad=True), torch.randn(2 * B, E)
    torch.save((queries.detach(), keys), tmp_path / "x.pt")
    torch.multiprocessing.spawn(_rank, (2, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    (loss0, grad0), (loss1, grad1) = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    expected = naive(queries, keys)
    torch.testing.assert_close((loss0 + loss1) / 2, expected.detach())
    expected.backward()
    torch.testing.assert_close(torch.cat([grad0, grad1]), queries.grad)
