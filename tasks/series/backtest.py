"""`triptych backtest`: forecasts of a table's past, each as if made at the time, beside their baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError
from ..run import Run, load
from .calibrate import OWN, calibrated
from .context import Contexts
from .forecast import as_table, settings
from .frames import frames
from .peers import missing_peers, peer_forecasts
from .refit import refitted
from .rivals import Past, rivals
from .roll import forecast_at, forecaster
from .rolling import Plan, plan
from .scores import ALL, scales, score
from .skill import Skill, skills
from .table import Table


@dataclass(frozen=True)
class Backtest:
    """What a backtest found.

    Attributes:
        table: what was forecast.
        plan: where it was cut.
        frames: forecasts in Nixtla's shape, one row a series, window and step.
        scores: `metric, step, system, value`; step 0 is the whole horizon.
        skill: of every system against naive.
        levels: of the quantiles.
        notes: sentences on what was left out, and why.
    """

    table: Table
    plan: Plan
    frames: pd.DataFrame
    scores: pd.DataFrame
    skill: list[Skill]
    levels: tuple[float, ...]
    notes: list[str]

    @property
    def verdict(self) -> str:
        """`better than naive`, `no better than naive`, or that there are too few windows to tell."""
        return next(skill.verdict for skill in self.skill if skill.system == OWN)

    def value(self, metric: str, system: str = OWN, step: int = ALL) -> float:
        """One figure. Raises KeyError if there is none of that name."""
        found = self.scores.set_index(["metric", "system", "step"])["value"]
        return float(found[metric, system, step])


def backtest(
    run: Run | str | Path,
    table: Table | pd.DataFrame | str | Path,
    horizon: int | None = None,
    windows: int = 6,
    step: int | None = None,
    refit: bool = False,
) -> Backtest:
    """Cut every series at its last `windows` origins and forecast each cut from the rows before it.

    Args:
        run: a finished run, or its directory.
        table: long or wide, a data frame or a file, as for `forecast`; or one that has been read.
        horizon: rows of each window; the model's own unless given.
        windows: of each series; a shorter series gives as many as it can.
        step: rows between cuts; `horizon` unless given, and windows then do not overlap.
        refit: train anew before each cut, on the rows before it.

    Raises:
        UserError: the table cannot be read, no series is long enough, or a window reaches into rows
            that the run was trained or validated on and `refit` is off.
    """
    loaded = run if isinstance(run, Run) else load(run)
    read = table if isinstance(table, Table) else as_table(loaded, table)
    head = forecaster(loaded.model)
    rows = head.horizon if horizon is None else horizon
    for name, number in (("horizon", rows), ("windows", windows), ("step", rows if step is None else step)):
        if number < 1:
            raise UserError(f"expected {name} to be at least 1, but got {number}")
    facts: dict[str, Any] = {} if refit else loaded.description["spec"]["data"]["series"]
    least = max(2, int(getattr(loaded.model.tokenizers["series"], "patch", 1)))
    where = plan(read, facts, rows, windows, step, least)
    contexts = Contexts(loaded.model, read, settings(loaded).get("gaps") == "forward")
    kept = contexts.readable(where.origins.series, where.origins.rows)
    if not kept.all():
        read = read.only(kept)
        where = plan(read, facts, rows, windows, step, least)
    own = refitted(loaded, read, where) if refit else _forecasts(loaded, read, where)
    past = Past(read, where)
    context = int(loaded.description["spec"]["data"]["series"]["context"])
    points = rivals(past, rows, context) | peer_forecasts(past, where)
    systems = calibrated(past, own, points, head.quantiles)
    exact = {name: point[where.reported] for name, point in points.items()}
    found = frames(read, where, systems, exact, head.quantiles)
    notes = _notes(where, systems, int((~kept).sum())) + missing_peers(past, where)
    return _judged(read, where, found, head.quantiles, notes)


def _forecasts(run: Run, table: Table, where: Plan) -> np.ndarray:
    """The run's quantiles `(n, C, H, Q)` at every origin."""
    contexts = Contexts(run.model, table, settings(run).get("gaps") == "forward")
    return forecast_at(run.model, contexts, where.origins.series, where.origins.rows, where.horizon)


def _judged(
    table: Table, where: Plan, found: pd.DataFrame, levels: tuple[float, ...], notes: list[str]
) -> Backtest:
    if found.empty:
        raise UserError("expected values in the rows to forecast, but all of them are missing")
    cut = table.grid.get_indexer(pd.DatetimeIndex(found["cutoff"]))
    step = table.grid.get_indexer(pd.DatetimeIndex(found["ds"])) - cut
    scale = scales(table, where)
    still = int(scale.absolute.isna().sum())
    if still:
        notes = [*notes, f"{still} series never moved before the first cut; scaled figures leave them out."]
    figures = score(found, step, scale, levels)
    return Backtest(table, where, found, figures, skills(found, scale, cut // where.horizon), levels, notes)


def _notes(where: Plan, systems: dict[str, np.ndarray], unknown: int) -> list[str]:
    notes = []
    if unknown:
        notes.append(f"Left out: {unknown} series without a value in the rows before a window.")
    if where.left_out:
        notes.append(f"Left out: {where.left_out} series too short for a window.")
    if len(systems) == 1:
        why = "share too few stamps" if where.calibrates.any() else "have too few rows before the first cut"
        notes.append(
            f"The series {why} to be calibrated on: there are no other intervals than the run's own."
        )
    return notes
