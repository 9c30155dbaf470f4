"""Fixed positions that any modality can be given.

Shapes: S packed tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sincos(position: Tensor, width: int) -> Tensor:
    """Sine-cosine positions in two axes, `(S, D)`; for images those of He et al. 2022 (MAE).

    The first half of the channels says the column, the second the row or, where there are no rows, the
    time: sin(x w) for D / 4 frequencies w = 10000^(-4 i / D), then cos(x w). Prefix tokens (position -1)
    get zeros.

    Args:
        position: `(S, 3)` time, row, column, in tokens.
        width: D, a multiple of 4.

    Raises:
        ValueError: the width is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions need a width that is a multiple of 4, but it is {width}")
    frequency = 10_000.0 ** (-torch.arange(width // 4, device=position.device) / (width // 4))
    axes = torch.stack([position[:, 2], position[:, 0] + position[:, 1]], dim=1)
    angle = axes.unsqueeze(2) * frequency  # (S, 2, D / 4)
    waves = torch.cat([angle.sin(), angle.cos()], dim=2).flatten(1)
    return waves.where(position[:, :1] >= 0, torch.zeros_like(waves))
