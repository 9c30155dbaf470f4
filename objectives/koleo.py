"""Features of a batch kept apart (Sablayrolles et al. 2019; Oquab et al. 2023, DINOv2).

Shapes: B samples, n = copies * B entries of a view, D width, R ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from .classification import pooled, pooling
from .gather import gather, rank
from .objective import Loss, Objective, Read, Step, Term

#: Smallest distance whose logarithm is taken; nearer vectors are left where they are.
NEAREST = 1e-8


class KoLeo(Objective):
    """The Kozachenko-Leonenko estimator of entropy, one copy of the samples at a time.

    Args:
        view: whose student features are spread.
        pool: prefix token that is spread, or `mean`.
        weight: factor of the loss; .1 in DINOv2.
    """

    def __init__(self, view: str = "global", pool: str = "class", weight: float | Schedule = 0.1) -> None:
        super().__init__(weight)
        self.view, self.pool = view, pool

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (pooling(self.view, self.pool),)

    def forward(self, step: Step) -> Loss:
        """The mean over the entries of this rank; with a single sample there is nothing to part."""
        view = step.views[self.view]
        features = pooled(step[Read(self.view)], self.pool, len(view))
        parts = []
        for crops in features.split(view.samples):
            everyone = gather(crops)
            if len(everyone) > 1:
                parts.append(koleo(crops, everyone, rank() * len(crops)))
        if not parts:
            return Loss({"koleo": Term(features.sum() * 0, 0, scope="batch")})
        loss = torch.cat(parts)
        return Loss({"koleo": Term(loss.sum(), len(loss), scope="batch")})


def koleo(features: Tensor, everyone: Tensor, first: int) -> Tensor:
    """`-log(min_{j != i} |x_i - x_j|)` of each L2-normalised feature, `(B,)`; gradients flow to both ends.

    On opposite points of the sphere it is -log 2 each. Vectors that coincide have no direction to part in:
    they get no gradient.

    Args:
        features: `(B, D)`.
        everyone: `(R B, D)`, the features of all ranks.
        first: where this rank's features begin in `everyone`.
    """
    own, others = (F.normalize(x.float(), dim=-1) for x in (features, everyone))
    with torch.no_grad():
        similar = own @ others.T
        index = torch.arange(len(own), device=own.device)
        similar[index, first + index] = -2.0  # below any cosine: nobody is its own neighbour
        nearest = similar.argmax(1)
    distance = (own - others[nearest]).norm(dim=-1)
    return -distance.clamp(min=NEAREST).log()
