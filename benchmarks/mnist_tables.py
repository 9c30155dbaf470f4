"""The tables of MNIST-5k: what was measured here joins what the results files hold from other folders.

A row keeps, of every run, its seed, its minutes and how many test samples it told wrongly, from which its
means and intervals follow.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from mnist_cells import Cell, cells
from record import RESULTS, write
from runs import figures
from triptych.tasks.evaluation.intervals import interval
from triptych.tasks.panel import Row

UNTRAINED, PIXELS = "untrained encoder", "raw pixels"
COST = ("minutes", "processor_minutes")
PACKAGES = ("lightning", "torchvision", "scikit-learn", "numpy", "mlxtend")

#: metric -> test samples told wrongly, and of how many.
Errors = dict[str, list[int]]


def tables(folder: Path) -> None:
    """Write and print every table that has runs in `folder`."""
    results = folder / "results"
    for table, own in by_table().items():
        found = {cell.name: records(results, cell) for cell in own}
        if any(found.values()):
            before = written(table)
            told = [row for cell in own for row in rows(cell, found[cell.name], before)]
            told += baselines(results / f"baselines-{table}.json", before)
            print(f"\n{write(f'mnist_{table}', {'rows': told}, PACKAGES)}\n")
            print("\n".join(markdown(row) for row in told))
    maps = [read(path) for path in sorted(results.glob("segmentation-*.json"))]
    if maps:
        before = read(RESULTS / "mnist_segmentation.json")["maps"]
        by_run = {(one["kind"], one["run"], one["seed"]): one for one in [*before, *maps]}
        print(write("mnist_segmentation", {"maps": [by_run[key] for key in sorted(by_run)]}, PACKAGES))


def by_table() -> dict[str, list[Cell]]:
    """All trainings, by the table they are rows of."""
    found = defaultdict(list)
    for cell in cells():
        found[f"{cell.table}_{cell.kind}"].append(cell)
    return found


def read(path: Path) -> Any:
    """One JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def records(results: Path, cell: Cell) -> list[dict[str, Any]]:
    """What `mnist.py run` kept of a training with the settings it has now, one a seed."""
    asked = json.loads(json.dumps(asdict(cell)))
    found = [read(path) for path in sorted(results.glob(f"{cell.key}-[0-9]*.json"))]
    return [one for one in found if one["asked"]["cell"] == asked]


def written(table: str) -> dict[str, dict[str, Any]]:
    """The rows of a results file by their systems; none if it was not written yet."""
    path = RESULTS / f"mnist_{table}.json"
    return {row["system"]: row for row in read(path)["rows"]} if path.is_file() else {}


def rows(
    cell: Cell, found: Sequence[Mapping[str, Any]], before: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """A system's row over the seeds found and those written before; the baselines of the same few labels."""
    about = json.loads(json.dumps({"config": cell.config, "overrides": cell.overrides}))
    same = before.get(cell.name, {})
    earlier = same.get("runs", []) if about.items() <= same.items() else []
    by_seed = {run["seed"]: run for run in [*earlier, *map(kept, found)]}
    runs = [by_seed[seed] for seed in sorted(by_seed)]
    if not runs:
        return [same] if about.items() <= same.items() else []  # written before runs were
    told = [joined(cell.name, runs) | about]
    for name in runs[0].get("beside", {}):
        draws = [{"errors": run["beside"][name]} for run in runs]
        told.append(joined(f"{name}, {cell.overrides['data.labels']} labels a class", draws, baseline=True))
    return told


def kept(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a row keeps of one run."""
    beside = {name: counts(wrong) for name, wrong in record.get("beside", {}).items()}
    run = {"seed": record["asked"]["seed"], **{key: record[key] for key in COST}}
    return run | {"errors": counts(record["wrong"])} | ({"beside": beside} if beside else {})


def counts(wrong: Mapping[str, Mapping[str, Any]]) -> Errors:
    """Of samples told wrongly by their indices."""
    return {metric: [len(told["indices"]), told["samples"]] for metric, told in wrong.items()}


def joined(system: str, runs: Sequence[Mapping[str, Any]], baseline: bool = False) -> dict[str, Any]:
    """A row: mean minutes, each run, and the figures over all with their intervals."""
    cost = {key: mean(run[key] for run in runs) for key in COST if key in runs[0]}
    made = []
    for metric, (_, samples) in runs[0]["errors"].items():
        errors = torch.tensor([run["errors"][metric][0] for run in runs])
        right = torch.arange(samples) >= errors.unsqueeze(1)  # how many counts, not which
        made.append(Row(system, metric, float(right.double().mean()), *interval(right), baseline))
    return {"system": system, **cost, "runs": list(runs), "figures": figures(made)}


def baselines(path: Path, before: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of what needs no training."""
    if not path.is_file():
        return [before[name] for name in (UNTRAINED, PIXELS) if name in before]
    return [
        joined(name, [{"errors": counts(wrong)} for wrong in measured], baseline=True)
        for name, measured in read(path).items()
    ]


def markdown(row: Mapping[str, Any]) -> str:
    """A row of a table: the system, its figures with their intervals, its runs and processor minutes."""
    cells = [row["system"]]
    for one in row["figures"]:
        value, low, high = (f"{one[key]:.3f}".removeprefix("0") for key in ("value", "low", "high"))
        cells.append(f"{one['metric']} {value} ({low} to {high})")
    if "processor_minutes" in row:
        cells += [f"{len(row.get('runs', row.get('seeds', [])))}", f"{row['processor_minutes']:.1f}"]
    return f"| {' | '.join(cells)} |"
