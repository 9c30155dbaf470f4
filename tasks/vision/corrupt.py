"""Group masking: blocks of a picture spoilt for the student alone (Atito et al. 2021, SiT).

Blocks are not aligned with patches unless asked. Everything is drawn an entry at a time, and done to a batch.

Shapes: n entries, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .options import Corrupt

#: Deviation of the blur in pixels, from and to, and its largest kernel, as in SiT's first version.
SIGMA, KERNEL = (0.1, 5.1), 15

#: Blocks drawn at once until a share is covered.
CHUNK = 32


@dataclass(frozen=True)
class Draw:
    """What is done to one entry: masks `(H, W)` bool of each kind of corruption.

    `noise` `(C, H, W)` fills what is dropped; `partner`, in [0, 1), says which other entry of the batch the
    replaced pixels come from; `sigma` is the blur's, in pixels.
    """

    grey: Tensor
    blur: Tensor
    drop: Tensor
    replace: Tensor
    noise: Tensor
    partner: Tensor
    sigma: float


def draw(options: Corrupt, channels: int, size: tuple[int, int], random: torch.Generator) -> Draw:
    """The corruption of one entry of `size` (H, W) pixels.

    With `swap`, an entry is either replaced in part or corrupted in the other ways; else all are chained.
    """
    grey, blur, swap, partner, drop, replace, sigma = torch.rand(7, generator=random)
    alone = bool(swap < options.swap)
    none = torch.zeros(size, dtype=torch.bool)
    others, replaces = not alone, alone or not options.swap
    noise = torch.randn(channels, *size, generator=random)
    return Draw(
        grey=_one(options, size, random) if others and channels > 1 and grey < options.grey else none,
        blur=_one(options, size, random) if others and blur < options.blur else none,
        drop=blocks(options, _between(options.drop, drop), size, random) if others else none,
        replace=blocks(options, _between(options.replace, replace), size, random) if replaces else none,
        noise=noise if options.fill == "noise" else torch.zeros_like(noise),
        partner=partner,
        sigma=_between(SIGMA, sigma),
    )


def corrupt(images: Tensor, partners: Tensor, draws: list[Draw]) -> tuple[Tensor, Tensor]:
    """Normalised `(n, C, H, W)` with one block grey, one blurred, blocks dropped, blocks replaced: in turn.

    Args:
        partners: `(n, C, H, W)` the other pictures, clean; a replaced block keeps its place.
        draws: one an entry.

    Returns:
        The corrupted pictures, and `(n, 1, H, W)` bool: the pixels that were touched.
    """
    grey, blur, drop, replace = (
        torch.stack([getattr(one, kind) for one in draws])[:, None]
        for kind in ("grey", "blur", "drop", "replace")
    )
    found = images.mean(1, keepdim=True).where(grey, images)
    if blur.any():
        found = _blurred(found, blur, torch.tensor([one.sigma for one in draws]))
    found = torch.stack([one.noise for one in draws]).where(drop, found)
    return partners.where(replace, found), grey | blur | drop | replace


def blocks(options: Corrupt, share: float, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """`(H, W)` bool, True in blocks that cover at least `share` of the pixels, and at most a block more."""
    mask = torch.zeros(size, dtype=torch.bool)
    if share <= 0:
        return mask
    covered, wanted = mask.numpy(), share * size[0] * size[1]
    while True:
        for numbers in torch.rand(CHUNK, 4, generator=random).tolist():
            top, down, left, across = _box(options, size, numbers)
            covered[top : top + down, left : left + across] = True
            if covered.sum() >= wanted:
                return mask


def _one(options: Corrupt, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """`(H, W)` bool, True in one block."""
    mask = torch.zeros(size, dtype=torch.bool)
    top, down, left, across = _box(options, size, torch.rand(4, generator=random).tolist())
    mask[top : top + down, left : left + across] = True
    return mask


def _box(options: Corrupt, size: tuple[int, int], numbers: list[float]) -> tuple[int, int, int, int]:
    """Top, height, left edge and width of a block in pixels, all multiples of `align`."""
    placed: list[int] = []
    for side, extent, start in zip(size, numbers[:2], numbers[2:], strict=True):
        cells = max(1, side // options.align)
        low, high = (max(1, min(cells, round(share * cells))) for share in options.side)
        length = low + int(extent * (high - low + 1))
        placed += [int(start * (cells - length + 1)) * options.align, length * options.align]
    return placed[0], placed[1], placed[2], placed[3]


def _blurred(images: Tensor, masks: Tensor, sigmas: Tensor) -> Tensor:
    """`(n, C, H, W)` whose pixels in `masks` `(n, 1, H, W)` are blurred by deviations `(n,)`.

    Borders are mirrored. The Gaussian is separable: each entry's is two products with matrices of its own.
    """
    radius = (2 * sigmas).round().clamp(1, min(KERNEL // 2, min(images.shape[-2:]) - 1))
    down, across = (_gaussian(side, sigmas, radius)[:, None] for side in images.shape[-2:])
    return (down @ images @ across.transpose(2, 3)).where(masks, images)


def _gaussian(side: int, sigmas: Tensor, radius: Tensor) -> Tensor:
    """`(n, side, side)` matrices that blur a line of pixels, cut off at each entry's radius."""
    offset = torch.arange(-int(radius.max()), int(radius.max()) + 1)
    weight = (-0.5 * (offset / sigmas[:, None]).square()).exp() * (offset.abs() <= radius[:, None])
    weight = weight / weight.sum(1, keepdim=True)
    source = (torch.arange(side)[:, None] + offset).abs()
    source = side - 1 - (side - 1 - source).abs()  # mirrored, without the border's own pixel twice
    index = source.expand(len(sigmas), -1, -1)
    matrix = weight.new_zeros(len(sigmas), side, side)
    return matrix.scatter_add_(2, index, weight[:, None].expand_as(index))


def _between(limits: tuple[float, float], draw: Any) -> float:
    return limits[0] + (limits[1] - limits[0]) * float(draw)
