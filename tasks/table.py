"""Rows of figures as a table on the terminal and as JSON, and data frames as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..tokenizers.errors import UserError
from .panel import Row
from .run import update_json, write_json

if TYPE_CHECKING:
    import pandas as pd


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a table; the run's own are bold, the baselines plain."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in ("system", "metric", "value", "95 % interval"):
        table.add_column(heading, justify="left" if heading in ("system", "metric") else "right")
    for row in rows:
        style = "" if row.baseline else "bold"
        table.add_row(row.system, row.metric, f"{row.value:.3f}", interval(row), style=style)
    Console().print(table)


def interval(row: Row) -> str:
    """`low to high`, or nothing where there is no interval."""
    return "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none."""
    known: dict[str, Any] = loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return known


def record(directory: Path, key: str, rows: Sequence[Row], json: str | None = None) -> None:
    """Put rows under `key` of the run's `metrics.json`, and into the file `json` too where one is named."""
    figures = [asdict(row) for row in rows]
    update_json(directory / "metrics.json", {key: figures})
    if json is not None:
        write_json(Path(json), {"run": str(directory), key: figures})


def frame_file(output: str) -> Path:
    """Where a table is to be written; asked before any work.

    Raises:
        UserError: its name ends in neither `.csv` (also `.csv.gz`) nor `.parquet`.
    """
    path = Path(output)
    if not {".csv", ".parquet"} & set(path.suffixes[-2:]):
        raise UserError(f"expected --output to end in .csv or .parquet, but got {output!r}")
    return path


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet or as CSV, by the file's name. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
