"""Images together with their masks, as the model sees both.

Shapes: n images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from ...tokenizers.view import View
from ..data import PLAIN, Split
from ..run import Run
from .data import Images
from .masks import find_masks, fit_mask
from .views import MODALITY

BATCH = 32


@dataclass(frozen=True)
class Masked:
    """Some images of a split: their plain view, and their masks `(n, H, W)`."""

    view: View
    masks: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.masks.shape[1], self.masks.shape[2]


class MaskedImages:
    """The images of a split that have a mask, read `BATCH` at a time, as often as they are gone through.

    Args:
        data: set up.
        where: the masks; see `find_masks`.
        split: which part.
    """

    def __init__(self, data: Images, where: str, split: Split) -> None:
        self.data, self.samples = data, data.samples(split, plain=True)
        height, width = data.facts()[MODALITY]["size"]
        self.size = (height, width)
        self.find = find_masks(where, data, split)
        self.indices = [index for index in range(len(self.samples)) if self.find(index) is not None]

    def __len__(self) -> int:
        """Images with a mask."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Masked]:
        for start in range(0, len(self), BATCH):
            chunk = self.indices[start : start + BATCH]
            view = self.samples.collate([self.samples[0, index] for index in chunk])[PLAIN]
            yield Masked(view, torch.stack([self.mask(index) for index in chunk]))

    def mask(self, index: int) -> Tensor:
        """The mask of an image as the model sees it, `(H, W)`."""
        found, pixels = self.find(index), self.data.pixels
        assert found is not None
        return fit_mask(found, self.size, 1.0 if pixels is None else pixels.cover)


def images(run: Run, overrides: Mapping[str, Any]) -> Images:
    """The run's data or those that the overrides name. Raises UserError if they are not images."""
    data = run.data(overrides)
    if not isinstance(data, Images):
        raise UserError(f"expected a run trained on images, but its data is {type(data).__name__}")
    return data
