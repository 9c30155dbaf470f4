"""What the panel of time series says of a run: figures on every test window beside their baselines.

Shapes: n windows, C channels, L rows of context, H horizon, Q quantiles, G days (blocks of origins).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError
from ..panel import Picture, Row
from ..run import Run
from .baselines import arrays, fit_ridge, naive, seasonal_naive
from .data import Tables
from .plot import Chart, draw
from .roll import forecaster
from .windows import Windows

MSE, MAE, RATIO = "MSE (z units)", "MAE (z units)", "MSE / MSE of ridge"
OWN = "this run"
#: Draws of the bootstrap over days.
DRAWS = 1000
#: Charts in the picture, and seasons of history in each.
SHOWN, HISTORY = 4, 4
#: Units of the packaged sample's channels.
UNITS = {"temp": "°F", "dewp": "°F", "humid": "%", "wind_speed": "mph", "pressure": "hPa"}


@dataclass
class Sums:
    """Sums over the observed values whose origin lies in each day, `(G,)` each, and so over any batches."""

    square: np.ndarray
    absolute: np.ndarray
    inside: np.ndarray
    count: np.ndarray

    @classmethod
    def empty(cls, days: int) -> Sums:
        """Nothing summed yet."""
        return cls(*(np.zeros(days) for _ in range(4)))

    def add(
        self, day: np.ndarray, error: np.ndarray, observed: np.ndarray, inside: np.ndarray | None
    ) -> None:
        """Add windows: their days `(n,)`; errors, observed and inside `(n, C, H)`."""
        columns = {
            "square": np.where(observed, error**2, 0.0),
            "absolute": np.where(observed, np.abs(error), 0.0),
            "count": observed,
            "inside": np.zeros_like(observed) if inside is None else inside & observed,
        }
        for name, column in columns.items():
            getattr(self, name)[:] += np.bincount(day, column.sum((1, 2)), minlength=len(self.count))


def measure(run: Run) -> list[Row]:
    """MSE and MAE of the run, ridge, naive and seasonal naive, and the run's coverage, on every test window.

    Intervals are 95 %, by a bootstrap over days (seasons of consecutive origins).

    Raises:
        UserError: the run was not trained on a table, or has no forecasting objective.
    """
    sums, share = score(run)
    days = len(sums[OWN].count)
    draws = np.random.default_rng(0).integers(0, days, (DRAWS, days))

    def row(system: str, metric: str, total: np.ndarray, over: np.ndarray) -> Row:
        drawn = total[draws].sum(1) / over[draws].sum(1)
        low, high = np.quantile(drawn, (0.025, 0.975))
        return Row(system, metric, total.sum() / over.sum(), float(low), float(high), system != OWN)

    own = sums[OWN]
    rows = [row(system, MSE, each.square, each.count) for system, each in sums.items()]
    rows.append(row(OWN, RATIO, own.square, sums["ridge"].square))
    rows += [row(system, MAE, each.absolute, each.count) for system, each in sums.items()]
    rows.append(row(OWN, f"coverage of the {share:.0f} % interval", own.inside, own.count))
    return rows


def score(run: Run) -> tuple[dict[str, Sums], float]:
    """Sums of each system by day of the test windows, and the nominal coverage of the interval in %."""
    data = tables(run)
    head = forecaster(run.model)
    test, season = data.windows("test"), data.table.step.season
    ridge = fit_ridge(data.windows("train"), data.windows("val"))
    day = test.origins.numpy() // max(season, 1)
    day = np.repeat(np.unique(day, return_inverse=True)[1], test.each)
    sums = {name: Sums.empty(int(day.max()) + 1) for name in (OWN, "ridge", "naive", "seasonal naive")}
    for which, view in test.in_order():
        context, future = arrays(view)
        observed = view.targets["future_observed"].numpy()
        quantiles = run.model.predict(view).numpy()
        inside = (quantiles[..., 0] <= future) & (future <= quantiles[..., -1])
        points = {
            OWN: quantiles[..., head.middle],
            "ridge": ridge(context),
            "naive": naive(context, data.horizon),
            "seasonal naive": seasonal_naive(context, data.horizon, season),
        }
        for name, point in points.items():
            sums[name].add(day[which], point - future, observed, inside if name == OWN else None)
    return sums, 100 * (head.quantiles[-1] - head.quantiles[0])


def tables(run: Run) -> Tables:
    """The run's data module. Raises UserError if it does not read tables."""
    data = run.data()
    if not isinstance(data, Tables):
        raise UserError(f"expected a run trained on tables of series, but its data is {type(data).__name__}")
    return data


def pictures(run: Run) -> dict[str, Picture]:
    """How each picture of a run is drawn, by its file's name."""
    return {"panel.png": picture}


def picture(run: Run, path: Path) -> str:
    """Draw forecasts from the middle of the test part for up to four channels; returns the caption."""
    data = tables(run)
    count = len(data.table.names)
    chosen = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int))
    charts = [_chart(run, data, int(index)) for index in chosen]
    inside = sum(
        int(((c.quantiles[:, 0] <= c.truth) & (c.truth <= c.quantiles[:, -1])).sum()) for c in charts
    )
    values = sum(len(c.stamps) for c in charts)
    share = 100 * (charts[0].levels[-1] - charts[0].levels[0])
    start, horizon = charts[0].stamps[0], data.horizon
    draw(charts, path, f"{horizon} rows ahead from {start:%Y-%m-%d %H:%M}, which the model never saw")
    return (
        f"Forecasts from the middle of the test part, a place fixed beforehand: {inside} of {values} true "
        f"values lie in the {share:.0f} % interval here; one origin shows what a forecast looks like, "
        "not how good it is."
    )


def _chart(run: Run, data: Tables, index: int) -> Chart:
    """One series or channel (of `table.names`) at the middle of its test rows, in its own units."""
    table, season = data.table, data.table.step.season
    series, channel = divmod(index, len(table.channels))
    span, start = data.spans["test"], int(table.starts[series])
    origin = start + int(span.low[series] + (span.high[series] - span.low[series] - data.horizon) // 2)
    size = (data.context, data.horizon)
    one, own = np.array([origin]), np.array([series])
    windows = Windows(data.values, data.observed, one, *size, series=own)
    (view,) = windows.collate([channel]).values()
    mean, scale = data.mean[series, channel], data.scale[series, channel]
    first = origin - min(data.context, HISTORY * season)
    grid = table.grid[table.first[series] :]
    context, future = arrays(view)
    return Chart(
        title=table.names[index],
        unit=UNITS.get(table.names[index].split(" ")[-1], ""),
        past=pd.Series(table.values[first:origin, channel], index=grid[first - start : origin - start]),
        quantiles=run.model.predict(view)[0, 0].numpy() * scale + mean,
        levels=forecaster(run.model).quantiles,
        stamps=grid[origin - start : origin - start + data.horizon],
        truth=future[0, 0] * scale + mean,
        rival=seasonal_naive(context, data.horizon, season)[0, 0] * scale + mean,
    )
