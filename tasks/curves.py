"""What a run logged, epoch by epoch, and its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .evaluation.judge import History

#: What a figure is held against, by their last names; drawn as a dashed line in its chart.
REFERENCES = {
    "teacher_entropy": "ln_prototypes",
    "ce": "ln_classes",
    "accuracy": "chance",
    "knn": "knn_chance",
    "rankme": "width",
    "code_perplexity": "codebooks",
}
COLOURS = {"train": "#2f6fde", "val": "#d9641a", "test": "#5b8a3c"}
COLUMNS = 3


def read_history(directory: Path) -> History:
    """The mean of every figure in each epoch, from `metrics.csv` and what was logged before a resume."""
    import pandas as pd

    files = [*sorted(directory.glob("metrics-*.csv")), directory / "metrics.csv"]
    tables = [pd.read_csv(file) for file in files if file.is_file() and file.stat().st_size]
    if not tables:
        return []
    table = pd.concat(tables).drop(columns="step", errors="ignore").groupby("epoch").mean()
    return [
        (int(epoch), {str(name): float(value) for name, value in row.dropna().items()})  # type: ignore[call-overload]
        for epoch, row in table.iterrows()
    ]


def draw_curves(history: History, path: Path) -> None:
    """A small chart for each figure, training and held-out parts in one; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = dict.fromkeys(name for _, figures in history for name in figures)
    against = set(REFERENCES.values())
    charts = dict.fromkeys(
        name.partition("/")[2] for name in names if name.rpartition("/")[2] not in against and "/" in name
    )
    rows = -(-len(charts) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(10.5, 2.1 * rows + 0.2), dpi=110, squeeze=False)
    for axis, chart in zip(axes.flat, charts, strict=False):
        _chart(axis, chart, history)
    for axis in axes.flat[len(charts) :]:
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def _chart(axis: Any, chart: str, history: History) -> None:
    """One figure of every stage, and what each is held against."""
    shown = 0
    for stage, colour in COLOURS.items():
        name = f"{stage}/{chart}"
        points = [(epoch, figures[name]) for epoch, figures in history if name in figures]
        if not points:
            continue
        shown += 1
        marker = "." if len(points) < 25 else ""
        axis.plot(*zip(*points, strict=True), color=colour, label=stage, marker=marker)
        first, _, last = name.rpartition("/")
        reference = f"{first}/{REFERENCES.get(last)}"
        level = [figures[reference] for _, figures in history if reference in figures]
        if level:
            axis.axhline(level[-1], color="#888888", linestyle="--", linewidth=1)
    axis.set_title(chart, fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if shown > 1:
        axis.legend(fontsize=7, frameon=False)
