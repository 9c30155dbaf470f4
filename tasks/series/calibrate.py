"""Every system of a backtest with quantiles: the model's own, and calibrated ones for all.

Shapes: n origins, C channels, H horizon, Q quantiles, T origins in time, E series, N = E * C sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .conformal import Residuals, online, split
from .rivals import Past
from .rolling import Plan
from .table import Table

OWN = "triptych"
#: The run's quantiles calibrated once on held-out windows, and again at every origin from past ones.
SPLIT, ONLINE = "triptych_split", "triptych_online"
#: Most numbers in the grid of origins by sequences: series that share few stamps would fill it with gaps.
LARGEST = 100_000_000


@dataclass(frozen=True)
class Grid:
    """Origins of all series on one grid of time, so that what is known at an origin is known of all.

    Attributes:
        time: `(n,)` place of each origin among the T stamps at which any series has one.
        series: `(n,)`.
        shape: T, E.
    """

    time: np.ndarray
    series: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, table: Table, plan: Plan) -> Grid:
        """The grid of a plan's origins; its stamps are `plan.stride` rows apart, those without origin too."""
        stamps = table.first[plan.origins.series] + plan.origins.rows
        time = (stamps - stamps.min()) // plan.stride
        return cls(time, plan.origins.series, (int(time.max()) + 1, len(table.ids)))

    def lay(self, values: np.ndarray, empty: float = np.nan) -> np.ndarray:
        """`(n, C, ...)` by origin -> `(T, N, ...)`, `empty` where a series has no origin."""
        laid = np.full((*self.shape, *values.shape[1:]), empty, dtype=values.dtype)
        laid[self.time, self.series] = values
        return laid.reshape(self.shape[0], -1, *values.shape[2:])

    def pick(self, laid: np.ndarray, which: np.ndarray) -> np.ndarray:
        """`(T, N, ...)` -> the origins `which` `(n,)` bool, `(k, C, ...)`."""
        whole = laid.reshape(*self.shape, -1, *laid.shape[2:])
        return whole[self.time[which], self.series[which]]


def truths(table: Table, plan: Plan) -> np.ndarray:
    """What came, `(n, C, H)`; NaN where a value is missing or is yet to come."""
    series = plan.origins.series
    rows = plan.origins.rows[:, None] + np.arange(plan.horizon)
    came = rows < table.lengths[series][:, None]
    last = table.lengths[series][:, None] - 1
    values = table.values[table.starts[series][:, None] + np.minimum(rows, last)]
    return np.where(came[..., None], values, np.nan).transpose(0, 2, 1)


def calibrated(
    past: Past, own: np.ndarray, points: dict[str, np.ndarray], levels: Sequence[float]
) -> dict[str, np.ndarray]:
    """Quantiles `(k, C, H, Q)` of every system at the k reported windows, by its name.

    Args:
        past: the table and the plan.
        own: the model's quantiles `(n, C, H, Q)`; the only ones where nothing can be calibrated.
        points: of the baselines, `(n, C, H)`; their intervals are split-conformal.
        levels: of the quantiles.
    """
    plan, table = past.plan, past.table
    grid, reported = Grid.of(table, plan), plan.reported
    systems = {OWN: own[reported]}
    if grid.shape[0] * grid.shape[1] * own[0].size > LARGEST or not plan.calibrates.any():
        return systems
    truth = grid.lay(truths(table, plan))
    each = np.repeat(plan.calibrates[:, None], own.shape[1], axis=1)
    calibrates = grid.lay(each, empty=False)
    floor = 1e-9 * past.scale[plan.origins.series][..., None]
    width = grid.lay(np.maximum(own[..., -1] - own[..., 0], floor))
    residuals = Residuals(grid.lay(own), truth, width, np.array(levels), plan.stride)
    systems[SPLIT] = grid.pick(split(residuals, calibrates), reported)
    systems[ONLINE] = grid.pick(online(residuals, calibrates), reported)
    unit = grid.lay(np.broadcast_to(past.scale[plan.origins.series][..., None], own.shape[:3]))
    for name, point in points.items():
        quantiles = np.broadcast_to(grid.lay(point)[..., None], (*truth.shape, len(levels)))
        fixed = Residuals(quantiles, truth, unit, np.array(levels), plan.stride)
        systems[name] = grid.pick(split(fixed, calibrates), reported)
    floor = table.floor(plan.origins.series, plan.origins.rows)[reported][..., None, None]
    return {name: np.maximum(quantiles, floor) for name, quantiles in systems.items()}
