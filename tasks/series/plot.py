"""Fan charts: history, a forecast with its quantiles, and what it is compared with.

Shapes: T rows of history, H horizon, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .future import Future

INK, MODEL, RIVAL, FAINT = "#1c2430", "#2563eb", "#d97706", "#98a2b3"
#: Endings of the pictures that can be written.
PICTURES = (".png", ".pdf", ".svg")
#: Charts in one picture, rows of history beside each row of forecast.
DRAWN, HISTORY = 6, 4


@dataclass(frozen=True)
class Chart:
    """One series with its forecast.

    Attributes:
        title, unit: of the chart.
        past: stamps and values of the history; NaN where a value is missing.
        quantiles: `(H, Q)`.
        levels: the Q levels, rising, .5 among them.
        stamps: the H stamps of the forecast.
        truth: `(H,)` what happened, where it is known.
        rival: `(H,)` what a baseline says, where it is shown.
        rival_name: which.
    """

    title: str
    unit: str
    past: pd.Series[float]
    quantiles: np.ndarray
    levels: Sequence[float]
    stamps: pd.DatetimeIndex
    truth: np.ndarray | None = None
    rival: np.ndarray | None = None
    rival_name: str = "seasonal naive"


def check_picture(plot: str | None) -> None:
    """Refuse, before any work, what no picture can be written to.

    Raises:
        UserError: `plot` ends in nothing that is drawn.
    """
    if plot is not None and Path(plot).suffix.lower() not in PICTURES:
        raise UserError(f"expected --plot to end in {', '.join(PICTURES)}, but got {plot!r}")


def draw(charts: Sequence[Chart], path: Path, heading: str) -> None:
    """Draw charts two abreast into a PNG 1,400 pixels wide."""
    from matplotlib.figure import Figure

    columns = min(2, len(charts))
    rows = -(-len(charts) // columns)
    figure = Figure(figsize=(14, 1.1 + 3.4 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, chart in zip(axes, charts, strict=False):
        _draw_chart(ax, chart)
    for ax in axes[len(charts) :]:
        ax.set_visible(False)
    figure.suptitle(heading, x=0.01, ha="left", fontsize=14, color=INK, fontweight="bold")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_future(future: Future, path: Path) -> int:
    """Draw the first series of a forecast beyond the last row; returns how many."""
    table = future.table
    each = len(table.channels)
    beyond, count = table.future(future.steps), min(DRAWN, len(table.names))
    charts = []
    for index in range(count):
        series, channel = divmod(index, each)
        end = int(table.starts[series] + table.lengths[series])
        shown = int(min(table.lengths[series], max(HISTORY * future.steps, 3)))
        stop = int(table.first[series] + table.lengths[series])
        past = pd.Series(table.values[end - shown : end, channel], index=table.grid[stop - shown : stop])
        charts.append(
            Chart(table.names[index], "", past, future.quantiles[index], future.levels, beyond[series])
        )
    draw(charts, path, f"Forecast of {future.steps} rows")
    return count


def draw_steps(steps: pd.DataFrame, path: Path, share: int | None) -> None:
    """Draw figures at each step of the horizon, one chart a metric and one line a system.

    Args:
        steps: `metric, step, system, value`.
        path: PNG to write.
        share: of the truth, in %, that the interval should hold, drawn across its coverage.
    """
    from matplotlib.figure import Figure

    metrics = list(steps["metric"].unique())
    figure = Figure(figsize=(14, 5), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False).ravel()
    for ax, metric in zip(axes, metrics, strict=True):
        for system, part in steps[steps["metric"] == metric].groupby("system", sort=False):
            own = str(system).startswith("triptych")
            ax.plot(part["step"], part["value"], label=system, linewidth=2.2 if own else 1.2)
        if share is not None and metric.startswith("coverage"):
            ax.axhline(share / 100, color=INK, linewidth=1, linestyle=":")
        ax.set_title(metric, loc="left", fontsize=12, color=INK)
        ax.set_xlabel("rows ahead", color=INK)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_chart(ax: Axes, chart: Chart) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    past = chart.past
    ax.plot(past.index, past.to_numpy(), color=INK, linewidth=1.3, label="history")
    _draw_fan(ax, chart)
    if chart.rival is not None:
        ax.plot(chart.stamps, chart.rival, color=RIVAL, linewidth=1.4, linestyle="--", label=chart.rival_name)
    if chart.truth is not None:
        ax.plot(chart.stamps, chart.truth, color=INK, linewidth=1.8, marker=".", markersize=5, label="truth")
    ax.axvline(past.index[-1], color=FAINT, linewidth=1, linestyle=":")
    ax.set_title(chart.title, loc="left", fontsize=12, color=INK)
    ax.set_ylabel(chart.unit, color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.tick_params(colors=INK)
    locator = AutoDateLocator(maxticks=8)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.margins(x=0.01)


def _draw_fan(ax: Axes, chart: Chart) -> None:
    """Nested bands between opposite quantiles, darkest inside, and the median."""
    levels, quantiles = list(chart.levels), chart.quantiles
    middle = levels.index(0.5)
    for depth in range(min(middle, len(levels) - 1 - middle)):
        low, high = quantiles[:, depth], quantiles[:, -1 - depth]
        share = f"{100 * (levels[-1 - depth] - levels[depth]):.0f} % interval" if depth == 0 else None
        ax.fill_between(chart.stamps, low, high, color=MODEL, alpha=0.14, linewidth=0, label=share)
    ax.plot(chart.stamps, quantiles[:, middle], color=MODEL, linewidth=2, label="forecast (median)")
