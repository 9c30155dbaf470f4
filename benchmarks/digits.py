"""What `vision/vit` and `vision/dino` reach on scikit-learn's digits, beside their baselines.

    python benchmarks/digits.py [--only vit|dino] [--folds 0 1 2 3 4] [--seeds 1 2 3]

ViT: one run on each of five stratified folds, the fold's number as its seed. DINO: seed i on fold i; its
settings were chosen on fold 0. Writes benchmarks/results/digits.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import load, write_json
from triptych.tasks.vision.panel import measure

RESULTS = Path(__file__).parent / "results" / "digits.json"
LIBRARIES = ("torch", "lightning", "scikit-learn", "numpy")


def run_once(config: str, fold: int, seed: int) -> dict[str, Any]:
    """Train and measure one run; every row of the panel by its system."""
    overrides = {"data.fold": str(fold), "seed": str(seed), "trainer.enable_progress_bar": "false"}
    with tempfile.TemporaryDirectory() as folder:
        load_before, began, processor = os.getloadavg()[0], time.monotonic(), time.process_time()
        directory = fit(merge([config], overrides), output=f"{folder}/run")
        minutes, processor = (time.monotonic() - began) / 60, (time.process_time() - processor) / 60
        rows = measure(load(directory))
    figures = {row.system: {"value": row.value, "low": row.low, "high": row.high} for row in rows}
    result = {"fold": fold, "seed": seed, "metric": rows[0].metric, "rows": figures}
    return result | {"minutes": minutes, "processor_minutes": processor, "load_before": load_before}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of every row over the runs."""
    summary = {}
    for system in runs[0]["rows"]:
        values = [run["rows"][system]["value"] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else None
        summary[system] = {"mean": statistics.fmean(values), "deviation": spread, "each": values}
    return summary


def machine() -> dict[str, Any]:
    """Where and with what it ran."""
    libraries = {name: version(name) for name in LIBRARIES}
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    return {"processor": platform.machine(), "cores": cores, "threads": threads, **libraries}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("vit", "dino"))
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    options = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, numbers in (("vit", options.folds), ("dino", options.seeds)):
        if options.only in (None, name):
            runs = [run_once(f"vision/{name}", number, number) for number in numbers]
            known[f"vision/{name}"] = {"machine": machine(), "summary": summarise(runs), "runs": runs}
            for system, figures in known[f"vision/{name}"]["summary"].items():
                print(f"vision/{name:5} {figures['mean']:.4f}  {system}", flush=True)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            write_json(RESULTS, known)


if __name__ == "__main__":
    main()
