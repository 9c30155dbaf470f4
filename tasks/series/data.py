"""The data module of tables of series: read, filled, scaled by their train rows, cut into windows.

Shapes: E series, R rows of all series laid end to end, C channels.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...objectives.forecasting import Forecasting
from ...tokenizers.errors import UserError
from ..data import PLAIN, Data, Samples, Split
from .baselines import fit_ridge
from .beside import Given, fit_beside
from .table import NYC_WEATHER, Columns, Table, read_table
from .views import MODALITY, SeriesView, Viewed, makers
from .windows import SPLIT, Span, Windows, split_spans, window_origins

if TYPE_CHECKING:
    import pandas as pd

    from ..model import Model


class Tables(Data):
    """A long table (`unique_id, ds, y`) or a wide one (`ds`, one column a series), CSV or Parquet.

    The rows of each series are split in time: the first 70 % train, the last 20 % test, what is
    between validates, unless `split` says otherwise. Each channel of each series is scaled by the
    mean and deviation of its train rows. Every window of a split counts.

    Channels are drawn apart unless told otherwise: a training batch then mixes channels and times
    at random, which on the packaged sample learns faster than whole rows of channels that rise
    and fall together.

    Args:
        path: the table, or `nyc_weather`, the packaged sample.
        context: rows that the model reads.
        horizon: rows that it forecasts.
        time, series, value: names of the table's columns; a table without the column `series`
            is wide.
        freq: pandas' name of the time between rows; None infers it.
        gaps: `forward` fills what is missing with the last value and counts it as observed;
            `mask` leaves it out of the context, the loss and the figures.
        covariates: what is known beside the values, further channels of every sample.
        together: a sample is a window of all channels of a wide table, rather than of one.
        stride: rows between the training windows of one series.
        split: shares of each series' rows that train, validate and test; or three numbers of rows,
            counted from its first one (ETT's hourly benchmark: 8640, 2880, 2880).
        views: what training batches hold, by name: crops, noise and masks of the context. None gives
            the view `train`, the context as it is.
        batch_size: samples a training step.
        workers: processes that load.
        seed: of the order of windows.
    """

    def __init__(
        self,
        path: str = NYC_WEATHER,
        context: int = 168,
        horizon: int = 24,
        time: str = "ds",
        series: str = "unique_id",
        value: str = "y",
        freq: str | None = None,
        gaps: Literal["forward", "mask"] = "mask",
        covariates: Given | None = None,
        together: bool = False,
        stride: int = 1,
        split: tuple[float, float, float] = SPLIT,
        views: dict[str, SeriesView] | None = None,
        batch_size: int = 128,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        for name, number in (("context", context), ("horizon", horizon), ("stride", stride)):
            if number < 1:
                raise UserError(f"expected data.{name} to be at least 1, but got {number}")
        self.path, self.context, self.horizon, self.stride = path, context, horizon, stride
        self.given = covariates or Given()
        self.columns, self.freq, self.gaps = Columns(time, series, value, self.given.roles()), freq, gaps
        self.together, self.split = together, split
        self.view_options = views
        self._table: Table | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read the table once, fill it, and scale it.

        Raises:
            UserError: as `read_table`, or no series is long enough for one window in each split.
        """
        if self._table is not None:
            return
        table = read_table(self.path, self.columns, self.freq)
        self.spans = split_spans(table.lengths, self.split)
        self._check_length(table)
        filled, observed = fill_forward(table.values, table.starts, table.lengths)
        observed = observed if self.gaps == "forward" else ~np.isnan(table.values)
        self.mean, self.scale = train_scale(filled, observed, table.starts, self.spans["train"])
        owner = np.repeat(np.arange(len(table.ids)), table.lengths)
        scaled = (filled - self.mean[owner]) / self.scale[owner]
        self.values = torch.from_numpy(np.nan_to_num(scaled, nan=0.0).astype(np.float32))
        self.observed: Tensor = torch.from_numpy(observed)
        self.beside = fit_beside(table, self.given.calendar, self.spans["train"].high, self.horizon)
        self._table = table

    @property
    def table(self) -> Table:
        """The table as it was read; known after `setup`."""
        assert self._table is not None
        return self._table

    def views(self) -> dict[str, str]:
        """The config's views of each window, or one."""
        return dict.fromkeys(self.view_options or ("train",), MODALITY)

    def facts(self) -> dict[str, dict[str, Any]]:
        """Rows of context and horizon, the time between rows, rows a season, the channels, and the scaling.

        `names` are those of every series and channel, `mean` and `scale` what its train rows gave;
        `trained` and `validated` are the last stamps of each series' train and validation rows.
        `covariates` have a name, a role, mean and scale of the train rows, and follow the channels of
        every sample; `levels` are those of columns that are no numbers.
        """
        step, table = self.table.step, self.table
        return {
            MODALITY: {
                "context": self.context,
                "horizon": self.horizon,
                "step": step.name,
                "season": step.season,
                "channels": list(self.table.channels),
                "names": list(self.table.names),
                "mean": self.mean.ravel().tolist(),
                "scale": self.scale.ravel().tolist(),
                "together": self.together,
                "covariates": [] if self.beside is None else self.beside.facts(),
                "levels": {name: list(levels) for name, levels in table.covariates.levels.items()},
                "trained": table.stamps(self.spans["train"].high - 1),
                "validated": table.stamps(self.spans["val"].high - 1),
            }
        }

    def begin(self, model: Model) -> None:
        """Fit the ridge that forecasting heads ask to start from; its strength is chosen on validation.

        Raises:
            UserError: there are covariates, and the model attends along each channel alone.
        """
        if self.beside is not None and "across" not in model.encoder.axes:
            raise UserError(
                "data.covariates are read by attention across channels, as in series/forecast-multivariate, "
                f"but model.encoder.axes is [{', '.join(dict.fromkeys(model.encoder.axes))}]"
            )
        heads = [head for head in model.predictors().values() if isinstance(head, Forecasting)]
        asking = [head for head in heads if head.start == "ridge"]
        if asking:
            ridge = fit_ridge(self.windows("train"), self.windows("val"))
            for head in asking:
                head.begin(torch.from_numpy(ridge.weight.astype(np.float32)))

    def samples(self, split: Split, plain: bool = False) -> Samples:
        """The windows whose forecasts lie in a split; those that train every `stride` rows."""
        if plain:
            return self.windows(split)
        windows = self.windows(split, view="train", stride=self.stride if split == "train" else 1)
        if self.view_options is None:
            return windows
        return Viewed(windows, makers(self.view_options, self, split))

    def windows(
        self, split: Split, horizon: int | None = None, view: str = PLAIN, stride: int = 1
    ) -> Windows:
        """Every window of a split as one view, for the config's horizon unless another is given (rows)."""
        size = (self.context, self.horizon if horizon is None else horizon)
        origins = window_origins(self.spans[split], self.table.starts, *size, stride)
        series = np.searchsorted(self.table.starts, origins, side="right") - 1
        beside = None if self.beside is None else partial(self._beside, series, origins)
        return Windows(self.values, self.observed, origins, *size, self.together, view, series, beside)

    def _beside(self, series: np.ndarray, origins: np.ndarray, which: Tensor) -> tuple[Tensor, Tensor]:
        """The covariates of some windows `(n,)`, `(n, K, L)`, and which of them are observed."""
        assert self.beside is not None
        chosen = which.numpy()
        rows = origins[chosen] - self.table.starts[series[chosen]]
        return self.beside.at(series[chosen], rows, self.context)

    def predicted_splits(self) -> tuple[Split, ...]:
        """The test windows: the model was fitted to the others."""
        return ("test",)

    def predicted(self, prediction: Tensor, model: Model) -> pd.DataFrame | None:
        """Forecasts of every test window, `unique_id, ds, cutoff`, `median` and a column a quantile."""
        from .predictions import prediction_table

        return prediction_table(self, self.windows("test"), prediction, model)

    def names(self, split: Split) -> list[str]:
        """Series, channel and first forecast stamp of every window of a split."""
        windows, table = self.windows(split), self.table
        rows = windows.origins.numpy()
        series = np.searchsorted(table.starts, rows, side="right") - 1
        stamps = table.grid[table.first[series] + rows - table.starts[series]]
        each = len(table.channels)
        if self.together:
            return [f"{table.ids[s]} {stamp}".strip() for s, stamp in zip(series, stamps, strict=True)]
        return [
            f"{table.names[s * each + channel]} {stamp}"
            for s, stamp in zip(series, stamps, strict=True)
            for channel in range(each)
        ]

    def _check_length(self, table: Table) -> None:
        for split, span in self.spans.items():
            wanted = self.split[list(self.spans).index(split)] > 0
            if wanted and len(window_origins(span, table.starts, self.context, self.horizon)) == 0:
                longest = int(table.lengths.max())
                raise UserError(
                    f"{self.path!r} is too short for a context of {self.context} and a horizon of "
                    f"{self.horizon} rows: its longest series has {longest}, and after the split "
                    f"{'/'.join(f'{part:g}' for part in self.split)} no {split} window fits{self._shorter()}"
                )

    def _shorter(self) -> str:
        """The longest horizon and context with which every part holds a window; "" if none do."""
        rows = [
            int((span.high - span.low).max())
            for span, share in zip(self.spans.values(), self.split, strict=True)
            if share > 0
        ]
        horizon = min(self.horizon, *rows[1:], rows[0] // 2)
        context = min(self.context, rows[0] - horizon)
        if horizon < 1 or context < 2:
            return ""
        return (
            f"; --data.context {context} --data.horizon {horizon} fit, with "
            f"--model.tokenizers.series.patch and stride of {context} at most"
        )


def fill_forward(
    values: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill NaN with the last value before it in the same series.

    Args:
        values: `(R, C)`.
        starts, lengths: `(E,)` first row and rows of each series.

    Returns:
        `(R, C)` values, still NaN before the first value of a series, and `(R, C)` bool, True
        where there is a value now.
    """
    row = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, row), axis=0)
    known = last >= np.repeat(starts, lengths)[:, None]
    filled = np.where(known, np.take_along_axis(values, np.maximum(last, 0), axis=0), np.nan)
    return filled, known


def train_scale(
    values: np.ndarray, observed: np.ndarray, starts: np.ndarray, train: Span
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation `(E, C)` of each series and channel over its observed train rows.

    A channel that never moves, or has no train rows, has deviation 1.
    """
    # segments: the train rows of each series, and the rest of it, which is thrown away
    borders = np.column_stack([starts, starts + train.high]).ravel()
    kept = np.where(observed, values, 0.0)
    count = _sums(observed.astype(float), borders)
    mean = _sums(kept, borders) / np.maximum(count, 1)
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    centred = np.where(observed, kept - mean[owner], 0.0)
    deviation = np.sqrt(_sums(centred**2, borders) / np.maximum(count, 1))
    return mean, np.where(deviation > 1e-9 * np.maximum(np.abs(mean), 1e-300), deviation, 1.0)


def _sums(rows: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """`(E, C)` sums over every other segment between `borders` `(2 E,)`; empty segments sum to zero."""
    total = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    return total[borders[1::2]] - total[borders[0::2]]
