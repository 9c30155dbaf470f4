"""Rolling origins: where a backtest cuts each series, and what may be learnt from before the first cut.

Shapes: E series, n origins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError
from .table import Table

#: Share of the rows before the first cut that baselines are fitted on, where no run says where it stopped.
FITTED = 7 / 8
#: Most origins of a series between the start of calibration and its last cut.
MOST = 3000


@dataclass(frozen=True)
class Origins:
    """First forecast rows, counted from the first row of their series; all `(n,)`.

    Attributes:
        series: which series.
        rows: which row.
        window: which of the backtest's windows, 0 for the earliest; -1 where it is none of them.
    """

    series: np.ndarray
    rows: np.ndarray
    window: np.ndarray


@dataclass(frozen=True)
class Plan:
    """Where a backtest looks.

    Attributes:
        origins: every origin from the start of calibration to the last cut, by series, then time.
        fitted: `(E,)` rows of each series that baselines are fitted on.
        first: `(E,)` the first cut of each series.
        horizon: rows to forecast.
        stride: rows between the origins of a series.
        left_out: series too short for a single window.
    """

    origins: Origins
    fitted: np.ndarray
    first: np.ndarray
    horizon: int
    stride: int
    left_out: int

    @property
    def calibrates(self) -> np.ndarray:
        """`(n,)` bool, origins whose whole forecast lies before the first cut of their series."""
        return self.origins.rows + self.horizon <= self.first[self.origins.series]

    @property
    def reported(self) -> np.ndarray:
        """`(n,)` bool, origins that are windows of the backtest."""
        return self.origins.window >= 0


def plan(
    table: Table, facts: Mapping[str, Any], horizon: int, windows: int, step: int | None, least: int
) -> Plan:
    """The last `windows` windows of each series and the origins before them to calibrate on.

    A series that has fewer rows gives as many windows as it can. Rows that a run was trained on
    are neither forecast nor calibrated on, where there is room for that.

    Args:
        table: long or wide.
        facts: of the run; `trained` and `validated` tell where its own series were split.
        horizon: rows of each window.
        windows: of each series.
        step: rows between cuts; `horizon` unless given.
        least: rows before an origin that a forecast needs.

    Raises:
        UserError: no series is long enough, or a window reaches into rows that the run has seen.
    """
    step = horizon if step is None else step
    last = table.lengths - horizon
    count = np.clip((last - least) // step + 1, 0, windows)
    if not count.any():
        raise UserError(
            f"expected a series of at least {least + horizon} rows for a window of {horizon}, "
            f"but the longest has {int(table.lengths.max())}"
        )
    first = last - (count - 1) * step
    trained, validated = (_rows_until(table, facts, part) for part in ("trained", "validated"))
    _refuse_seen(table, first, last, validated, count, step)
    fitted = np.where(trained > 0, trained, (first * FITTED).astype(np.int64))
    fitted = np.minimum(np.maximum(np.minimum(fitted, first - horizon), least), table.lengths)
    stride = _stride(step, int((last - fitted).max()))
    origins = _origins(last, np.where(count > 0, (last - fitted) // stride + 1, 0), stride)
    back = last[origins.series] - origins.rows
    window = np.where(back % step == 0, count[origins.series] - 1 - back // step, -1)
    chosen = Origins(origins.series, origins.rows, np.maximum(window, -1))
    return Plan(chosen, fitted, first, horizon, stride, int((count == 0).sum()))


def beyond(table: Table, past: Plan) -> Plan:
    """A plan for what comes after the last row: its origins go on to there, and that one is reported.

    Those before it whose forecasts end within the table calibrate; of the others the first steps are known.
    """
    counts = np.bincount(past.origins.series, minlength=len(table.ids))
    counts = np.where(counts > 0, counts + past.horizon // past.stride, 1)
    origins = _origins(table.lengths, counts, past.stride)
    window = np.where(origins.rows == table.lengths[origins.series], 0, -1)
    return replace(past, origins=replace(origins, window=window), first=table.lengths)


def _origins(last: np.ndarray, counts: np.ndarray, stride: int) -> Origins:
    """`counts` origins of each series, `stride` apart, the last of them at `last`."""
    series = np.repeat(np.arange(len(last)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = last[series] - (counts[series] - 1 - within) * stride
    return Origins(series, rows, np.full(len(rows), -1))


def _stride(step: int, span: int) -> int:
    """The shortest stride that divides `step` and keeps the origins of a series below `MOST`."""
    divisors = [stride for stride in range(1, step + 1) if step % stride == 0]
    return next((stride for stride in divisors if span // stride <= MOST), step)


def _rows_until(table: Table, facts: Mapping[str, Any], part: str) -> np.ndarray:
    """`(E,)` rows of each series up to the stamp that a run's `facts` give; 0 for series it does not know."""
    stamps, names = facts.get(part, []), facts.get("names", [])
    each = max(1, len(names) // max(1, len(stamps)))
    places = {name: place // each for place, name in enumerate(names) if stamps}
    place = np.array([places.get(name, -1) for name in table.names[:: len(table.channels)]])
    rows = np.zeros(len(place), np.int64)
    if (place >= 0).any():
        until = pd.to_datetime(
            np.array(stamps, dtype=object)[place[place >= 0]], utc=table.grid.tz is not None
        )
        rows[place >= 0] = table.grid.searchsorted(until, side="right") - table.first[place >= 0]
    return np.clip(rows, 0, None)


def _refuse_seen(
    table: Table, first: np.ndarray, last: np.ndarray, seen: np.ndarray, count: np.ndarray, step: int
) -> None:
    early = (first < seen) & (count > 0)
    if early.any():
        series = int(early.argmax())
        fits = max(0, int((last[series] - seen[series]) // step + 1))
        of = f" of the series {table.ids[series]!r}" if table.ids[series] else ""
        raise UserError(
            f"expected windows after the rows that the run was trained and validated on, but of "
            f"{int(count[series])} windows {step} rows apart{of} only {fits} are: "
            + (f"--windows {fits} fits, and --refit allows more" if fits else "--refit allows more")
        )
