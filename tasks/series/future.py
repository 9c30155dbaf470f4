"""Forecasts beyond the last row of a table, in its own units, to any horizon.

Shapes: E series, C channels, N = E * C sequences, H horizon, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError
from ..model import Model
from .calibrate import ONLINE, SPLIT, calibrated
from .context import Contexts
from .data import fill_forward
from .rivals import Past
from .roll import forecast_at, forecaster
from .rolling import beyond, plan
from .table import Table

#: Whose intervals: the model's own, or those calibrated once on held-out windows or again at every origin.
Intervals = Literal["model", "split", "online"]


@dataclass(frozen=True)
class Future:
    """Forecasts beyond the last row of every series and channel, in the order of `table.names`.

    Attributes:
        table: what was forecast, without the series that were left out.
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


def predict_future(
    model: Model, table: Table, horizon: int | None, fill: bool, intervals: Intervals = "model"
) -> Future:
    """Forecasts of every series and channel of a table; series that the model cannot read are left out.

    Args:
        model: with one objective that forecasts.
        table: whose rows are all context.
        horizon: rows to forecast, or None for the model's own.
        fill: whether gaps are filled forward and read as observed, as in training.
        intervals: the model's own, or calibrated on the table's rows that the model was not trained on.

    Raises:
        UserError: the horizon is not positive or longer than the table, or every series is too short.
    """
    head = forecaster(model)
    steps = head.horizon if horizon is None else horizon
    if steps < 1:
        raise UserError(f"expected a horizon of at least 1 row, but got {steps}")
    contexts = Contexts(model, table, fill, steps)
    kept = contexts.readable(np.arange(len(table.ids)), table.lengths)
    if not kept.all():
        table = table.only(kept)
        contexts = Contexts(model, table, fill, steps)
    if steps > table.lengths.max():
        raise UserError(
            f"expected a horizon of at most the table's {table.lengths.max()} rows, but got {steps}"
        )
    if contexts.beside is not None:
        contexts.beside.check(table, steps)
    if intervals == "model":
        quantiles = forecast_at(model, contexts, np.arange(len(table.ids)), table.lengths, steps)
    else:
        quantiles = _calibrated(model, contexts, steps, head.quantiles)[intervals]
    return Future(table, quantiles.reshape(-1, *quantiles.shape[2:]), head.quantiles, head.horizon)


def _calibrated(
    model: Model, contexts: Contexts, steps: int, levels: Sequence[float]
) -> dict[str, np.ndarray]:
    """Quantiles `(E, C, H, Q)` beyond the last row, calibrated both ways by how earlier forecasts went.

    Raises:
        UserError: the rows that the model was not trained on are too few, or too many to lay side by side.
    """
    assert model.spec is not None
    table, facts = contexts.table, model.spec.data["series"]
    try:
        where = beyond(table, plan(table, facts, steps, 1, None, max(2, contexts.patch)))
    except UserError as error:
        raise UserError(
            f"there is no past to calibrate intervals on (`model` needs none): {error}"
        ) from error
    own = forecast_at(model, contexts, where.origins.series, where.origins.rows, steps)
    systems = calibrated(Past(table, where), own, {}, levels)
    if SPLIT not in systems:
        raise UserError(
            f"expected series that share stamps to calibrate on, but there are {len(table.ids)} over "
            f"{len(table.grid)} stamps: `model` intervals need none"
        )
    return {"split": systems[SPLIT], "online": systems[ONLINE]}
