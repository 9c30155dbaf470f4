"""The parts a block is made of.

Shapes: N sequences, S packed tokens, L tokens of one sequence, D width, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layout import Bias, Layout
from .thin import feed_thin, is_thin

#: A residual branch: tokens `(S, D)`, their layout, positions `(S, 3)` and bias -> `(S, D)`.
Residual: TypeAlias = Callable[[Tensor, Layout, Tensor, Bias | None], Tensor]


class Mlp(nn.Module):
    """Linear, GELU, Linear, with timm's parameter names."""

    activation: Callable[[Tensor], Tensor] = staticmethod(F.gelu)

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(S, D)` -> `(S, D)`."""
        drops = self.training and self.drop.p > 0
        if self.activation is F.gelu and not drops and is_thin(x, self.fc1.out_features):
            return feed_thin(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
        return self.drop(self.fc2(self.drop(self.activation(self.fc1(x)))))


class SiluMlp(Mlp):
    """Linear, SiLU, Linear: the feed-forward of the Conformer, which calls it Swish."""

    activation: Callable[[Tensor], Tensor] = staticmethod(F.silu)


class SwiGLU(nn.Module):
    """silu(x W) * (x V), then Linear (Shazeer 2020); gate and value packed in `fc1`, as in DINOv2."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(S, D)` -> `(S, D)`."""
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.drop(self.fc2(self.drop(F.silu(gate) * value)))


class LayerScale(nn.Module):
    """A learnt factor a channel on a residual branch (Touvron et al. 2021, CaiT)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """`(S, D)` -> `(S, D)`."""
        return x * self.gamma


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021) along time (`axes=1`), row and column (2), or all three (3).

    The K / 2 rotated pairs are shared out evenly among the axes. Prefix tokens (position -1)
    are not rotated.

    Args:
        head_width: K; must be a multiple of `2 * axes`.
        axes: 1 for sequences, 2 for images, 3 for an encoder that reads both.
        base: the longest wavelength is `2 pi base` tokens.
    """

    frequency: Tensor

    def __init__(self, head_width: int, axes: int = 1, base: float = 10_000.0) -> None:
        super().__init__()
        if head_width % (2 * axes):
            raise ValueError(f"the head width must be a multiple of {2 * axes}, but is {head_width}")
        self.columns = {1: slice(0, 1), 2: slice(1, 3), 3: slice(0, 3)}[axes]
        pairs = head_width // 2 // axes
        self.register_buffer("frequency", base ** (-torch.arange(pairs) / pairs), persistent=False)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Rotate `x` `(S, H, K)` by `position` `(S, 3)`, in tokens."""
        where = position[:, self.columns].clamp(min=0).to(self.frequency.dtype)
        angle = (where.unsqueeze(-1) * self.frequency).flatten(1).unsqueeze(1)  # (S, 1, K / 2)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class ConformerConvolution(nn.Module):
    """Pointwise, GLU, depthwise over time, norm, SiLU, pointwise (Gulati et al. 2020, figure 2).

    The depthwise convolution never crosses from one sequence into the next. In place of the paper's
    batch norm stands one by which a sequence's output does not depend on its neighbours.

    Args:
        width: D.
        kernel: taps, in tokens; odd.
        norm: after the depthwise convolution: `layer`, each token over its channels, or `group`, each
            sequence over all its tokens and channels (as torchaudio's, which calls it group norm).
        dropout: on the output.
    """

    def __init__(
        self, width: int, kernel: int = 15, norm: Literal["layer", "group"] = "layer", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the convolution's kernel must be odd, but is {kernel}")
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.inner_norm = nn.LayerNorm(width) if norm == "layer" else nn.GroupNorm(1, width)
        self.project = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """`(S, D)` -> `(S, D)`."""
        gated = F.glu(self.expand(self.norm(x)), dim=-1)
        mixed = layout.per_length(self._mix, gated)
        return self.drop(self.project(F.silu(mixed)))

    def _mix(self, x: Tensor) -> Tensor:
        """`(n, L, D)` -> `(n, L, D)`."""
        mixed = self.depthwise(x.transpose(1, 2))
        if isinstance(self.inner_norm, nn.GroupNorm):
            return self.inner_norm(mixed).transpose(1, 2)
        return self.inner_norm(mixed.transpose(1, 2))


def drop_sequences(
    residual: Residual, x: Tensor, layout: Layout, position: Tensor, bias: Bias | None, rate: float
) -> Tensor:
    """`x` plus a residual branch that skips whole sequences at random (stochastic depth, Huang et al. 2016).

    Sequences are dropped *before* the branch runs, so that they cost nothing; the branch of those
    kept is scaled so that its expectation is unchanged.

    Args:
        residual: the branch, called with the kept tokens, their layout, positions and bias.
        x: `(S, D)`; of the result, only the rows of the tokens that ask.
        layout: the sequences; all are equally likely to be dropped.
        position: `(S, 3)`.
        bias: attention's bias by sequence, or None.
        rate: share of sequences dropped; at least one is kept.
    """
    total = len(layout.lengths)
    keep = max(1, int(total * (1 - rate) + torch.rand(()).item()))  # rounded at random: right on average
    if keep == total:
        return layout.ask(x) + residual(x, layout, position, bias)
    kept = sorted(torch.randperm(total)[:keep].tolist())
    part, index = layout.subset(kept)
    index = index.to(x.device)
    of_kept = None if bias is None else lambda members, length: bias(tuple(kept[i] for i in members), length)
    branch = residual(x.index_select(0, index), part, position[index], of_kept)
    rows = index if layout.asking is None else Layout(layout.rows).subset(kept)[1].to(x.device)
    return layout.ask(x).index_add(0, rows, branch.to(x.dtype), alpha=total / keep)
