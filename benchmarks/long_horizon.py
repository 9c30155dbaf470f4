"""How far ahead is one model better than ridge? Every test window of each horizon, from one run a seed.

    python benchmarks/long_horizon.py --data ETTh1.csv --time date --split 8640 2880 2880
    python benchmarks/long_horizon.py --data household.csv --horizons 96

Trains the config once a seed for the longest horizon; its first steps serve the shorter ones. Ridge (pooled,
its strength chosen on validation) is fitted for each horizon on the same windows. Errors are in z units of
the train rows, gaps filled forward. ETTh1 and ETTh2, whose licence forbids changes, are not shipped: they are
at github.com/zhouhaoyi/ETDataset.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from record import write
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import Run, load
from triptych.tasks.series.baselines import arrays, fit_ridge, naive, seasonal_naive
from triptych.tasks.series.data import Tables
from triptych.tasks.series.panel import forecaster, tables
from triptych.tasks.series.windows import Windows
from triptych.tokenizers.view import View

OWN = "this run"
#: Published test figures to reach, and pooled ridge's (MSE), by data set and horizon.
PUBLISHED = {
    "ETTh1": {96: (0.385, 0.370), 192: (0.413, 0.403), 336: (0.440, 0.426), 720: (0.456, 0.423)},
    "ETTh2": {96: (0.274, 0.273), 192: (0.338, 0.334), 336: (0.367, 0.358), 720: (0.391, 0.385)},
}
#: A forecaster of a view: `(n, C, H)`.
Forecast = Callable[[View], np.ndarray]


def errors(test: Windows, forecasts: dict[str, Forecast]) -> dict[str, dict[str, float]]:
    """Mean squared and absolute error of each system over every observed value of every window."""
    square, absolute, count = dict.fromkeys(forecasts, 0.0), dict.fromkeys(forecasts, 0.0), 0
    for _, view in test.in_order():
        _, future = arrays(view)
        observed = view.targets["future_observed"].numpy()
        count += int(observed.sum())
        for name, forecast in forecasts.items():
            error = (forecast(view) - future)[observed].astype(np.float64)
            square[name] += float(np.square(error).sum())
            absolute[name] += float(np.abs(error).sum())
    return {name: {"mse": square[name] / count, "mae": absolute[name] / count} for name in forecasts}


def predicted(run: Run, horizon: int, view: View) -> np.ndarray:
    """The run's medians for the first `horizon` steps."""
    return run.model.predict(view)[:, :, :horizon, forecaster(run.model).middle].numpy()


def baselines(data: Tables, horizon: int) -> dict[str, Forecast]:
    """Naive, seasonal naive, and ridge fitted for this horizon."""
    season = data.table.step.season
    ridge = fit_ridge(data.windows("train", horizon), data.windows("val", horizon))
    plain = {
        f"ridge ({ridge.strength:g})": ridge,
        "naive": partial(naive, horizon=horizon),
        "seasonal naive": partial(seasonal_naive, horizon=horizon, season=season),
    }
    return {name: lambda view, of=of: of(arrays(view)[0]) for name, of in plain.items()}


def train(overrides: dict[str, Any], config: str, folder: str) -> tuple[Run, dict[str, float]]:
    """One run and its minutes."""
    wall, processor = time.monotonic(), time.process_time()
    run = load(fit(merge([config], overrides), output=str(Path(folder) / f"run-{overrides['seed']}")))
    minutes = {
        "minutes": (time.monotonic() - wall) / 60,
        "processor_minutes": (time.process_time() - processor) / 60,
    }
    return run, minutes


def measure(runs: Sequence[Run], horizon: int) -> dict[str, Any]:
    """Errors of the baselines and of each run on every test window of a horizon."""
    data = tables(runs[0])
    test = data.windows("test", horizon)
    found: dict[str, Any] = {"windows": len(test.origins)}
    found |= errors(test, baselines(data, horizon))
    found["seeds"] = [errors(test, {OWN: partial(predicted, run, horizon)})[OWN] for run in runs]
    found[OWN] = {key: statistics.mean(seed[key] for seed in found["seeds"]) for key in ("mse", "mae")}
    return found


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="table of hourly or other regular series")
    parser.add_argument("--config", default="series/long-horizon")
    parser.add_argument("--time", default="ds", help="its column of time stamps")
    parser.add_argument(
        "--split", type=float, nargs=3, default=None, help="shares or rows; default 70/10/20 %%"
    )
    parser.add_argument("--horizons", type=int, nargs="+", default=[96, 192, 336, 720])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    overrides = {"data.path": options.data, "data.time": options.time, "data.horizon": max(options.horizons)}
    overrides |= {"trainer.enable_progress_bar": False, "trainer.limit_val_batches": 0}
    if options.split:
        overrides["data.split"] = options.split
    name = Path(options.data).name.split(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        trained = [train({**overrides, "seed": seed}, options.config, folder) for seed in options.seeds]
        found = {horizon: measure([run for run, _ in trained], horizon) for horizon in options.horizons}
    for horizon, figures in found.items():
        goal, ridge = PUBLISHED.get(name, {}).get(horizon, (None, None))
        print(f"{name} {horizon}: {figures['windows']} windows, to reach {goal}, published ridge {ridge}")
        for system in (name for name in figures if name not in ("windows", "seeds")):
            print(f"  {system:24} MSE {figures[system]['mse']:.4f}  MAE {figures[system]['mae']:.4f}")
    minutes = [minutes for _, minutes in trained]
    print(f"{max(m['minutes'] for m in minutes):.1f} minutes the slowest run")
    figures = {"config": options.config, "runs": minutes, "horizons": found}
    print(write(f"long_horizon_{name}", figures, ("lightning", "numpy", "pandas")))


if __name__ == "__main__":
    main()
