"""How well does one recipe tell classes of series on eight public sets, each with its official split?

    pip download --no-deps aeon==1.6.0 && unzip aeon-*.whl 'aeon/datasets/data/*'
    python benchmarks/ucr.py --data aeon/datasets/data [--seeds 0 1 2]

Trains series/classify once a set and seed, and measures it on the test part beside 1-NN by Euclidean
distance and ridge on the raw values. Must reach a mean accuracy of .88 (goal .91) in at most 4 minutes of
processor time a set. The recipe was chosen by halves of the train parts; results/ucr_log.md tells what was
tried. Finished trainings are kept in --cache and not repeated while the config stays the same.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write
from runs import kept
from triptych.tasks.config import Merged, merge
from triptych.tasks.evaluation.labels import tell
from triptych.tasks.fit import fit
from triptych.tasks.run import load
from triptych.tasks.series.labelled import Labelled, read_labelled
from triptych.tasks.series.views import stretched

CONFIG = "series/classify"
SETS = (
    "OSULeaf",
    "ACSF1",
    "JapaneseVowels",
    "PickupGestureWiimoteZ",
    "ArrowHead",
    "GunPoint",
    "BasicMotions",
    "ItalyPowerDemand",
)
FLOOR, GOAL = 0.88, 0.91
#: aeon's MiniRocket with ridge on the same test parts, as measured before (not by this script).
MINIROCKET = (0.959, 0.910, 0.989, 0.880, 0.863, 0.993, 1.000, 0.963)
EUCLID, RIDGE, OWN = "1-NN Euclid", "ridge on values", "this run"


def baselines(path: Path) -> dict[str, float]:
    """Test accuracy of 1-NN and of ridge on raw values; unequal lengths are stretched to the longest."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.neighbors import KNeighborsClassifier

    found = read_labelled(str(path), val=0.0)
    longest = max(values.shape[1] for values in found.values)
    rows = np.stack([stretched(torch.from_numpy(v), longest).flatten().numpy() for v in found.values])
    train, labels = np.array(found.splits) == "train", np.array(found.labels)
    contenders = {
        EUCLID: KNeighborsClassifier(1),
        RIDGE: RidgeClassifierCV(np.logspace(-3, 5, 9)),
    }
    return {
        name: float(of.fit(rows[train], labels[train]).score(rows[~train], labels[~train]))
        for name, of in contenders.items()
    }


def trained(path: Path, seed: int, cache: Path) -> dict[str, float]:
    """Test accuracy and minutes of one training, from the cache where it has been run."""
    overrides = {"data.path": str(path), "data.val": 0.0, "seed": seed, "trainer.limit_val_batches": 0}
    overrides["trainer.enable_progress_bar"] = False
    config = merge([CONFIG], overrides)
    digest = hashlib.blake2b(config.yaml().encode(), digest_size=6).hexdigest()
    return kept(cache / f"{path.stem}-{seed}-{digest}.json", partial(train_and_tell, config, seed))


def train_and_tell(config: Merged, seed: int) -> dict[str, float]:
    """One training, and what it makes of the test part."""
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.monotonic(), time.process_time()
        run = load(fit(config, output=str(Path(folder) / "run")))
        minutes = (time.monotonic() - wall) / 60, (time.process_time() - processor) / 60
        told, truth = tell(run)
        accuracy = float((told == truth.label).double().mean())
    return {"seed": seed, "accuracy": accuracy, "minutes": minutes[0], "processor_minutes": minutes[1]}


def measure(path: Path, seeds: Sequence[int], cache: Path) -> dict[str, Any]:
    """Every figure of one set."""
    found: Labelled = read_labelled(str(path), val=0.0)
    counts = {part: found.splits.count(part) for part in ("train", "test")}
    sizes = {"channels": len(found.channels), "classes": len(set(found.labels))}
    runs = [trained(path, seed, cache) for seed in seeds]
    own = statistics.mean(run["accuracy"] for run in runs)
    return {**counts, **sizes, **baselines(path), OWN: own, "runs": runs}


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="folder with a folder a set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", choices=SETS, nargs="+", default=list(SETS), metavar="SET")
    parser.add_argument("--cache", type=Path, default=Path("runs/ucr"))
    options = parser.parse_args()
    found = {}
    for name in options.only:
        rocket = MINIROCKET[SETS.index(name)]
        found[name] = measure(options.data / name / f"{name}_TRAIN.ts", options.seeds, options.cache) | {
            "MiniRocket": rocket
        }
        shown = ", ".join(f"{key} {found[name][key]:.3f}" for key in (OWN, EUCLID, RIDGE, "MiniRocket"))
        print(f"{name:24} {shown}", flush=True)
    mean = {
        key: statistics.mean(of[key] for of in found.values()) for key in (OWN, EUCLID, RIDGE, "MiniRocket")
    }
    print(f"{'mean':24} {', '.join(f'{key} {value:.3f}' for key, value in mean.items())}")
    figures = {"config": CONFIG, "floor": FLOOR, "goal": GOAL, "mean": mean, "sets": found}
    print(f"floor {FLOOR}, goal {GOAL}; in {write('ucr', figures, ('lightning', 'scikit-learn'))}")


if __name__ == "__main__":
    main()
