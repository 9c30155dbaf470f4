"""How well does series/forecast do on the packaged weather, and for how long does it train?

    python benchmarks/nyc_weather.py [--seeds 0 1 2]

Trains the packaged config once a seed and measures each run, ridge, naive and seasonal naive on every test
window (168 hours -> 24, 15 channels). Must reach a mean squared error of at most .92 of ridge's, mean of the
seeds, in under 4 minutes a run. Settings were chosen on the validation part; results/nyc_weather_log.md tells
what was tried.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import load
from triptych.tasks.series.panel import MSE, OWN, RATIO, measure

CONFIG = "series/forecast"
GOAL, MINUTES = 0.92, 4


def one_run(seed: int) -> dict[str, Any]:
    """Figures of one seed: minutes of wall and of processor time, and every row of the panel."""
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.monotonic(), time.process_time()
        run = fit(merge([CONFIG], {"seed": seed}), output=str(Path(folder) / "run"))
        wall, processor = time.monotonic() - wall, time.process_time() - processor
        rows = measure(load(run))
    figures = [
        {"system": row.system, "metric": row.metric, "value": row.value, "low": row.low, "high": row.high}
        for row in rows
    ]
    return {"seed": seed, "minutes": wall / 60, "processor_minutes": processor / 60, "rows": figures}


def value(run: dict[str, Any], system: str, metric: str) -> float:
    """One figure of a run."""
    return next(row["value"] for row in run["rows"] if (row["system"], row["metric"]) == (system, metric))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    runs = [one_run(seed) for seed in parser.parse_args().seeds]
    ratios = [value(run, OWN, RATIO) for run in runs]
    summary: dict[str, Any] = {"goal": GOAL, "goal_minutes": MINUTES, "ratio": statistics.mean(ratios)}
    summary["mean"] = {
        f"{row['system']}, {row['metric']}": statistics.mean(
            value(run, row["system"], row["metric"]) for run in runs
        )
        for row in runs[0]["rows"]
    }
    summary["minutes"] = statistics.mean(run["minutes"] for run in runs)
    summary["processor_minutes"] = statistics.mean(run["processor_minutes"] for run in runs)
    path = write("nyc_weather", {"config": CONFIG, **summary, "runs": runs}, ("lightning", "numpy", "pandas"))
    for name, figure in summary["mean"].items():
        print(f"{name:45} {figure:.4f}")
    for run, ratio in zip(runs, ratios, strict=True):
        own, minutes = value(run, OWN, MSE), run["minutes"]
        print(f"seed {run['seed']}: {own:.4f}, {ratio:.3f} of ridge, {minutes:.1f} min")
    print(f"mean ratio {summary['ratio']:.3f} (goal {GOAL}); in {path}")


if __name__ == "__main__":
    main()
