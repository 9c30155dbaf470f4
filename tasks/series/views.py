"""From series to the named views of a batch, with all randomness from (seed, epoch, sample, view).

Shapes: B samples, n = copies * B entries, C channels, T steps, L windows of one channel, S packed windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ...tokenizers.errors import UserError
from ...tokenizers.view import Batch, Raw, View
from ..data import Data, Split, generator

MODALITY = "series"


@dataclass
class SeriesView:
    """One named view: a crop in time, noise, then a mask.

    Attributes:
        copies: crops of each sample.
        crop: share of the steps that a random crop shows, from and to; None shows the whole.
        steps: what a crop is stretched to by linear interpolation, `own` for the length of the whole series;
            None leaves the crop's own length.
        jitter: deviation of Gaussian noise, up to this, in units of each channel's own deviation.
        mask: share of the windows that the student does not see, drawn for each channel by itself (PatchTST).
    """

    copies: int = 1
    crop: tuple[float, float] | None = None
    steps: int | Literal["own"] | None = None
    jitter: float = 0.0
    mask: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 0 <= self.mask < 1:
            raise UserError(
                f"expected the mask of a view to be a share from 0 to below 1, but got {self.mask:g}"
            )
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise UserError(
                f"expected the crop of a view to be two rising shares up to 1, but got {self.crop}"
            )

    def bare(self) -> SeriesView:
        """The view without its augmentation; the mask stays, which is a task."""
        return replace(self, crop=None, jitter=0.0)


class ViewMaker:
    """Makes one named view of a batch of series.

    Args:
        name: of the view; part of what its randomness is drawn from.
        options: what the config asks of it.
        seed: of the run.
        num_tokens: S, as the model's tokenizer counts them for (C, T); for masks alone.
    """

    def __init__(
        self,
        name: str,
        options: SeriesView,
        seed: int,
        num_tokens: Callable[[Sequence[int]], int] | None = None,
    ) -> None:
        self.name, self.options, self.seed, self.num_tokens = name, options, seed, num_tokens

    def __call__(self, plain: View, epochs: Sequence[int]) -> View:
        """The view of the B samples of `plain`, drawn in their `epochs`; copy-major, missing values NaN."""
        options = self.options
        drawn = [
            generator(self.seed, epoch, index, self.name, copy)
            for copy in range(options.copies)
            for epoch, index in zip(epochs, plain.ids, strict=True)
        ]
        samples = _with_gaps(plain)
        entries = [self._entry(samples[i % len(samples)], source) for i, source in enumerate(drawn)]
        alike = len({entry.shape for entry in entries}) == 1
        copies = {name: torch.cat([target] * options.copies) for name, target in plain.targets.items()}
        return View(
            MODALITY,
            torch.stack(entries) if alike else entries,
            copies=options.copies,
            masked=self._mask(entries, drawn) if options.mask else None,
            targets=copies,
            ids=plain.ids,
        )

    def _entry(self, series: Tensor, source: torch.Generator) -> Tensor:
        """Crop, stretch and noise of one sample `(C, T)`."""
        steps = series.shape[1] if self.options.steps == "own" else self.options.steps
        if self.options.crop is not None:
            series = random_crop(series, self.options.crop, source)
        if steps is not None:
            series = stretched(series, steps)
        if self.options.jitter:
            level = self.options.jitter * torch.rand((), generator=source)
            deviation = _deviation(series)
            series = series + level * deviation * torch.randn(series.shape, generator=source)
        return series

    def _mask(self, entries: Sequence[Tensor], drawn: Sequence[torch.Generator]) -> Tensor:
        """`(S,)` bool: the same number of windows in every channel, at least one and not all."""
        assert self.num_tokens is not None
        masks = []
        for entry, source in zip(entries, drawn, strict=True):
            windows = self.num_tokens((1, entry.shape[1]))
            if windows < 2:
                raise UserError(
                    f"expected at least 2 windows to mask some, but {entry.shape[1]} rows give {windows}"
                )
            count = min(max(round(self.options.mask * windows), 1), windows - 1)
            order = torch.rand((len(entry), windows), generator=source).argsort(1)
            masks.append((order < count).flatten())
        return torch.cat(masks)


def makers(options: Mapping[str, SeriesView], data: Data, split: Split) -> dict[str, ViewMaker]:
    """A maker for each named view of a split, for masks counted by the model's tokenizer."""
    tokenizer = data.tokenizers.get(MODALITY)
    num_tokens = None if tokenizer is None else tokenizer.num_tokens
    return {
        name: ViewMaker(
            name, view if split == "train" or view.copies > 1 else view.bare(), data.seed, num_tokens
        )
        for name, view in options.items()
    }


class Whole(Protocol):
    """Samples of series, unchanged, that `Viewed` draws from."""

    def __len__(self) -> int: ...

    def collate(self, items: Sequence[int]) -> Batch:
        """The one view of the samples `items`."""
        ...


class Viewed:
    """A data set that shows the samples of another as named views.

    Args:
        samples: whose `collate` gives one view of whole series.
        makers: by name of the view.
    """

    def __init__(self, samples: Whole, makers: Mapping[str, ViewMaker]) -> None:
        self.samples, self.makers = samples, makers

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        """The epoch and the sample's index; what is drawn follows from them."""
        return key

    def collate(self, items: Sequence[tuple[int, int]]) -> Batch:
        """Every named view of the samples."""
        epochs, indices = zip(*items, strict=True)
        (plain,) = self.samples.collate(indices).values()
        return {name: maker(plain, epochs) for name, maker in self.makers.items()}


def random_crop(series: Tensor, share: tuple[float, float], source: torch.Generator) -> Tensor:
    """A run of steps `(C, t)` of `series` `(C, T)`, t between the two shares of T, at any place."""
    size, place = torch.rand(2, generator=source).tolist()
    steps = series.shape[1]
    length = max(round(steps * (share[0] + size * (share[1] - share[0]))), 1)
    start = min(int(place * (steps - length + 1)), steps - length)
    return series[:, start : start + length]


def stretched(series: Tensor, steps: int) -> Tensor:
    """`(C, T)` -> `(C, steps)` by linear interpolation; what leans on a missing value is missing."""
    if series.shape[1] == steps:
        return series
    return F.interpolate(series.unsqueeze(0), size=steps, mode="linear", align_corners=True).squeeze(0)


def _deviation(series: Tensor) -> Tensor:
    """`(C, 1)` of the values that are there."""
    centred = series - series.nanmean(1, keepdim=True)
    return centred.square().nanmean(1, keepdim=True).sqrt().nan_to_num()


def _with_gaps(view: View) -> list[Tensor]:
    """Each entry `(C, T)`, NaN where its value is missing."""
    data: Raw = view.data
    if view.observed is None:
        return list(data)
    return [torch.where(seen, entry, torch.nan) for entry, seen in zip(data, view.observed, strict=True)]
