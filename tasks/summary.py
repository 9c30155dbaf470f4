"""What several runs learnt, as one table: a line for each figure of a run, its baselines beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .panel import Row
from .table import interval


@dataclass(frozen=True)
class Line:
    """One line of the summary, ready to be shown.

    Attributes:
        config: name and training time, on a run's first line alone.
        figure: what was measured.
        value: of the run.
        interval: of the value.
        baselines: one each, on the first line of a figure alone.
    """

    config: tuple[str, ...]
    figure: str
    value: str
    interval: str
    baselines: tuple[str, ...]


def summarise(config: str, seconds: float, rows: Sequence[Row]) -> list[Line]:
    """A line for each row of the run itself.

    Args:
        config: name of the run's config.
        seconds: how long the training took.
        rows: the run's figures and its baselines.
    """
    beside: dict[str, list[str]] = {}
    for row in rows:
        if row.baseline:
            beside.setdefault(row.metric, []).append(f"{row.value:.3f} {row.system}")
    own = [row for row in rows if not row.baseline]
    return [
        Line(
            (config, f"{seconds / 60:.1f} minutes") if row is own[0] else (),
            row.metric + row.system.removeprefix("this run"),
            f"{row.value:.3f}",
            interval(row),
            tuple(beside.pop(row.metric, ())),
        )
        for row in own
    ]


def print_summary(lines: Sequence[Line]) -> None:
    """Show the lines on the terminal, a rule before each run."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("config", "figure", "this run", "95 % interval", "baselines"):
        table.add_column(heading, no_wrap=heading in ("config", "this run", "95 % interval"))
    for line in lines:
        if line.config:
            table.add_section()
        config, baselines = "\n".join(line.config), "\n".join(line.baselines)
        table.add_row(config, line.figure, f"[bold]{line.value}[/bold]", line.interval, baselines)
    Console().print(table)
