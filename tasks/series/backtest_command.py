"""What `triptych backtest` prints, writes and draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..run import load, write_json
from ..table import frame_file, write_frame
from .backtest import Backtest, backtest
from .calibrate import OWN
from .forecast import as_table, own_table
from .frames import intervals
from .plot import Chart, check_picture, draw, draw_steps
from .scores import ALL, outer
from .skill import Skill

if TYPE_CHECKING:
    from rich.table import Table as Summary

#: Charts in the picture, and rows of history beside each row of forecast.
DRAWN, HISTORY = 4, 4


def backtest_command(
    run: str,
    path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    horizon: int | None = None,
    windows: int = 6,
    step: int | None = None,
    refit: bool = False,
    output: str | None = None,
    plot: str | None = None,
    json: str | None = None,
) -> None:
    """Backtest a run on a table; print the figures, and write what is asked for.

    Args:
        run: run directory.
        path: long or wide table, CSV or Parquet; the run's own unless given.
        overrides: names of its columns and its frequency, as for `forecast`.
        horizon, windows, step, refit: as for `backtest`.
        output: `.csv` or `.parquet` for the frames in Nixtla's shape.
        plot: PNG of the last window, and beside it (`NAME-steps.png`) of the figures at each step.
        json: file for every figure, pooled and at each step.

    Raises:
        UserError: as `backtest`, or `output` is neither CSV nor Parquet.
    """
    from rich.console import Console

    target = None if output is None else frame_file(output)
    check_picture(plot)
    loaded = load(run)
    path = path or own_table(loaded)
    found = backtest(loaded, as_table(loaded, path, overrides), horizon, windows, step, refit)
    console = Console()
    console.print(summary(found))
    console.print(judgement(found))
    for line in sentences(found):
        console.print(line, markup=False)
    if target is not None:
        write_frame(found.frames, target)
    if plot is not None:
        _draw(found, Path(plot))
    if json is not None:
        write_json(Path(json), {"run": run, "path": path, "refit": refit} | figures(found))


def summary(found: Backtest) -> Summary:
    """One row a system: its figures over the whole horizon."""
    from rich.table import Column
    from rich.table import Table as Summary

    pooled = found.scores[found.scores["step"] == ALL].pivot(index="system", columns="metric", values="value")
    metrics = [metric for metric in found.scores["metric"].unique() if metric in pooled]
    made = int(found.plan.reported.sum()) * len(found.table.channels)
    title = f"Backtest: {made} windows of {found.plan.horizon} rows, {len(found.table.names)} series"
    # on a narrow terminal the headings fold, and the names stay whole
    table = Summary(Column("system", no_wrap=True), title=title, title_justify="left", padding=(0, 0))
    for metric in metrics:
        table.add_column(metric, justify="right")
    for skill in found.skill:
        values = pooled.loc[skill.system, metrics].to_numpy(float)
        shown = ["" if np.isnan(value) else f"{value:.3f}" for value in values]
        table.add_row(skill.system, *shown, style=_style(skill))
    return table


def judgement(found: Backtest) -> Summary:
    """One row a system: its skill against naive, and what that says."""
    from rich.table import Table as Summary

    table = Summary("system", title="Skill against naive", title_justify="left")
    for heading in ("skill", "95 % interval"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for skill in found.skill:
        if skill.system != "Naive":
            interval = "" if skill.low is None else f"{skill.low:.3f} to {skill.high:.3f}"
            value = "" if np.isnan(skill.value) else f"{skill.value:.3f}"
            table.add_row(skill.system, value, interval, skill.verdict, style=_style(skill))
    return table


def _style(skill: Skill) -> str:
    return "bold" if skill.system.startswith(OWN) else ""


def sentences(found: Backtest) -> list[str]:
    """What the table means, the verdict, and what was left out."""
    scale = f"the mean seasonal difference ({found.table.step.season} rows) before the first cut"
    return [
        f"MASE, RMSSE, width and Winkler score are in units of {scale}; means over series.",
        f"The run is {found.verdict}.",
        *found.notes,
    ]


def figures(found: Backtest) -> dict[str, Any]:
    """Every figure as plain values: `pooled` and `by_step` by metric and system, `skill`, the verdict."""
    by_step: dict[str, dict[str, list[float | None]]] = {}
    pooled: dict[str, dict[str, float | None]] = {}
    for (metric, system), part in found.scores.groupby(["metric", "system"], sort=False):
        values = [None if np.isnan(value) else round(float(value), 6) for value in part["value"]]
        steps = dict(zip(part["step"], values, strict=True))
        pooled.setdefault(str(metric), {})[str(system)] = steps.pop(ALL)
        by_step.setdefault(str(metric), {})[str(system)] = [steps[step] for step in sorted(steps)]
    return {
        "horizon": found.plan.horizon,
        "series": len(found.table.names),
        "windows": int(found.plan.reported.sum()) * len(found.table.channels),
        "step": found.table.step.name,
        "verdict": found.verdict,
        "skill": {
            s.system: {"value": None if np.isnan(s.value) else s.value, "low": s.low, "high": s.high}
            for s in found.skill
        },
        "pooled": pooled,
        "by_step": by_step,
        "notes": found.notes,
    }


def _draw(found: Backtest, path: Path) -> None:
    """The last window of some series, and the figures of every system at each step."""
    latest = found.frames.groupby("unique_id")["cutoff"].transform("max")  # series may end apart
    last = found.frames[found.frames["cutoff"] == latest]
    names = last["unique_id"].unique()
    chosen = names[np.unique(np.linspace(0, len(names) - 1, min(DRAWN, len(names))).round().astype(int))]
    charts = [_chart(found, str(name), last[last["unique_id"] == name]) for name in chosen]
    draw(charts, path, f"The last of the windows, cut at {last['cutoff'].max():%Y-%m-%d %H:%M}")
    share = outer(found.levels)
    chosen_metrics = ["MASE"] + ([] if share is None else [f"coverage {share} %", f"width {share} %"])
    drawn = found.scores["metric"].isin(chosen_metrics)
    steps = found.scores[drawn & (found.scores["step"] != ALL)]
    draw_steps(steps, path.with_name(f"{path.stem}-steps.png"), share)


def _chart(found: Backtest, name: str, rows: pd.DataFrame) -> Chart:
    """One series at one cut, with the run's quantiles as the frame holds them."""
    table = found.table
    series, channel = divmod(table.names.index(name), len(table.channels))
    stop = int(table.grid.searchsorted(rows["cutoff"].iloc[0])) + 1 - int(table.first[series])
    shown = min(stop, HISTORY * found.plan.horizon)
    values = table.values[table.starts[series] + stop - shown : table.starts[series] + stop, channel]
    stamps = table.grid[table.first[series] + stop - shown : table.first[series] + stop]
    shares = list(intervals(found.levels))
    columns = [f"{OWN}-lo-{share}" for share in reversed(shares)] + [OWN] + [f"{OWN}-hi-{s}" for s in shares]
    levels = [0.5 - s / 200 for s in reversed(shares)] + [0.5] + [0.5 + s / 200 for s in shares]
    ds, truth = pd.DatetimeIndex(rows["ds"]), rows["y"].to_numpy()
    past = pd.Series(values, index=stamps)
    rival = next((n for n in rows.columns if n.startswith("SeasonalNaive") and n[13:].isdigit()), "Naive")
    return Chart(name, "", past, rows[columns].to_numpy(), levels, ds, truth, rows[rival].to_numpy(), rival)
