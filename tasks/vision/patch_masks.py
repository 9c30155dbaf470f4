"""Which patches the student does not see: drawn one by one, or in blocks.

Shapes: R x Q patches of an entry (rows, columns), L = R * Q.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .options import Mask

#: Fewest patches of a block, how far its sides may differ (BEiT), and how many blocks are tried.
SMALLEST, ASPECT, TRIES = 4, 0.3, 50


def draw_mask(options: Mask, grid: tuple[int, int], random: torch.Generator) -> Tensor:
    """`(L,)` bool of one entry: its share is drawn, then the patches; nothing in an entry left unmasked."""
    patches = grid[0] * grid[1]
    if options.share < 1 and torch.rand((), generator=random) >= options.share:
        return torch.zeros(patches, dtype=torch.bool)
    low, high = limits(options)
    ratio = low if low == high else low + (high - low) * torch.rand((), generator=random).item()
    return block_patches(grid, ratio, random) if options.blocks else random_patches(patches, ratio, random)


def limits(options: Mask) -> tuple[float, float]:
    """The least and the largest share of an entry's patches."""
    return (options.ratio, options.ratio) if isinstance(options.ratio, (int, float)) else options.ratio


def random_patches(patches: int, ratio: float, random: torch.Generator) -> Tensor:
    """`(L,)` bool, True for a random `ratio` of the patches: at least one, and never all."""
    mask = torch.zeros(patches, dtype=torch.bool)
    mask[torch.randperm(patches, generator=random)[: _count(patches, ratio)]] = True
    return mask


def block_patches(grid: tuple[int, int], ratio: float, random: torch.Generator) -> Tensor:
    """`(L,)` bool, True for a `ratio` of the patches, in blocks that may overlap (Bao et al. 2022, BEiT).

    Each block is of 4 patches to all that are still wanted, its sides in a ratio of .3 to 1 / .3; one that
    would mask more than is wanted is drawn again. What no block fits is masked patch by patch, so that the
    number is exact: at least one, and never all.
    """
    rows, columns = grid
    mask, wanted = torch.zeros(rows, columns, dtype=torch.bool), _count(rows * columns, ratio)
    for draws in torch.rand(TRIES, 4, generator=random).tolist():
        left = wanted - int(mask.sum())
        if left <= 0:
            break
        top, down, start, across = _block(grid, left, draws)
        tried = mask.clone()
        tried[top : top + down, start : start + across] = True
        mask = tried if int(tried.sum()) <= wanted else mask
    return _fill(mask.flatten(), wanted, random)


def _block(grid: tuple[int, int], left: int, draws: list[float]) -> tuple[int, int, int, int]:
    """Top, height, left edge and width of a block, in patches; `draws` are four numbers in [0, 1)."""
    size, aspect, down, across = draws
    area = min(SMALLEST, left) + size * (left - min(SMALLEST, left))
    ratio = math.exp(math.log(1 / ASPECT) * (2 * aspect - 1))
    height = min(grid[0], max(1, round(math.sqrt(area * ratio))))
    width = min(grid[1], max(1, round(math.sqrt(area / ratio))))
    return int(down * (grid[0] - height + 1)), height, int(across * (grid[1] - width + 1)), width


def _fill(mask: Tensor, wanted: int, random: torch.Generator) -> Tensor:
    """Mask single patches until there are as many as wanted."""
    free = (~mask).nonzero().squeeze(1)
    more = free[torch.randperm(len(free), generator=random)[: wanted - int(mask.sum())]]
    return mask.index_fill(0, more, True)


def _count(patches: int, ratio: float) -> int:
    return min(max(1, round(patches * ratio)), patches - 1)
