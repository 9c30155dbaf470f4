"""Forecasts in Nixtla's shape: `unique_id, ds, cutoff, y`, one column a model and two an interval.

Shapes: k windows, C channels, H horizon, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .rolling import Plan
from .table import Table

KEYS = ("unique_id", "ds", "cutoff", "y")


def intervals(levels: Sequence[float]) -> dict[int, tuple[int, int]]:
    """Places of the lower and the upper quantile of each central interval, by its percentage, rising."""
    place = {round(level, 6): index for index, level in enumerate(levels)}
    pairs = {
        round(100 * (1 - 2 * level)): (index, place[round(1 - level, 6)])
        for level, index in place.items()
        if level < 0.5 and round(1 - level, 6) in place
    }
    return dict(sorted(pairs.items()))


def frames(
    table: Table,
    plan: Plan,
    quantiles: Mapping[str, np.ndarray],
    points: Mapping[str, np.ndarray],
    levels: Sequence[float],
) -> pd.DataFrame:
    """One row a sequence, window and step for which the truth is known.

    `utilsforecast.evaluation.evaluate` reads it as it is. A column `MODEL` is the point forecast, the
    median unless `points` has another, `MODEL-lo-80` and `MODEL-hi-80` bound its 80 % interval.

    Args:
        table, plan: what was forecast, and where it was cut.
        quantiles: by system, `(k, C, H, Q)` at the reported windows.
        points: by system, `(k, C, H)`; a system without quantiles has no intervals.
        levels: of the quantiles.
    """
    reported, horizon, each = plan.reported, plan.horizon, len(table.channels)
    series, rows = plan.origins.series[reported], plan.origins.rows[reported]
    names = np.array(table.names, dtype=object).reshape(-1, each)[series]
    ahead = rows[:, None] + np.arange(horizon)
    place = table.first[series][:, None] + ahead
    shape = (len(rows), each, horizon)
    columns: dict[str, object] = {
        "unique_id": np.repeat(names.ravel(), horizon),
        "ds": table.grid[np.broadcast_to(place[:, None], shape).ravel()],
        "cutoff": table.grid[np.repeat(table.first[series] + rows - 1, each * horizon)],
        "y": table.values[table.starts[series][:, None] + ahead].transpose(0, 2, 1).ravel(),
    }
    middle, pairs = list(levels).index(0.5), intervals(levels)
    for name, forecast in quantiles.items():
        columns[name] = points.get(name, forecast[..., middle]).ravel()
        for share, (low, high) in pairs.items():
            columns[f"{name}-lo-{share}"] = forecast[..., low].ravel()
            columns[f"{name}-hi-{share}"] = forecast[..., high].ravel()
    columns |= {name: point.ravel() for name, point in points.items() if name not in quantiles}
    frame = pd.DataFrame(columns)
    return frame[frame["y"].notna()].reset_index(drop=True)


def models(frame: pd.DataFrame) -> list[str]:
    """The systems of a frame, in order."""
    return [name for name in frame.columns if name not in KEYS and "-lo-" not in name and "-hi-" not in name]
