"""Does pretraining on all rows help a forecaster that may learn from a tenth of them? The packaged weather.

    python benchmarks/series_pretraining.py [--seeds 0 1 2]

`series/pretrain` reads the first 70 % of the rows; `series/finetune` trains on the first tenth of those.
Beside it: the same from scratch for as many steps, from scratch for as many steps as pretraining and
fine-tuning take together, and only a head on an encoder drawn at random, or pretrained and left as it
is. Mean squared error in z units of the rows trained on, over every test window (the last 20 %), beside
ridge fitted on the same tenth. Finished seeds are kept in --cache and not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from record import write
from runs import kept
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import load
from triptych.tasks.series.panel import MSE, OWN, measure

TENTH = [0.07, 0.73, 0.2]
#: Steps of pretraining and of fine-tuning.
STEPS, TUNED = 760, 260
ALL_AT_ONCE = {"model.optimizer.layer_decay": 1.0, "model.optimizer.freeze": None}
FROZEN = {
    "model.optimizer.layer_decay": 1.0,
    "model.optimizer.freeze": {"tokenizers.*": 1.0, "encoder.*": 1.0},
}
PRETRAINED = "pretrained, fine-tuned"
#: By system: whether it starts from the pretrained run, its steps, and what else it changes.
SYSTEMS: dict[str, tuple[bool, int, dict[str, Any]]] = {
    PRETRAINED: (True, TUNED, {}),
    "from scratch, as many steps of tuning": (False, TUNED, ALL_AT_ONCE),
    "from scratch, as many steps in all": (False, STEPS + TUNED, ALL_AT_ONCE),
    "frozen random encoder": (False, TUNED, FROZEN),
    "frozen pretrained encoder": (True, TUNED, FROZEN),
}


def steps(count: int) -> dict[str, Any]:
    """The overrides that make a run of so many steps, without validation."""
    return {
        "trainer.max_epochs": -1,
        "trainer.max_steps": count,
        "trainer.limit_val_batches": 0,
        "trainer.enable_progress_bar": False,
    }


def one_seed(seed: int) -> dict[str, Any]:
    """Every system's test error, ridge's, and processor minutes."""
    with tempfile.TemporaryDirectory() as folder:
        return in_folder(seed, Path(folder))


def in_folder(seed: int, folder: Path) -> dict[str, Any]:
    """The same, with runs in a folder."""
    clock = time.process_time()
    pretrained = fit(
        merge(["series/pretrain"], {"seed": seed, **steps(STEPS)}), output=str(folder / "pretrained")
    )
    minutes = {"pretraining": (time.process_time() - clock) / 60}
    errors = {}
    for number, (system, (init, count, changes)) in enumerate(SYSTEMS.items()):
        clock = time.process_time()
        config = merge(["series/finetune"], {"seed": seed, "data.split": TENTH, **steps(count), **changes})
        run = fit(config, output=str(folder / f"run-{number}"), init=str(pretrained) if init else None)
        minutes[system] = (time.process_time() - clock) / 60
        rows = {row.system: row.value for row in measure(load(run)) if row.metric == MSE}
        errors[system] = float(rows[OWN])
        errors["ridge"] = float(rows["ridge"])
    return {"seed": seed, "mse": errors, "processor_minutes": minutes}


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=Path("runs/series_pretraining"))
    options = parser.parse_args()
    runs = [kept(options.cache / f"{seed}.json", partial(one_seed, seed)) for seed in options.seeds]
    mean = {system: statistics.mean(run["mse"][system] for run in runs) for system in runs[0]["mse"]}
    for system, value in mean.items():
        spread = ", ".join(f"{run['mse'][system]:.4f}" for run in runs)
        print(f"{system:40} {value:.4f} ({spread})")
    figures = {"steps": STEPS, "steps_of_tuning": TUNED, "split": TENTH, "mean": mean, "runs": runs}
    print(write("series_pretraining", figures, ("lightning", "numpy", "pandas")))


if __name__ == "__main__":
    main()
