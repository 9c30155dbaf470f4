"""Gated relative positions: what a head adds to its scores by distance, and how much of it a token wants.

Shapes: S packed tokens, L tokens of one sequence, n sequences of one length, H heads, K head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layout import Bias, Layout


@dataclass
class Relative:
    """How distances fall into buckets.

    Attributes:
        buckets: half of them for each direction; must be even.
        distance: tokens from which on all distances are one bucket.
    """

    buckets: int = 320
    distance: int = 800


class RelativeBias(nn.Module):
    """A learnt number for each head and bucket of distance (Raffel et al. 2020, T5), shared by all blocks.

    Half of a direction's buckets hold one distance each, the others are spaced evenly in its logarithm.
    Distances are between tokens as they lie in their sequence.

    Args:
        heads: H.
        relative: the buckets.
    """

    def __init__(self, heads: int, relative: Relative) -> None:
        super().__init__()
        if relative.buckets % 4:
            raise ValueError(f"the buckets must be a multiple of 4, but are {relative.buckets}")
        self.relative = relative
        self.embedding = nn.Embedding(relative.buckets, heads)

    def forward(self, length: int) -> Tensor:
        """`(H, L, L)`: row the token that looks, column the one looked at."""
        place = torch.arange(length, device=self.embedding.weight.device)
        return self.embedding(self.bucket(place[None] - place[:, None])).permute(2, 0, 1)

    def bucket(self, offset: Tensor) -> Tensor:
        """The bucket of each offset in tokens, positive for what comes later."""
        side = self.relative.buckets // 2
        exact = side // 2
        far = offset.abs()
        log = (far.clamp(min=1).float() / exact).log() / math.log(self.relative.distance / exact)
        spaced = (exact + log * (side - exact)).long().clamp(max=side - 1)
        return torch.where(far < exact, far, spaced) + side * (offset > 0)

    def along(self, layout: Layout) -> Bias:
        """For the sequences of a layout; each length is looked up once, however many blocks ask."""
        known = {length: self(length) for length in dict.fromkeys(layout.lengths)}
        return lambda members, length: known[length]


class Gate(nn.Module):
    """How much of the bias each token's head takes (Chen et al. 2022, WavLM, eq. 6 to 8; Chi et al. 2021).

    `g = a (b s - 1) + 2`, with a and b sigmoids of sums of four linear maps of the token's part for the head
    and s a learnt factor of the head.

    Args:
        width: D.
        heads: H.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear = nn.Linear(width // heads, 8)
        self.factor = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(S, D)` -> `(S, H)`."""
        sums = self.linear(x.unflatten(1, (self.heads, -1))).unflatten(-1, (2, 4)).sum(-1)
        a, b = sums.sigmoid().unbind(-1)
        return a * (b * self.factor.view(1, -1) - 1) + 2

    def gated(self, x: Tensor, layout: Layout, bias: Bias) -> Bias:
        """The bias as the tokens `x` `(S, D)` take it, `(n, H, L, L)`."""
        gates = layout.arrange(self(x)).split(layout.lengths)

        def of(members: tuple[int, ...], length: int) -> Tensor:
            taken = torch.stack([gates[index] for index in members])
            return taken.transpose(1, 2).unsqueeze(-1) * bias(members, length)

        return of
