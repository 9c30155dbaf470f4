"""What keeps a teacher's distributions over prototypes from collapsing: a moving centre, or Sinkhorn-Knopp.

Shapes: m vectors (crops or patches), V prototypes, R ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .gather import max_over_ranks, sum_over_ranks


class MovingCentre(nn.Module):
    """`softmax((scores - centre) / temperature)`; the centre is a moving mean of scores (Caron et al. 2021).

    It moves in training alone, after it was used.

    Args:
        prototypes: V.
        momentum: share of the old centre kept at each step.
    """

    centre: Tensor

    def __init__(self, prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(prototypes))

    @torch.no_grad()
    def forward(self, scores: Tensor, temperature: float) -> Tensor:
        """Probabilities `(m, V)` of scores `(m, V)`."""
        scores = scores.to(self.centre.dtype)  # mixed precision: the centre is an average of many steps
        told = ((scores - self.centre) / temperature).softmax(-1)
        if self.training:
            total, count = sum_over_ranks(scores.sum(0)), sum_over_ranks(scores.new_tensor(len(scores)))
            if count > 0:
                self.centre.lerp_(total / count, 1 - self.momentum)
        return told


class SinkhornKnopp(nn.Module):
    """Assignments in which every prototype is used alike over the batch; nothing is remembered.

    Args:
        iterations: of normalising prototypes, then vectors.
    """

    def __init__(self, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations

    @torch.no_grad()
    def forward(self, scores: Tensor, temperature: float) -> Tensor:
        """Probabilities `(m, V)` of scores `(m, V)`."""
        return sinkhorn(scores, temperature, self.iterations)


def sinkhorn(scores: Tensor, temperature: float, iterations: int) -> Tensor:
    """Sinkhorn-Knopp on `exp(scores / temperature)` (Cuturi 2013; Caron et al. 2020, SwAV, appendix A).

    In turn each prototype's mass over the vectors of all ranks is made 1 / V, and each vector's 1; rows of
    the result sum to one. In the limit the m vectors share the prototypes evenly.

    Args:
        scores: `(m, V)`; m may differ between ranks, and may be 0.
    """
    scaled = scores.float() / temperature
    peak = scaled.max() if scaled.numel() else scaled.new_tensor(float("-inf"))
    mass = (scaled - max_over_ranks(peak)).exp()
    for _ in range(iterations):
        mass = mass / sum_over_ranks(mass.sum(0)).clamp(min=torch.finfo(mass.dtype).tiny)
        mass = mass / mass.sum(1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
    return mass


def centring(prototypes: int, momentum: float | None) -> MovingCentre | SinkhornKnopp:
    """A centre that moves with `momentum`, or without one Sinkhorn-Knopp."""
    return SinkhornKnopp() if momentum is None else MovingCentre(prototypes, momentum)
