"""A model trained anew before each cut of a backtest, on nothing but the rows before it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ..config import merge
from ..run import Run, load
from .context import Contexts
from .roll import forecast_at
from .rolling import FITTED, Plan
from .table import Table


def refitted(run: Run, table: Table, where: Plan) -> np.ndarray:
    """Quantiles `(n, C, H, Q)` at every origin, each by the model of the latest cut at or before it.

    Origins before the first cut, which calibrate, are forecast by the model of the first cut: it
    trains on the first seven eighths of the rows before that cut.

    Args:
        run: whose config is trained again.
        table, where: what is forecast, and its cuts.
    """
    origins = where.origins
    windows = int(origins.window.max()) + 1
    steps = (where.horizon,)
    cuts = _cuts(where, windows)
    owner = np.maximum((origins.rows[:, None] >= cuts[:, origins.series].T).sum(1) - 1, 0)
    found = None
    for window in range(windows):
        here = owner == window
        if not here.any():
            continue
        with tempfile.TemporaryDirectory() as folder:
            trained = _fit(run, table, cuts[window], Path(folder))
        fill = run.config["data"].get("init_args", {}).get("gaps") == "forward"
        contexts = Contexts(trained.model, table, fill)
        quantiles = forecast_at(trained.model, contexts, origins.series[here], origins.rows[here], *steps)
        found = np.zeros((len(here), *quantiles.shape[1:])) if found is None else found
        found[here] = quantiles
    assert found is not None
    return found


def _cuts(where: Plan, windows: int) -> np.ndarray:
    """`(windows, E)` row at which each series is cut; a series without a window keeps its last cut."""
    cuts = np.tile(where.first, (windows, 1))
    reported = where.reported
    cuts[where.origins.window[reported], where.origins.series[reported]] = where.origins.rows[reported]
    return np.maximum.accumulate(cuts, axis=0)


def _fit(run: Run, table: Table, cut: np.ndarray, folder: Path) -> Run:
    from ..fit import fit

    path = folder / "past.parquet"
    table.until(cut).to_parquet(path)
    overrides = {
        "data.path": str(path),
        "data.time": table.columns.time,
        "data.series": table.columns.series,
        "data.value": table.columns.value,
        "data.freq": table.step.name,
        "data.split": [FITTED, 1 - FITTED, 0],
        "trainer.enable_progress_bar": False,
    }
    return load(fit(merge([run.directory / "config.yaml"], overrides), output=str(folder / "run")))
