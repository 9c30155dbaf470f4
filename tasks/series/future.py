"""Forecasts beyond the last row of a table, in its own units, to any horizon.

Shapes: E series, C channels, N = E * C sequences, H horizon, Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError
from ..model import Model
from .context import Contexts
from .data import fill_forward
from .roll import forecast_at, forecaster
from .table import Table


@dataclass(frozen=True)
class Future:
    """Forecasts beyond the last row of every series and channel, in the order of `table.names`.

    Attributes:
        table: what was forecast.
        quantiles: `(N, H, Q)` in the table's units.
        levels: the Q levels.
        block: rows that the model forecasts at a time.
    """

    table: Table
    quantiles: np.ndarray
    levels: tuple[float, ...]
    block: int

    @property
    def median(self) -> np.ndarray:
        """`(N, H)`, the point forecast."""
        return self.quantiles[..., self.levels.index(0.5)]

    @property
    def steps(self) -> int:
        """H."""
        return int(self.quantiles.shape[1])

    @property
    def blocks(self) -> int:
        """How often the model was applied; above 1 it read its own forecasts."""
        return -(-self.steps // self.block)

    @property
    def last_values(self) -> np.ndarray:
        """`(N,)` the last known value of every series and channel."""
        filled, _ = fill_forward(self.table.values, self.table.starts, self.table.lengths)
        return filled[self.table.starts + self.table.lengths - 1].ravel()

    def frame(self) -> pd.DataFrame:
        """One row a series and stamp: the series' name, the stamp, `median`, and one column a quantile."""
        table = self.table
        stamps = [stamps for stamps in table.future(self.steps) for _ in table.channels]
        named = {f"q{level:g}": self.quantiles[..., i].ravel() for i, level in enumerate(self.levels)}
        return pd.DataFrame(
            {
                table.columns.series: np.repeat(np.array(table.names, dtype=object), self.steps),
                table.columns.time: stamps[0].append(stamps[1:]),
                "median": self.median.ravel(),
                **named,
            }
        )


def predict_future(model: Model, table: Table, horizon: int | None, fill: bool) -> Future:
    """Forecasts of every series and channel of a table.

    Args:
        model: with one objective that forecasts.
        table: whose rows are all context.
        horizon: rows to forecast, or None for the model's own.
        fill: whether gaps are filled forward and read as observed, as in training.

    Raises:
        UserError: the horizon is not positive or longer than the table, or a series is too short.
    """
    head = forecaster(model)
    steps = head.horizon if horizon is None else horizon
    if steps < 1:
        raise UserError(f"expected a horizon of at least 1 row, but got {steps}")
    contexts = Contexts(model, table, fill, steps)
    series = np.arange(len(table.ids))
    contexts.check(series, table.lengths)
    if steps > table.lengths.max():
        raise UserError(
            f"expected a horizon of at most the table's {table.lengths.max()} rows, but got {steps}"
        )
    if contexts.beside is not None:
        contexts.beside.check(table, steps)
    quantiles = forecast_at(model, contexts, series, table.lengths, steps)
    return Future(table, quantiles.reshape(-1, *quantiles.shape[2:]), head.quantiles, head.horizon)
