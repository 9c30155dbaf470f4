"""What utilsforecast says of a frame of forecasts, over all windows and at each step of the horizon.

Every figure is the mean over series of that series' own figure over its windows, so that it depends
neither on batches nor on how many windows a series has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .frames import intervals, models
from .rolling import Plan
from .table import Table

#: Step under which figures over the whole horizon are kept.
ALL = 0


@dataclass(frozen=True)
class Scales:
    """What an error of 1 is in units of the error of seasonal naive on the rows before the first cut.

    Attributes:
        absolute: by series name, 1 / mean absolute seasonal difference (of MASE, Hyndman and Koehler 2006).
        squared: by series name, 1 / root mean squared seasonal difference (of RMSSE).
        season: rows of the difference.
    """

    absolute: pd.Series[float]
    squared: pd.Series[float]
    season: int


def scales(table: Table, plan: Plan) -> Scales:
    """Scales of every series by utilsforecast; NaN for a series that never moved before its first cut."""
    from utilsforecast.losses import mase, rmsse

    each = len(table.channels)
    within = np.arange(len(table.values)) - np.repeat(table.starts, table.lengths)
    past = within < np.repeat(plan.first, table.lengths)
    names = np.array(table.names, dtype=object).reshape(-1, each)
    owner = np.repeat(np.arange(len(table.ids)), table.lengths)[past]
    train = pd.DataFrame(
        {
            "unique_id": names[owner].ravel(),
            "ds": np.repeat(within[past], each),
            "y": table.values[past].ravel(),
        }
    )
    one = pd.DataFrame({"unique_id": table.names, "ds": 0, "y": 1.0, "zero": 0.0})
    found = []
    for metric in (mase, rmsse):
        by_season = []
        for season in (table.step.season, 1):  # a series too short for its season is scaled by its steps
            scaled = metric(one, ["zero"], season, train).set_index("unique_id")["zero"]
            by_season.append(scaled.replace([np.inf, -np.inf], np.nan))
        found.append(by_season[0].fillna(by_season[1]))
    return Scales(found[0], found[1], table.step.season)


def score(frame: pd.DataFrame, step: np.ndarray, scale: Scales, levels: Sequence[float]) -> pd.DataFrame:
    """`metric, step, system, value`, step 0 for the whole horizon.

    Args:
        frame: as `frames` makes it.
        step: of each of its rows, from 1.
        scale: of its series.
        levels: of its quantiles.
    """
    codes, names = pd.factorize(frame["unique_id"])
    whole = frame.drop(columns=["unique_id", "cutoff", "ds"])
    horizon = int(step.max())
    parts = []
    for key, count in ((codes, 1), (codes * horizon + step - 1, horizon)):
        found = _evaluate(whole.assign(unique_id=key), levels)
        found["step"] = ALL if count == 1 else found["unique_id"] % horizon + 1
        found["series"] = names[found["unique_id"] // count]
        parts.append(found)
    table = pd.concat(parts)
    for metric, factor in (("MASE", scale.absolute), ("RMSSE", scale.squared)):
        here = table["metric"] == metric
        table.loc[here, "value"] *= factor.reindex(table.loc[here, "series"]).to_numpy()
    here = table["metric"].str.startswith(("width", "Winkler"))
    table.loc[here, "value"] *= scale.absolute.reindex(table.loc[here, "series"]).to_numpy()
    return table.groupby(["metric", "step", "system"], sort=False)["value"].mean().reset_index()


def _evaluate(frame: pd.DataFrame, levels: Sequence[float]) -> pd.DataFrame:
    """`unique_id, metric, system, value` for every metric that the levels allow, not yet scaled."""
    from utilsforecast import losses

    names, share = models(frame), outer(levels)
    found = {
        "MASE": losses.mae(frame, names),
        "RMSSE": losses.rmse(frame, names),
        "sMAPE": losses.smape(frame, names),
    }
    if share is not None:
        bounded = [name for name in names if f"{name}-lo-{share}" in frame]
        found |= {
            "WQL": _weighted(frame, bounded, list(intervals(levels))),
            f"coverage {share} %": losses.coverage(frame, bounded, share),
            f"width {share} %": _width(frame, bounded, share),
            f"Winkler {share} %": losses.winkler_score(frame, bounded, share),
        }
    tall = [found[metric].melt("unique_id", var_name="system").assign(metric=metric) for metric in found]
    return pd.concat(tall, ignore_index=True)


def outer(levels: Sequence[float]) -> int | None:
    """The interval that is reported, in %: that of 80 % if there is one, else the widest, if any."""
    pairs = intervals(levels)
    return 80 if 80 in pairs else max(pairs, default=None)


def _weighted(frame: pd.DataFrame, names: Sequence[str], shares: Sequence[int]) -> pd.DataFrame:
    """Mean over the quantiles of `2 sum pinball / sum |y|` of each series (utilsforecast's scaled CRPS).

    NaN, which counts for no mean, for a series that is 0 throughout.
    """
    from utilsforecast.losses import scaled_crps

    columns = {
        name: [f"{name}-lo-{share}" for share in shares] + [name] + [f"{name}-hi-{share}" for share in shares]
        for name in names
    }
    quantiles = [0.5 - share / 200 for share in shares] + [0.5] + [0.5 + share / 200 for share in shares]
    found = scaled_crps(frame, columns, np.array(quantiles))
    size = frame["y"].abs().groupby(frame["unique_id"]).sum()
    found.loc[~(size.reindex(found["unique_id"]).to_numpy() > 0), list(columns)] = np.nan
    return found


def _width(frame: pd.DataFrame, names: Sequence[str], share: int) -> pd.DataFrame:
    """Mean width of an interval: the mean absolute error of one of its bounds as a forecast of the other."""
    from utilsforecast.losses import mae

    parts = [
        mae(frame, [f"{name}-hi-{share}"], target_col=f"{name}-lo-{share}").rename(
            columns={f"{name}-hi-{share}": name}
        )
        for name in names
    ]
    table = parts[0]
    for part in parts[1:]:
        table = table.merge(part, on="unique_id")
    return table
