"""Two views of a sample find each other among all others (Chen et al. 2020, SimCLR).

Shapes: B samples, n = 2 B entries of a view, D width, E width of the projection, R ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from .classification import pooled, pooling
from .gather import gather, rank
from .objective import Loss, Objective, Read, Spec, Step, Term


class Contrastive(Objective):
    """NT-Xent on a projection of one vector an entry.

    Args:
        view: a view of two copies.
        temperature: of the softmax.
        projection: E.
        pool: prefix token that is projected (SiT gives it one of its own, `contrastive`), or `mean`.
        weight: factor of the loss.
    """

    def __init__(
        self,
        view: str = "train",
        temperature: float = 0.5,
        projection: int = 128,
        pool: str = "class",
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.view, self.temperature, self.projection, self.pool = view, temperature, projection, pool

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (pooling(self.view, self.pool),)

    def build(self, spec: Spec) -> None:
        """Make the projection: linear, ReLU, linear."""
        self.head = nn.Sequential(
            nn.Linear(spec.width, spec.width), nn.ReLU(), nn.Linear(spec.width, self.projection)
        )

    def forward(self, step: Step) -> Loss:
        """NT-Xent over the entries of this rank among those of all ranks, and how many find their twin."""
        view = step.views[self.view]
        if view.copies != 2:
            raise ValueError(
                f"contrastive learning needs a view of 2 copies, but {self.view!r} has {view.copies}"
            )
        projected = self.head(pooled(step[Read(self.view)], self.pool, len(view)))
        everyone = gather(projected)
        mine = rank() * len(projected)
        loss, found = nt_xent(projected, everyone, mine, self.temperature)
        return Loss(
            {"nt_xent": Term(loss.sum(), len(loss), scope="batch")},
            {"accuracy": found.float().mean(), "chance": loss.new_tensor(1 / (len(everyone) - 1))},
        )


def nt_xent(anchors: Tensor, everyone: Tensor, first: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised temperature-scaled cross-entropy (Chen et al. 2020, eq. 1).

    For an entry i with its twin j: `-log(exp(s_ij / T) / sum_{k != i} exp(s_ik / T))`, s the cosine. When
    all vectors are collinear every entry loses log(R n - 1).

    Args:
        anchors: `(n, E)`, the two copies one after the other: i and i + B are twins.
        everyone: `(R n, E)`, the anchors of all ranks.
        first: where this rank's anchors begin in `everyone`.
        temperature: T.

    Returns:
        Loss and whether the twin is the nearest, each `(n,)`.
    """
    n = len(anchors)
    index = torch.arange(n, device=anchors.device)
    twin = first + (index + n // 2) % n
    score = F.normalize(anchors, dim=1) @ F.normalize(everyone, dim=1).T / temperature
    score = score.index_put((index, first + index), score.new_tensor(float("-inf")))
    return F.cross_entropy(score, twin, reduction="none"), score.argmax(1) == twin
