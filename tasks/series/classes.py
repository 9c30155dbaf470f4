"""The data module of labelled series: any length, any channels.

Shapes: B samples, C channels, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...objectives.classification import UNLABELLED
from ...tokenizers.errors import UserError
from ...tokenizers.view import Batch, View
from ..data import PLAIN, Data, Samples, Split
from .labelled import Labelled, read_labelled
from .table import NYC_WEATHER
from .views import MODALITY, SeriesView, Viewed, makers, stretched


class LabelledSeries(Data):
    """Series with a class each, from a `.ts` pair, an `.npz`, or a long table with a column `label`.

    Each channel is scaled by the mean and deviation of its train part.

    Args:
        path: file or folder; `nyc_weather` is two days of the packaged weather, whose class is the airport.
        views: what training batches hold, by name.
        val: share of the train part that validates, where no part is called `val`.
        steps: the fewest and the most that a series keeps; a shorter or longer one is stretched to them by
            linear interpolation, so that one recipe serves any length. None leaves all as they are.
        batch_size: samples a training step.
        workers: processes that load.
        seed: of order, augmentation and masks.
    """

    def __init__(
        self,
        path: str = NYC_WEATHER,
        views: dict[str, SeriesView] | None = None,
        val: float = 0.1,
        steps: tuple[int, int] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if steps is not None and not 2 <= steps[0] <= steps[1]:
            raise UserError(f"expected data.steps to be two rising numbers from 2, but got {list(steps)}")
        self.path, self.val, self.steps = path, val, steps
        self.view_options = {"train": SeriesView()} if views is None else dict(views)
        self.classes: list[str] = []
        self.scaling: tuple[list[float], list[float]] | None = None
        self._labelled: Labelled | None = None

    def follow(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the model's classes, in its order, and its scaling."""
        own = facts.get(MODALITY, {})
        self.classes = list(own.get("classes", []))
        if "classes" in own:
            self.scaling = (own["mean"], own["scale"])

    def setup(self, stage: str | None = None) -> None:
        """Read the series and scale them, once.

        Raises:
            UserError: as `read_labelled`, no train part, or another number of channels than the model's.
        """
        if self._labelled is not None:
            return
        found = read_labelled(self.path, self.val)
        train = [values for values, split in zip(found.values, found.splits, strict=True) if split == "train"]
        if not train:
            raise UserError(f"expected labelled series to train on in {self.path!r}, but found none")
        self.scaling = self.scaling or channel_scale(train)
        mean, scale = (np.array(column, np.float32)[:, None] for column in self.scaling)
        if len(mean) != len(found.channels):
            raise UserError(
                f"the model was trained on {len(mean)} channels, but {self.path!r} has {len(found.channels)}"
            )
        self.values = [self._sized(torch.from_numpy((values - mean) / scale)) for values in found.values]
        named = sorted({label for label in found.labels if label is not None})
        self.classes += [name for name in named if name not in self.classes]
        self._labelled = found

    @property
    def labelled(self) -> Labelled:
        """The series as they were read; known after `setup`."""
        assert self._labelled is not None
        return self._labelled

    def views(self) -> dict[str, str]:
        """Every view is of series."""
        return dict.fromkeys(self.view_options, MODALITY)

    def facts(self) -> dict[str, dict[str, Any]]:
        """Steps of the longest series, the channels, the classes and the scaling."""
        assert self.scaling is not None
        longest = max(values.shape[1] for values in self.values)
        channels = list(self.labelled.channels)
        scaling = dict(zip(("mean", "scale"), self.scaling, strict=True))
        return {MODALITY: {"context": longest, "channels": channels, "classes": self.classes, **scaling}}

    def samples(self, split: Split, plain: bool = False) -> Samples:
        """The series of a split; outside the train part a view of one copy is not augmented."""
        chosen = [index for index, part in enumerate(self.labelled.splits) if part == split]
        labels = [self._label(self.labelled.labels[index]) for index in chosen]
        series = LabelledSamples([self.values[index] for index in chosen], labels)
        if plain:
            return series
        return Viewed(series, makers(self.view_options, self, split))

    def names(self, split: Split) -> list[str]:
        """The samples' names in the file."""
        return [
            name
            for name, part in zip(self.labelled.names, self.labelled.splits, strict=True)
            if part == split
        ]

    def _sized(self, series: Tensor) -> Tensor:
        if self.steps is None:
            return series
        fewest, most = self.steps
        return stretched(series, min(max(series.shape[1], fewest), most))

    def _label(self, name: str | None) -> int:
        return UNLABELLED if name is None else self.classes.index(name)


class LabelledSamples:
    """Series `(C, T)` with NaN where values are missing, and a label each."""

    def __init__(self, values: Sequence[Tensor], labels: Sequence[int]) -> None:
        self.values, self.labels = values, torch.tensor(labels, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: tuple[int, int]) -> int:
        """The sample's own index; nothing is drawn at random."""
        return key[1]

    def collate(self, items: Sequence[int]) -> Batch:
        """The view `plain` with its `label`: `(n, C, T)`, or a list where lengths differ."""
        values = [self.values[item] for item in items]
        targets, ids = {"label": self.labels[list(items)]}, tuple(items)
        if len({entry.shape for entry in values}) > 1:
            return {PLAIN: View(MODALITY, values, targets=targets, ids=ids)}
        stacked = torch.stack(values)
        observed = torch.isfinite(stacked)
        return {PLAIN: View(MODALITY, stacked.nan_to_num(0.0), observed=observed, targets=targets, ids=ids)}


def channel_scale(series: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and deviation `(C,)` of each channel over all steps of `series` `(C, T)`; of a still one, 1."""
    rows = np.concatenate(series, axis=1).astype(np.float64)
    mean, deviation = np.nan_to_num(np.nanmean(rows, axis=1)), np.nanstd(rows, axis=1)
    moves = deviation > 1e-9 * np.abs(mean)  # not of a channel of which nothing is observed
    return mean.tolist(), np.where(moves, deviation, 1.0).tolist()
