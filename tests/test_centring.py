"""Moving centre and Sinkhorn-Knopp: closed forms, a naive twin, one process against two.

Shapes: m vectors, V prototypes.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from triptych.objectives.centring import MovingCentre, SinkhornKnopp, centring, sinkhorn

M, V, T = 11, 5, 0.05


def cosines(m: int = M) -> Tensor:
    return torch.rand(m, V) * 2 - 1


def naive(scores: Tensor, temperature: float, iterations: int) -> Tensor:
    """Cell by cell, as SwAV's appendix writes it: the rows of Q are prototypes, its sum one."""
    m, v = scores.shape
    q = [[torch.exp(scores[i, k].double() / temperature) for i in range(m)] for k in range(v)]
    total = sum(sum(row) for row in q)
    q = [[cell / total for cell in row] for row in q]
    for _ in range(iterations):
        q = [[cell / sum(row) / v for cell in row] for row in q]
        columns = [sum(q[k][i] for k in range(v)) for i in range(m)]
        q = [[q[k][i] / columns[i] / m for i in range(m)] for k in range(v)]
    return torch.tensor([[float(q[k][i]) * m for k in range(v)] for i in range(m)])


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_is_the_papers(iterations: int) -> None:
    scores = cosines()
    torch.testing.assert_close(
        sinkhorn(scores, T, iterations), naive(scores, T, iterations), atol=1e-5, rtol=1e-4
    )


def test_in_the_limit_every_prototype_is_used_alike() -> None:
    found = sinkhorn(cosines(40), 0.3, 100)
    torch.testing.assert_close(found.sum(1), torch.ones(40))
    torch.testing.assert_close(found.sum(0), torch.full((V,), 40 / V), atol=1e-3, rtol=0)


def test_vectors_that_agree_on_one_prototype_are_spread() -> None:
    """A softmax would give all of them the same; here equal vectors share the prototypes evenly."""
    scores = torch.tensor([1.0, 0.0, -1.0]).repeat(6, 1)
    torch.testing.assert_close(sinkhorn(scores, T, 3), torch.full((6, 3), 1 / 3))


def test_a_batch_of_nothing() -> None:
    assert SinkhornKnopp()(torch.zeros(0, V), T).shape == (0, V)
    centre = MovingCentre(V, 0.9)
    assert centre(torch.zeros(0, V), T).shape == (0, V)
    assert centre.centre.abs().max() == 0


def test_the_centre_moves_in_training_after_it_was_used() -> None:
    made, scores = MovingCentre(V, 0.8), cosines()
    made.centre.copy_(before := torch.randn(V))
    torch.testing.assert_close(made(scores, T), ((scores - before) / T).softmax(-1))
    torch.testing.assert_close(made.centre, 0.8 * before + 0.2 * scores.mean(0))
    held = made.eval().centre.clone()
    made(scores, T)
    assert torch.equal(made.centre, held)


def test_no_momentum_is_sinkhorn() -> None:
    assert isinstance(centring(V, None), SinkhornKnopp)
    assert isinstance(centring(V, 0.9), MovingCentre)


#: How many vectors each of two processes holds: not the same, as masks have it.
SHARES = (4, 7)


def _rank(rank: int, ranks: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    mine = torch.load(f"{folder}/scores.pt", weights_only=True).split(SHARES)[rank]
    made = MovingCentre(V, 0.8)
    made(mine, T)
    torch.save((sinkhorn(mine, T, 3), made.centre), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_centre_as_one_does(tmp_path: Path) -> None:
    scores = cosines(sum(SHARES))
    torch.save(scores, tmp_path / "scores.pt")
    torch.multiprocessing.spawn(_rank, (2, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    (told0, centre0), (told1, centre1) = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    torch.testing.assert_close(torch.cat([told0, told1]), sinkhorn(scores, T, 3))
    torch.testing.assert_close(centre0, centre1)
    torch.testing.assert_close(centre0, 0.2 * scores.mean(0))
