"""AutoETS, AutoARIMA and LightGBM beside a backtest, where their libraries are installed.

Shapes: n origins, C channels, H horizon, L lags.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from .rivals import Past
from .rolling import Plan

#: Rows that AutoETS and AutoARIMA read, in seasons and at least; longer pasts take them minutes each.
SEASONS, ROWS = 5, 100
#: Most forecasts that they are asked for: each is fitted alone, in a tenth of a second and more.
ALONE = 500
#: Longest season that they are told of; they take minutes with longer ones.
LONGEST = 24
#: Lags that LightGBM reads, and rows it learns from at most.
LAGS, LEARNT = 48, 200_000


def peer_forecasts(past: Past, where: Plan) -> dict[str, np.ndarray]:
    """Points `(n, C, H)` of each peer that is installed, by name; NaN at origins it was not asked for.

    AutoETS and AutoARIMA are left out above `ALONE` forecasts.
    """
    found = {}
    if find_spec("lightgbm") is not None:
        found["LightGBM"] = lightgbm(past, where)
    if find_spec("statsforecast") is not None and asked(past, where) <= ALONE:
        from statsforecast.models import AutoARIMA, AutoETS

        season = past.table.step.season
        season = season if season <= LONGEST else 1
        for model in (AutoETS(season_length=season), AutoARIMA(season_length=season)):
            name = type(model).__name__
            found[name] = _one_by_one(past, where, name, model.forecast)
    return found


def asked(past: Past, where: Plan) -> int:
    """Forecasts that each peer would have to make alone."""
    return int((where.reported | where.calibrates).sum()) * len(past.table.channels)


def missing_peers(past: Past, where: Plan) -> list[str]:
    """A sentence for each kind of peer that is left out: its library is missing, or it takes too long."""
    command = "pip install 'triptych[forecast-peers]'"
    found = []
    if find_spec("statsforecast") is None:
        found.append(f"AutoETS and AutoARIMA are not shown: statsforecast is not installed ({command}).")
    elif asked(past, where) > ALONE:
        found.append(
            "AutoETS and AutoARIMA are not shown: they are fitted anew for each forecast, "
            f"and there are {asked(past, where)} (at most {ALONE})."
        )
    if find_spec("lightgbm") is None:
        found.append(f"LightGBM is not shown: it is not installed ({command}).")
    return found


def _one_by_one(
    past: Past, where: Plan, name: str, forecast: Callable[..., dict[str, np.ndarray]]
) -> np.ndarray:
    """A statsforecast model fitted to the latest rows before each origin of each sequence."""
    from rich.console import Console
    from rich.progress import track

    table, origins = past.table, where.origins
    length = max(ROWS, SEASONS * table.step.season)
    points = np.full((len(origins.rows), len(table.channels), where.horizon), np.nan)
    chosen = np.flatnonzero(where.reported | where.calibrates)
    for index in track(chosen, f"fitting {name}", console=Console(stderr=True), transient=True):
        end = table.starts[origins.series[index]] + origins.rows[index]
        start = end - min(length, origins.rows[index])
        for channel in range(points.shape[1]):
            lags = past.values[start:end, channel].astype(np.float64)
            points[index, channel] = forecast(y=lags, h=where.horizon)["mean"]
    return points


def lightgbm(past: Past, where: Plan) -> np.ndarray:
    """One boosted model of the next value's change, from the lags less the last value; step by step."""
    from lightgbm import LGBMRegressor

    table, origins = past.table, where.origins
    lags = min(LAGS, max(2, int(where.fitted.max()) // 2))
    scaled = (past.values - past.mean[past.owner]) / past.scale[past.owner]
    within = np.arange(len(scaled)) - np.repeat(table.starts, table.lengths)
    rows = np.flatnonzero((within >= lags) & (within < np.repeat(where.fitted, table.lengths)))
    rows = rows[:: -(-len(rows) * scaled.shape[1] // LEARNT)]
    windows = scaled[rows[:, None] + np.arange(-lags, 1)].transpose(0, 2, 1).reshape(-1, lags + 1)
    model = LGBMRegressor(n_estimators=200, num_leaves=31, verbose=-1, n_jobs=1, random_state=0)
    last = windows[:, -2:-1]
    model.fit(windows[:, :-1] - last, windows[:, -1] - last[:, 0])
    mean, scale = (column[origins.series][..., None] for column in (past.mean, past.scale))
    path = ((past.lags(origins, lags) - mean) / scale).reshape(-1, lags)
    for _ in range(where.horizon):
        seen, last = path[:, -lags:], path[:, -1:]
        path = np.column_stack([path, model.booster_.predict(seen - last) + last[:, 0]])
    return path[:, lags:].reshape(len(origins.rows), -1, where.horizon) * scale + mean
