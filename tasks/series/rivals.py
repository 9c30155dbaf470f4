"""Baselines of a backtest, at any origins of a table and in its units.

Shapes: E series, R rows of all series, C channels, n origins, H horizon.
"""

from __future__ import annotations

import numpy as np
import torch

from .baselines import Ridge, fit_ridge
from .data import fill_forward, train_scale
from .rolling import Origins, Plan
from .table import Table
from .windows import Span, Windows, window_origins


class Past:
    """A table as baselines see it: gaps filled forward, and nothing at or after an origin.

    Attributes:
        values: `(R, C)` filled; before the first value of a series, that series' train mean.
        scale: `(E, C)` deviation of the rows that baselines are fitted on.
    """

    def __init__(self, table: Table, plan: Plan) -> None:
        filled, known = fill_forward(table.values, table.starts, table.lengths)
        span = Span(np.zeros_like(plan.fitted), plan.fitted)
        self.mean, self.scale = train_scale(filled, known, table.starts, span)
        self.owner = np.repeat(np.arange(len(table.ids)), table.lengths)
        self.values = np.where(known, filled, self.mean[self.owner])
        self.table, self.plan = table, plan

    def lags(self, origins: Origins, length: int) -> np.ndarray:
        """The `length` rows before each origin `(n, C, length)`; a series' first row repeats before it."""
        first = self.table.starts[origins.series][:, None]
        rows = first + origins.rows[:, None] + np.arange(-length, 0)
        return self.values[np.maximum(rows, first)].transpose(0, 2, 1)


def naive(past: Past, origins: Origins, horizon: int) -> np.ndarray:
    """The last value again, `(n, C, H)`."""
    return np.repeat(past.lags(origins, 1), horizon, axis=2)


def seasonal_naive(past: Past, origins: Origins, horizon: int, season: int) -> np.ndarray:
    """The last season again, `(n, C, H)`."""
    return past.lags(origins, season)[..., np.arange(horizon) % season]


def drift(past: Past, origins: Origins, horizon: int) -> np.ndarray:
    """On from the last value at the mean slope of all rows before it, `(n, C, H)`."""
    first = past.values[past.table.starts[origins.series]][:, :, None]
    last = past.lags(origins, 1)
    slope = (last - first) / np.maximum(origins.rows - 1, 1)[:, None, None]
    return last + slope * np.arange(1, horizon + 1)


def ridge(past: Past, horizon: int, lags: int) -> Ridge | None:
    """One ridge for all series, fitted before the calibration rows, its strength chosen on those.

    Args:
        past: the table.
        horizon: rows to forecast, all at once.
        lags: rows that it reads; fewer where no series is long enough.

    Returns:
        None if no series is long enough for one window.
    """
    table, plan = past.table, past.plan
    lags = min(lags, max(1, int(plan.fitted.max()) // 2))
    scaled = (past.values - past.mean[past.owner]) / past.scale[past.owner]
    values = torch.from_numpy(scaled.astype(np.float32))
    observed = torch.from_numpy(~np.isnan(table.values))
    spans = Span(np.zeros_like(plan.fitted), plan.fitted), Span(plan.fitted, plan.first)
    train, val = (
        Windows(values, observed, window_origins(span, table.starts, lags, horizon), lags, horizon)
        for span in spans
    )
    return fit_ridge(train, val) if len(train) and len(val) else None


def rivals(past: Past, horizon: int, lags: int) -> dict[str, np.ndarray]:
    """Points `(n, C, H)` of every baseline at every origin of the plan, by name.

    A season is left out if no window has one of it before its cut; a window that has less than one, of a
    table where others have more, is given its last value.
    """
    origins = past.plan.origins
    longest = int(past.plan.first[np.unique(origins.series)].max())
    points = {"Naive": naive(past, origins, horizon)}
    for season in past.table.step.seasons:
        if season <= longest:
            seasonal = seasonal_naive(past, origins, horizon, season)
            full = (origins.rows >= season)[:, None, None]
            points[f"SeasonalNaive{season}"] = np.where(full, seasonal, points["Naive"])
    points["Drift"] = drift(past, origins, horizon)
    model = ridge(past, horizon, lags)
    if model is not None:
        mean, scale = (column[origins.series][..., None] for column in (past.mean, past.scale))
        context = (past.lags(origins, len(model.weight)) - mean) / scale
        points["Ridge"] = model(context) * scale + mean
    return points
