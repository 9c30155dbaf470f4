"""Group masking: blocks of a picture spoilt for the student alone (Atito et al. 2021, SiT).

Blocks are not aligned with patches unless asked. Everything is drawn an entry at a time, and done to a batch.

Shapes: n entries, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as T

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
        found = torch.stack([_blurred(image, one) for image, one in zip(found, draws, strict=True)])
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


def _blurred(image: Tensor, one: Draw) -> Tensor:
    """One `(C, H, W)` picture with its block blurred."""
    if not one.blur.any():
        return image
    widest = min(KERNEL, 2 * min(image.shape[-2:]) - 1)
    kernel = min(widest, 2 * max(1, round(2 * one.sigma)) + 1)
    return T.gaussian_blur(image, [kernel, kernel], [one.sigma, one.sigma]).where(one.blur, image)


def _between(limits: tuple[float, float], draw: Any) -> float:
    return limits[0] + (limits[1] - limits[0]) * float(draw)
