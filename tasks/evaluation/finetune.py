"""`triptych evaluate finetune`: a run's encoder trained on with labels, beside the same from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...objectives.classification import Classification
from ...objectives.layer_classification import LayerClassification
from ...tokenizers.errors import UserError
from ..build import build_model
from ..config import Merged, merge
from ..fit import fit
from ..panel import Row
from ..run import Run, load
from ..table import print_rows, record
from ..yaml12 import dump
from .labels import Truth, accuracy_rows, largest_class, tell

RECIPE = "vision/finetune"
TUNED, SCRATCH, LARGEST = "fine-tuned from this run", "from scratch, equal steps", "largest class"
METRIC = "accuracy"


def finetune(
    run: str,
    overrides: Mapping[str, Any],
    config: str | None = None,
    seeds: int = 3,
    output: str | None = None,
    json: str | None = None,
) -> list[Row]:
    """Train the run's encoder with labels, and one of its shape from scratch for as many steps; test both.

    Args:
        run: the run directory, of any modality whose data have labels.
        overrides: dotted changes of the recipe, such as other data or `model.optimizer.layer_decay`.
        config: the recipe; `vision/finetune` unless given, of which other modalities take all but the views.
        seeds: of heads, order and augmentation, each with a training of either kind.
        output: folder for the trained runs; `RUN/finetune-N` unless given.
        json: file for the figures.

    Raises:
        UserError: the data have no labels, or the recipe has no classifier.
    """
    opened = load(run)
    if config is not None:
        _check_classifier(config)
    folder = _folder(opened.directory, output)
    told: dict[str, list[Tensor]] = {TUNED: [], SCRATCH: []}
    truth, largest = Truth(torch.empty(0)), 0
    for seed in range(seeds):
        for system, name in ((TUNED, "tuned"), (SCRATCH, "scratch")):
            recipe = tuning(opened, overrides, config, seed, folder, scratch=system == SCRATCH)
            init = None if system == SCRATCH else run
            trained = load(fit(recipe, output=str(folder / f"{name}-{seed}"), init=init))
            named, truth = tell(trained)
            told[system].append(named)
            largest = largest_class(trained)
    rows: list[Row] = []
    for system, named_by_seed in told.items():
        rows += accuracy_rows(system, METRIC, torch.stack(named_by_seed), truth, baseline=system != TUNED)
    rows += accuracy_rows(LARGEST, METRIC, torch.full_like(truth.label, largest)[None], truth)
    print_rows(f"fine-tuning of {run}, {seeds} seeds, runs in {folder}", rows)
    record(opened.directory, f"fine-tuning, {folder.name}", rows, json)
    return rows


def _check_classifier(config: str) -> None:
    model = build_model(merge([config]).values["model"], config)
    if not any(isinstance(one, Classification | LayerClassification) for _, one in model.objective):
        raise UserError(f"expected --config to name a recipe that classifies, but {config!r} does not")


def tuning(
    run: Run, overrides: Mapping[str, Any], config: str | None, seed: int, folder: Path, scratch: bool
) -> Merged:
    """The recipe for one training: the run's encoder and data, the config's objective, views and schedule.

    From scratch all layers learn from the first step at the full rate, whatever the recipe slows or freezes.
    """
    values = deepcopy(merge([config or RECIPE]).values)
    model, own = values["model"], run.config["model"]
    model["tokenizers"], model["encoder"] = own["tokenizers"], own["encoder"]
    if config is None and not any("class" in t.prefix for t in run.model.tokenizers.values()):  # type: ignore[operator]
        model["objectives"]["classification"]["init_args"]["pool"] = "mean"
    values["data"] = _data(values["data"], run.config.get("data", values["data"]))
    merged = merge([_write(folder / "recipe.yaml", values)], {"seed": seed, **overrides})
    if not scratch:
        return merged
    values = merged.values
    for slower in ("layer_decay", "freeze"):
        values["model"].get("optimizer", {}).pop(slower, None)
    return merge([_write(folder / "scratch.yaml", values)])


def _data(recipe: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The run's data with the recipe's views and batches; of another modality, with one bare view `train`."""
    theirs, ours = recipe.get("init_args", {}), own.get("init_args", {})
    if recipe["class_path"] == own["class_path"]:
        return {
            **own,
            "init_args": {**ours, **{k: v for k, v in theirs.items() if k != "path" or k not in ours}},
        }
    return {**own, "init_args": {**ours, "views": {"train": {}}}}


def _folder(run: Path, output: str | None) -> Path:
    folder, number = run / "finetune-1" if output is None else Path(output), 1
    while output is None and folder.exists():
        number += 1
        folder = run / f"finetune-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(dump(values), encoding="utf-8")
    return path
