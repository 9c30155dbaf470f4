"""The student finds, for its view of a sample, the teacher's other one among all (Chen et al. 2021, MoCo v3).

Shapes: B samples, n = 2 B entries of a view, D width, E width of the projection, R ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from ..backbones.teacher import frozen_copy
from .classification import pooled, pooling
from .gather import gather, rank
from .objective import Loss, Objective, Read, Spec, Step, Term


class MomentumContrastive(Objective):
    """InfoNCE of the student's corrupted views against the teacher's clean ones, as in SiT's last version.

    Args:
        view: a view of two copies; the teacher reads it whole.
        temperature: T of the softmax; the loss is multiplied by 2 T, which keeps gradients of one size.
        hidden: width of the projection's two hidden layers.
        projection: E.
        pool: prefix token that is projected, or `mean`.
        weight: factor of the loss.
    """

    def __init__(
        self,
        view: str = "train",
        temperature: float = 0.2,
        hidden: int = 4096,
        projection: int = 256,
        pool: str = "class",
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.view, self.temperature, self.pool = view, temperature, pool
        self.hidden, self.projection = hidden, projection

    def reads(self) -> tuple[Read, ...]:
        """The student's and the teacher's final tokens."""
        return (pooling(self.view, self.pool), pooling(self.view, self.pool, "teacher"))

    def build(self, spec: Spec) -> None:
        """Make the projection, three layers with batch norm, and its average."""
        layers: list[nn.Module] = []
        for inputs in (spec.width, self.hidden):
            layers += [nn.Linear(inputs, self.hidden, bias=False), nn.BatchNorm1d(self.hidden), nn.ReLU()]
        last = [nn.Linear(self.hidden, self.projection, bias=False)]
        self.head = nn.Sequential(*layers, *last, nn.BatchNorm1d(self.projection, affine=False))
        self.teacher_head = frozen_copy(self.head)

    def forward(self, step: Step) -> Loss:
        """InfoNCE over the entries of this rank among the keys of all ranks, and how many find theirs."""
        view = step.views[self.view]
        if view.copies != 2:
            raise ValueError(
                f"contrastive learning needs a view of 2 copies, but {self.view!r} has {view.copies}"
            )
        queries = self.head(pooled(step[Read(self.view)], self.pool, len(view)))
        self.teacher_head.train(
            self.training
        )  # batch norm by the batch: the student's averages are not its own
        with torch.no_grad():
            keys = self.teacher_head(pooled(step[Read(self.view, "teacher")], self.pool, len(view)))
        first, found = rank() * view.samples, []
        for own, other in zip(queries.chunk(2), keys.chunk(2)[::-1], strict=True):
            found.append(info_nce(own, gather(other), first, self.temperature))
        loss, right = (torch.cat(parts) for parts in zip(*found, strict=True))
        term = Term(loss.sum(), len(loss), 2 * self.temperature, scope="batch")
        return Loss({"info_nce": term}, {"accuracy": right.float().mean()})

    def averaged(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """The projection and the teacher's."""
        return ((self.head, self.teacher_head),)


def info_nce(queries: Tensor, keys: Tensor, first: int, temperature: float) -> tuple[Tensor, Tensor]:
    """`-log(exp(q_i k_i / T) / sum_j exp(q_i k_j / T))` of unit vectors (van den Oord et al. 2018, eq. 4).

    When all keys are alike every query loses log(R B).

    Args:
        queries: `(B, E)`.
        keys: `(R B, E)`, those of all ranks.
        first: where this rank's keys begin.
        temperature: T.

    Returns:
        Loss and whether the right key is the nearest, each `(B,)`.
    """
    own = first + torch.arange(len(queries), device=queries.device)
    score = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / temperature
    return F.cross_entropy(score, own, reduction="none"), score.argmax(1) == own
