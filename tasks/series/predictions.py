"""Predictions of a data module's windows as a table in the units of the user's own.

Shapes: n samples, C channels a sample, H horizon, Q quantiles, k sequences (n * C).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from ...objectives.forecasting import Forecasting
from ..model import Model
from .windows import Windows

if TYPE_CHECKING:
    from .data import Tables


def prediction_table(data: Tables, windows: Windows, prediction: Tensor, model: Model) -> pd.DataFrame | None:
    """One row a sequence, window and step: `unique_id, ds, cutoff`, `median` and a column a quantile.

    Args:
        data: the data module, set up.
        windows: that were forecast.
        prediction: `(n, C, H, Q)` scaled, in the order of the windows.
        model: that forecast them; None is returned if it has no forecasting objective.
    """
    heads = [member for _, member in model.objective if isinstance(member, Forecasting)]
    if len(heads) != 1 or prediction.ndim != 4:
        return None
    table, each = data.table, len(data.table.channels)
    samples, channels, horizon, _ = prediction.shape
    rows = windows.origins.numpy()[np.arange(samples) // windows.each]
    series = windows.series.numpy()[np.arange(samples) // windows.each]
    first = np.arange(channels) if windows.together else (np.arange(samples) % each)[:, None]
    name = series[:, None] * each + first  # (n, C)
    mean, scale = (column.ravel()[name] for column in (data.mean, data.scale))
    values = prediction.double().numpy() * scale[..., None, None] + mean[..., None, None]
    place = table.first[series] + rows - table.starts[series]
    ahead = np.broadcast_to((place[:, None] + np.arange(horizon))[:, None], (samples, channels, horizon))
    columns: dict[str, object] = {
        "unique_id": np.array(table.names, dtype=object)[np.repeat(name.ravel(), horizon)],
        "ds": table.grid[ahead.ravel()],
        "cutoff": table.grid[np.repeat(place - 1, channels * horizon)],
        "median": values[..., heads[0].middle].ravel(),
    }
    columns |= {f"q{level:g}": values[..., i].ravel() for i, level in enumerate(heads[0].quantiles)}
    return pd.DataFrame(columns)
