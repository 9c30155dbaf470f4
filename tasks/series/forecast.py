"""`triptych forecast`: a table in, a table of quantiles beyond its last row out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...tokenizers.errors import UserError
from ..run import Run, load, write_json
from .beside import Given
from .future import Future, predict_future
from .plot import check_picture, draw_future
from .table import Columns, Table, read_table, to_table

if TYPE_CHECKING:
    from rich.table import Table as Summary

#: Series listed on the terminal.
LISTED = 15


def forecast(
    run: Run | str | Path, table: pd.DataFrame | str | Path, horizon: int | None = None
) -> pd.DataFrame:
    """Forecast a table beyond its last row, with a model trained on it or on others.

    Args:
        run: a finished run, or its directory.
        table: long (`unique_id, ds, y`) or wide (`ds`, one column a series): a data frame or a
            file. Its columns are named as in the run's config.
        horizon: rows to forecast; the model's own unless given. Beyond it the model is applied
            again to its own forecasts.

    Returns:
        One row a series and stamp: `unique_id`, `ds`, `median`, and a column a quantile (`q0.1`, ...).

    Raises:
        UserError: the horizon is not positive, the table cannot be read, or a series is too short.
    """
    loaded = run if isinstance(run, Run) else load(run)
    return _predict(loaded, as_table(loaded, table), horizon).frame()


def forecast_command(
    run: str,
    path: str | None = None,
    horizon: int | None = None,
    output: str = "forecast.csv",
    plot: str | None = None,
    json: str | None = None,
) -> None:
    """Forecast a table; write the forecast, draw it, and sum it up on the terminal.

    Args:
        run: run directory.
        path: long or wide table, CSV or Parquet; the run's own unless given. The forecast is in its units.
        horizon: rows to forecast; the model's own unless given.
        output: `.csv` (also `.csv.gz`) or `.parquet` to write.
        plot: PNG to draw the first series into.
        json: file for the summary as JSON.

    Raises:
        UserError: as `forecast`, or the output is neither CSV nor Parquet.
    """
    from rich.console import Console

    target = Path(output)
    if not {".csv", ".parquet"} & set(target.suffixes[-2:]):
        raise UserError(f"expected --output to end in .csv or .parquet, but got {output!r}")
    check_picture(plot)
    loaded = load(run)
    path = path or own_table(loaded)
    table = as_table(loaded, path)
    began = time.monotonic()
    future = _predict(loaded, table, horizon)
    seconds = time.monotonic() - began
    write_frame(future.frame(), target)
    console = Console()
    console.print(_summary(future))
    console.print(f"{len(table.names)} series, {future.steps} rows of {table.step.name} ahead, in {target}")
    if future.blocks > 1:
        console.print(
            f"The model forecasts {future.block} rows at a time: for {future.steps} it was applied "
            f"{future.blocks} times, each time to its own forecasts; "
            f"the intervals beyond row {future.block} are too narrow."
        )
    trained = loaded.description["spec"]["data"]["series"]["step"]
    if trained != table.step.name:
        console.print(f"The model was trained on rows {trained} apart, these are {table.step.name} apart.")
    if plot is not None:
        console.print(f"{draw_future(future, Path(plot))} series drawn in {plot}")
    if json is not None:
        figures = {"series": len(table.names), "horizon": future.steps, "step": table.step.name}
        paths = {"run": run, "path": path, "output": output}
        write_json(Path(json), paths | figures | {"blocks": future.blocks, "seconds": round(seconds, 2)})


def _predict(run: Run, table: Table, horizon: int | None) -> Future:
    fill = settings(run).get("gaps") == "forward"
    return predict_future(run.model, table, horizon, fill)


def as_table(run: Run, table: pd.DataFrame | str | Path) -> Table:
    """A data frame or a file, read as the run's own data was. Raises UserError as `read_table`."""
    given = settings(run)
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
    found: dict[str, Any] = run.config["data"].get("init_args", {})
    return found


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet or as CSV, by the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)


def _summary(future: Future) -> Summary:
    """The first series: last value, next forecast, last forecast and its outer interval."""
    from rich.table import Table as Summary

    table, levels = future.table, future.levels
    share = f"{100 * (levels[-1] - levels[0]):.0f} %"
    summary = Summary(title=f"Forecast of {future.steps} rows", title_justify="left")
    summary.add_column("series")
    for heading in ("last value", "first forecast", "last forecast"):
        summary.add_column(heading, justify="right")
    summary.add_column(f"its {share} interval", justify="right", no_wrap=True)
    for index, name in enumerate(table.names[:LISTED]):
        median, edge = future.median[index], future.quantiles[index, -1]
        figures = (future.last_values[index], median[0], median[-1])
        summary.add_row(name, *(f"{figure:.5g}" for figure in figures), f"{edge[0]:.5g} to {edge[-1]:.5g}")
    if len(table.names) > LISTED:
        summary.add_row(f"and {len(table.names) - LISTED} more", "", "", "", "")
    return summary
