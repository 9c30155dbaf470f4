"""One packaged config trained and measured, as the benchmarks of the panels all do."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.panel import Row
from triptych.tasks.run import Run, load

#: A panel's `measure`.
Measure = Callable[[Run], list[Row]]


def train_and_measure(config: str, measure: Measure, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Train once in a temporary folder: the overrides, minutes (wall and processor), the panel's rows."""
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.monotonic(), time.process_time()
        run = fit(merge([config], overrides), output=str(Path(folder) / "run"))
        wall, processor = time.monotonic() - wall, time.process_time() - processor
        rows = measure(load(run))
    return {**overrides, "minutes": wall / 60, "processor_minutes": processor / 60, "rows": figures(rows)}


def keep(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps(record) + "\n", encoding="utf-8")
    path.with_suffix(".part").replace(path)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def known(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record kept in `path`, where it is of what is `asked` for; the record's own `asked` says."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return dict(found) if found.get("asked") == json.loads(json.dumps(asked)) else None


def kept(path: Path, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured before and kept in `path`, or what is measured now, kept for the next time."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else keep(path, measured())


def figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain values."""
    return [
        {
            "system": row.system,
            "metric": row.metric,
            "value": float(row.value),
            "low": row.low,
            "high": row.high,
        }
        for row in rows
    ]


def value(run: Mapping[str, Any], system: str, metric: str) -> float:
    """One figure of a run."""
    return float(
        next(row["value"] for row in run["rows"] if (row["system"], row["metric"]) == (system, metric))
    )


def means(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of every figure over the runs, and of their minutes."""
    names = [(row["system"], row["metric"]) for row in runs[0]["rows"]]
    return {
        "mean": {f"{s}, {m}": statistics.mean(value(run, s, m) for run in runs) for s, m in names},
        "minutes": statistics.mean(run["minutes"] for run in runs),
        "processor_minutes": statistics.mean(run["processor_minutes"] for run in runs),
    }
