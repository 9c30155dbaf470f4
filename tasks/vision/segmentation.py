"""How well attention finds objects, and patches tell classes of pixels, as numbers.

Shapes: A heads, H x W pixels, R x Q patches, O objects, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .masks import VOID


def objects(mask: Tensor) -> Tensor:
    """Each object of a mask `(H, W)` by itself, `(O, H, W)` bool; neither ground nor void is one."""
    numbers = [number for number in mask.unique().tolist() if number not in (0, VOID)]
    return (
        torch.stack([mask == number for number in numbers]) if numbers else mask.new_empty(0, *mask.shape) > 0
    )


def jaccard(found: Tensor, true: Tensor, counts: Tensor) -> Tensor:
    """Intersection over union, of the pixels that count; 1 where both are empty.

    Args:
        found, true: `(..., H, W)` bool.
        counts: `(H, W)` bool.
    """
    both = (found & true & counts).sum((-2, -1)).double()
    either = ((found | true) & counts).sum((-2, -1)).double()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))


def best_head(found: Tensor, mask: Tensor) -> float | None:
    """DINO's figure for one image: for each object the best head's Jaccard, averaged over the objects.

    Void pixels belong to neither (Caron et al. 2021, section 4.2.2, on VOC12).

    Args:
        found: `(A, H, W)` bool, a mask a head.
        mask: `(H, W)`.

    Returns:
        None for an image without objects.
    """
    true = objects(mask)
    if not len(true):
        return None
    each = jaccard(found[None], true[:, None], mask != VOID)
    return float(each.max(1).values.mean())


def oracle(mask: Tensor, grid: tuple[int, int]) -> float | None:
    """The best any mask made of whole patches can do for an image, in the same figure.

    For one object, patches taken in the order of their share of it give the best mask of every size.

    Args:
        mask: `(H, W)`, sides in multiples of the grid.
        grid: (R, Q).
    """
    true, counts = objects(mask), mask != VOID
    if not len(true):
        return None
    inside, outside = (_in_patches(pixels & counts, grid) for pixels in (true, ~true))
    order = (inside / (inside + outside).clamp(min=1)).argsort(dim=1, descending=True)
    hit, missed = inside.gather(1, order).cumsum(1), outside.gather(1, order).cumsum(1)
    return float((hit / (inside.sum(1, keepdim=True) + missed)).max(1).values.mean())


def box(share: float, size: tuple[int, int]) -> Tensor:
    """A box `(1, H, W)` bool in the middle, of the image's shape and of this share of its area."""
    height, width = size
    tall, wide = (max(1, round(side * share**0.5)) for side in size)
    top, left = (height - tall) // 2, (width - wide) // 2
    found = torch.zeros(1, height, width, dtype=torch.bool)
    found[:, top : top + tall, left : left + wide] = True
    return found


def patch_classes(mask: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """The class that most pixels of each patch have, `(R * Q,)`; `VOID` where most are void.

    Args:
        mask: `(H, W)` of classes below `classes`, and void.
        grid: (R, Q).
    """
    of_class = torch.stack([mask == number for number in (*range(classes), VOID)])
    most = _in_patches(of_class, grid).argmax(0)
    return torch.where(most == classes, torch.full_like(most, VOID), most)


def overlaps(found: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Pixels of each class in the intersection and in the union, `(2, K)`, of those that count.

    Args:
        found: `(H, W)` class of each pixel.
        mask: `(H, W)` true classes, and void.
    """
    counts = mask != VOID
    number = torch.arange(classes)[:, None, None]
    told, true = (found == number) & counts, (mask == number) & counts
    return torch.stack([(told & true).sum((1, 2)), (told | true).sum((1, 2))])


def mean_iou(overlap: Tensor) -> float:
    """Mean over the classes that occur of intersection over union, both summed over all images.

    Args:
        overlap: `(images, 2, K)`, as `overlaps` gives it.
    """
    both, either = overlap.double().sum(0)
    return float((both / either)[either > 0].mean())


def _in_patches(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """How many of `(O, H, W)` bool are True in each patch, `(O, R * Q)`."""
    rows, columns = grid
    count, height, width = pixels.shape
    cells = pixels.view(count, rows, height // rows, columns, width // columns)
    return cells.sum((2, 4)).flatten(1)
