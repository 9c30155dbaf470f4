"""`triptych forecast`: a table in, a table of quantiles beyond its last row out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...tokenizers.errors import UserError
from ..run import Run, load, write_json
from ..table import frame_file, write_frame
from .beside import Given
from .future import Future, Intervals, predict_future
from .plot import check_picture, draw_future
from .table import Columns, Table, read_table, to_table

if TYPE_CHECKING:
    from rich.table import Table as Summary

#: Series listed on the terminal.
LISTED = 15
#: What a finished run may be told of another table; the rest of its data's settings belong to the model.
NAMED = ("time", "series", "value", "freq")


def forecast(
    run: Run | str | Path,
    table: pd.DataFrame | str | Path,
    horizon: int | None = None,
    intervals: Intervals = "model",
) -> pd.DataFrame:
    """Forecast a table beyond its last row, with a model trained on it or on others.

    Args:
        run: a finished run, or its directory.
        table: long (`unique_id, ds, y`) or wide (`ds`, one column a series): a data frame or a
            file. Its columns are named as in the run's config.
        horizon: rows to forecast; the model's own unless given. Beyond it the model is applied
            again to its own forecasts.
        intervals: `model`, or calibrated on the table's past, as in a backtest: `split` or `online`.

    Returns:
        One row a series and stamp: `unique_id`, `ds`, `median`, and a column a quantile (`q0.1`, ...). Series
        that the model cannot read are left out and named in the log.

    Raises:
        UserError: the horizon is not positive, the table cannot be read, or every series is too short.
    """
    loaded = run if isinstance(run, Run) else load(run)
    return _predict(loaded, as_table(loaded, table), horizon, intervals).frame()


def forecast_command(
    run: str,
    path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    horizon: int | None = None,
    intervals: Intervals = "model",
    output: str = "forecast.csv",
    plot: str | None = None,
    json: str | None = None,
) -> None:
    """Forecast a table; write the forecast, draw it, and sum it up on the terminal.

    Args:
        run: run directory.
        path: long or wide table, CSV or Parquet; the run's own unless given. The forecast is in its units.
        overrides: names of its columns and its frequency, as `{"data.time": "date"}`, where not the run's.
        horizon: rows to forecast; the model's own unless given.
        intervals: as for `forecast`.
        output: `.csv` (also `.csv.gz`) or `.parquet` to write.
        plot: PNG to draw the first series into.
        json: file for the summary as JSON.

    Raises:
        UserError: as `forecast`, or the output is neither CSV nor Parquet.
    """
    from rich.console import Console

    target = frame_file(output)
    check_picture(plot)
    loaded = load(run)
    path = path or own_table(loaded)
    table = as_table(loaded, path, overrides)
    began = time.monotonic()
    future = _predict(loaded, table, horizon, intervals)
    seconds = time.monotonic() - began
    write_frame(future.frame(), target)
    console = Console()
    console.print(_summary(future))
    table = future.table
    console.print(f"{len(table.names)} series, {future.steps} rows of {table.step.name} ahead, in {target}")
    if future.blocks > 1:
        narrow = f"; the intervals beyond row {future.block} are too narrow" if intervals == "model" else ""
        console.print(
            f"The model forecasts {future.block} rows at a time: for {future.steps} it was applied "
            f"{future.blocks} times, each time to its own forecasts{narrow}."
        )
    trained = loaded.description["spec"]["data"]["series"]["step"]
    if trained != table.step.name:
        console.print(f"The model was trained on rows {trained} apart, these are {table.step.name} apart.")
    if plot is not None:
        console.print(f"{draw_future(future, Path(plot))} series drawn in {plot}")
    if json is not None:
        figures = {"series": len(table.names), "horizon": future.steps, "step": table.step.name}
        paths = {"run": run, "path": path, "output": output, "intervals": intervals}
        write_json(Path(json), paths | figures | {"blocks": future.blocks, "seconds": round(seconds, 2)})


def _predict(run: Run, table: Table, horizon: int | None, intervals: Intervals) -> Future:
    fill = settings(run).get("gaps") == "forward"
    return predict_future(run.model, table, horizon, fill, intervals)


def as_table(run: Run, table: pd.DataFrame | str | Path, overrides: Mapping[str, Any] | None = None) -> Table:
    """A data frame or a file, read as the run's own data was.

    Args:
        run: a finished run.
        table: what is read.
        overrides: `data.time` and the like, where they are not as in the run's config.

    Raises:
        UserError: as `read_table`, or an override is of something else.
    """
    given = settings(run)
    for key, value in (overrides or {}).items():
        name = key.removeprefix("data.")
        if name not in NAMED:
            keys = ", ".join(f"--data.{known}" for known in NAMED)
            raise UserError(f"expected of another table --data.path, {keys} alone, but got --{key}")
        given[name] = value
    names = {name: given[name] for name in ("time", "series", "value") if name in given}
    levels = run.description["spec"]["data"]["series"].get("levels", {})
    columns = Columns(**names, roles=Given(**(given.get("covariates") or {})).roles(), levels=levels)
    if isinstance(table, pd.DataFrame):
        return to_table(table, columns, given.get("freq"))
    return read_table(str(table), columns, given.get("freq"))


def own_table(run: Run) -> str:
    """The path of the table that a run was trained on.

    Raises:
        UserError: the run's data are not one table.
    """
    from .data import Tables

    data = run.data({})
    if not isinstance(data, Tables):
        raise UserError(f"{run.directory} was not trained on a table of series: give one by --data.path FILE")
    return data.path


def settings(run: Run) -> dict[str, Any]:
    """The arguments of the run's data module."""
    return dict(run.config["data"].get("init_args", {}))


def _summary(future: Future) -> Summary:
    """The first series: last value, next forecast, last forecast and its outer interval."""
    from rich.table import Table as Summary

    table, levels = future.table, future.levels
    summary = Summary(title=f"Forecast of {future.steps} rows", title_justify="left")
    summary.add_column("series")
    for heading in ("last value", "first forecast", "last forecast"):
        summary.add_column(heading, justify="right")
    if len(levels) > 1:
        share = f"{100 * (levels[-1] - levels[0]):.0f} %"
        summary.add_column(f"its {share} interval", justify="right", no_wrap=True)
    for index, name in enumerate(table.names[:LISTED]):
        median, edge = future.median[index], future.quantiles[index, -1]
        figures = (future.last_values[index], median[0], median[-1])
        interval = [f"{edge[0]:.5g} to {edge[-1]:.5g}"] if len(levels) > 1 else []
        summary.add_row(name, *(f"{figure:.5g}" for figure in figures), *interval)
    if len(table.names) > LISTED:
        summary.add_row(f"and {len(table.names) - LISTED} more")
    return summary
