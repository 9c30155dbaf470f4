"""What `vision/vit` and `vision/dino` reach on scikit-learn's digits, beside their baselines.

    python benchmarks/digits.py [--only vit|dino] [--folds 0 1 2 3 4] [--seeds 1 2 3]

ViT: one run on each of five stratified folds, the fold's number as its seed; within .003 of the best of 3-NN
and a tuned RBF-SVM, each run in under 4 minutes. DINO: seed i on fold i, for its settings were chosen on fold
0; a kNN of at least .90. About 2 minutes a run on two quiet cores. Writes results/digits_vit.json and
results/digits_dino.json; what was tried is in results/digits_vit_log.md and results/digits_dino_log.md.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from record import write
from runs import means, train_and_measure, value
from triptych.tasks.vision.panel import ACCURACY, KNN, measure

BEHIND, LEAST, MINUTES = 0.003, 0.90, 4.0
OWN = {"vit": ("this run", ACCURACY), "dino": ("this run, class token", KNN)}
PACKAGES = ("lightning", "torchvision", "scikit-learn", "numpy")


def goals(name: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was to be reached, and whether the mean of the runs did."""
    reached = statistics.mean(value(run, *OWN[name]) for run in runs)
    rows = {(row["system"], row["metric"]) for row in runs[0]["rows"]} - {OWN[name]}
    best = max(statistics.mean(value(run, *row) for run in runs) for row in rows)
    wanted = best - BEHIND if name == "vit" else LEAST
    slowest = max(run["minutes"] for run in runs)
    return {
        "figure": {"goal": wanted, "reached": reached, "met": reached >= wanted},
        "minutes": {"goal": MINUTES, "reached": slowest, "met": slowest < MINUTES},
    }


def run_all(name: str, numbers: Sequence[int]) -> None:
    """Train and measure one run a number, print their means and write the record."""
    runs = []
    for number in numbers:
        overrides = {"data.fold": number, "seed": number, "trainer.enable_progress_bar": False}
        runs.append(train_and_measure(f"vision/{name}", measure, overrides))
        print(f"fold {number}: {value(runs[-1], *OWN[name]):.4f}", flush=True)
    summary = {"goals": goals(name, runs), **means(runs)}
    path = write(f"digits_{name}", {"config": f"vision/{name}", **summary, "runs": runs}, PACKAGES)
    for system, figure in summary["mean"].items():
        print(f"{figure:.4f}  {system}")
    print(f"goal {summary['goals']['figure']}; in {path}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=tuple(OWN))
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    for name, numbers in (("vit", options.folds), ("dino", options.seeds)):
        if options.only in (None, name):
            run_all(name, numbers)


if __name__ == "__main__":
    main()
