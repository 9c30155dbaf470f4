"""KoLeo against its formula, in closed form, and over two processes.

Shapes: B samples, D width.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from triptych.objectives.koleo import KoLeo, koleo
from triptych.objectives.objective import Loss, Read, Step
from triptych.tokenizers.view import View

from .helpers import random_tokens

B, D, COPIES = 5, 3, 2


def naive(x: Tensor) -> Tensor:
    """`-1 / n sum_i log min_{j != i} |x_i - x_j|`, pair by pair, on the unit sphere."""
    x = x / x.norm(dim=1, keepdim=True)
    n = len(x)
    nearest = [torch.stack([(x[i] - x[j]).norm() for j in range(n) if j != i]).min() for i in range(n)]
    return -torch.stack(nearest).log().mean()


def test_loss_and_gradient_are_the_papers() -> None:
    x = torch.randn(B, D, requires_grad=True)
    expected, found = naive(x), koleo(x, x, 0).mean()
    torch.testing.assert_close(found, expected)
    (wanted,) = torch.autograd.grad(expected, x)
    torch.testing.assert_close(torch.autograd.grad(found, x)[0], wanted)


def test_closed_forms() -> None:
    """Opposite points lie 2 apart, the axes sqrt(2), whatever their length."""
    torch.testing.assert_close(
        koleo(x := torch.tensor([[3.0], [-0.1]]), x, 0), torch.full((2,), -math.log(2))
    )
    axes = torch.diag(torch.tensor([1.0, 4.0, 9.0]))
    torch.testing.assert_close(koleo(axes, axes, 0), torch.full((3,), -math.log(2) / 2))


def test_vectors_that_coincide_get_no_gradient() -> None:
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = koleo(x, x, 0)
    assert loss.isfinite().all()
    (gradient,) = torch.autograd.grad(loss[:2].sum(), x)
    assert gradient.abs().max() == 0


def objective(samples: int) -> tuple[Loss, Tensor]:
    """Its loss over two copies, and the class tokens."""
    made, tokens = KoLeo("pair"), random_tokens([4] * COPIES * samples, D, ("class",))
    view = View("image", torch.empty(COPIES * samples, 1), copies=COPIES)
    return made(Step({"pair": view}, {Read("pair"): tokens})), tokens.named("class")


def test_copies_of_a_sample_are_not_driven_apart() -> None:
    loss, features = objective(B)
    expected = (naive(features[:B]) + naive(features[B:])) / 2
    torch.testing.assert_close(loss.total, expected)
    assert loss.terms["koleo"].scope == "batch"


def test_one_sample_alone_has_nobody_to_part_from() -> None:
    loss, _ = objective(1)
    assert loss.total == 0


def _rank(rank: int, ranks: int, folder: str) -> None:
    import torch.distributed as dist
    from triptych.objectives.gather import gather

    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    mine = torch.load(f"{folder}/x.pt", weights_only=True).split(B)[rank].requires_grad_()
    loss = koleo(mine, gather(mine), rank * B).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.save((loss.detach(), mine.grad / ranks), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    x = torch.randn(2 * B, D, requires_grad=True)
    torch.save(x.detach(), tmp_path / "x.pt")
    torch.multiprocessing.spawn(_rank, (2, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    (loss0, grad0), (loss1, grad1) = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    expected = naive(x)
    torch.testing.assert_close((loss0 + loss1) / 2, expected.detach())
    expected.backward()
    torch.testing.assert_close(torch.cat([grad0, grad1]), x.grad)
