"""`triptych evaluate knn` and `linear`: frozen features of a run, beside untrained ones and the raw input.

Shapes: S seeds, N samples of the test part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..tokenizers.errors import UserError
from .data import SPLITS, Data
from .evaluation.heads import Kind, Recipe
from .evaluation.labels import Truth, accuracy_rows, tell
from .evaluation.sweep import Parts, Sample, sweep
from .features import Reading, knn_predict, read_features
from .model import Model
from .panel import Row
from .run import Run, load
from .table import print_rows, read_json, record

OWN, UNTRAINED = "this run", "untrained encoder"

#: What an evaluation makes of the features of all parts: the class each seed names for each test sample,
#: `(S, N)`, and with which settings, in words.
Method = Callable[[Sequence[Parts]], tuple[Tensor, str]]


def knn(
    run: str,
    overrides: Mapping[str, Any],
    k: int = 20,
    temperature: float = 0.07,
    pool: str = "auto",
    beside: str | None = None,
    json: str | None = None,
) -> list[Row]:
    """k nearest neighbours on frozen features (DINO's protocol), as a table and as JSON."""

    def method(readings: Sequence[Parts]) -> tuple[Tensor, str]:
        ((train, _, test),) = (parts.single() for parts in readings)
        return knn_predict(train.x, train.label, test.x, k, temperature)[None], ""

    name = f"kNN accuracy (k={k}, T={temperature:g})"
    return _report(load(run), overrides, name, method, [(Reading(pool),)], beside, json)


def linear(
    run: str,
    overrides: Mapping[str, Any],
    head: Kind = "linear",
    pool: str | None = None,
    blocks: int | None = None,
    epochs: int = 100,
    seeds: int = 3,
    beside: str | None = None,
    json: str | None = None,
) -> list[Row]:
    """Classifiers on frozen features, a sweep of learning rates at once, as a table and as JSON.

    Args:
        run: the run directory.
        overrides: other data, as `{"data.path": "DIR"}`.
        head: `linear`, or `nonlinear` for SiT's hidden layer of 1,024 and tanh.
        pool: what of the tokens is read (see `Reading`); tokens parted by commas have a head each, whose
            logits are averaged (SiT). None tries the class token with and without the mean.
        blocks: last blocks that are read side by side. None tries 1 and 4.
        epochs: passes over the train part.
        seeds: of the heads' first weights and of the order.
        beside: a run trained from scratch with labels, whose own head is measured too.
        json: file for the figures.
    """
    opened = load(run)
    readings = _readings(opened.model, pool, blocks)
    recipe = Recipe(head, epochs)
    name = f"{head.replace('non', 'non-')} probe accuracy"
    return _report(opened, overrides, name, lambda parts: sweep(parts, recipe, seeds), readings, beside, json)


def _readings(model: Model, pool: str | None, blocks: int | None) -> list[tuple[Reading, ...]]:
    """The grid of DINO and DINOv2: the last block or four, with or without the mean of the patches."""
    prefixes = {name for tokenizer in model.tokenizers.values() for name in tokenizer.prefix}  # type: ignore[union-attr]
    pools = [pool] if pool is not None else ["class", "class+mean"] if "class" in prefixes else ["auto"]
    depths = [blocks] if blocks is not None else sorted({1, min(4, model.encoder.depth)})
    return [tuple(Reading(one, blocks=n) for one in way.split(",")) for way in pools for n in depths]


def _report(
    run: Run,
    overrides: Mapping[str, Any],
    metric: str,
    method: Method,
    readings: Sequence[tuple[Reading, ...]],
    beside: str | None,
    json: str | None,
) -> list[Row]:
    from rich.console import Console

    data = run.data(overrides)
    rows, told = compare(run, data, metric, method, readings)
    if beside is not None:
        own_rows = sum(row.system in (OWN, UNTRAINED) for row in rows)
        rows[own_rows:own_rows] = scratch_rows(load(beside), overrides, metric)
    own, used = (str(path) for path in (_path(run.config), overrides.get("data.path", _path(run.config))))
    elsewhere = "" if own == used else f", on {used}"
    print_rows(f"{metric}, {run.directory}{elsewhere}", rows)
    Console().print(f"Trained on {own}, evaluated on {used}: {told}", highlight=False, soft_wrap=True)
    record(run.directory, metric + elsewhere, rows, json)
    return rows


def compare(
    run: Run, data: Data, metric: str, method: Method, readings: Sequence[tuple[Reading, ...]]
) -> tuple[list[Row], str]:
    """The run, an untrained encoder of its shape, the raw input and the largest class, on the test part.

    Returns:
        The rows, and in words how many samples there were and what was chosen for each row.

    Raises:
        UserError: the data has fewer than two classes, or a part without samples or labels.
    """
    own = gather(run.model, data, readings)
    train, val, test = own[0].single()
    found = len(train.label.unique())
    if found < 2:
        raise UserError(f"an evaluation by classes needs at least 2 in the train part, but found {found}")
    systems = {OWN: own, UNTRAINED: gather(run.untrained(), data, readings)}
    raw = [Sample(part.raw, part.label) for part in (train, val, test) if part.raw is not None]
    if len(raw) == len(SPLITS) and len({sample.x.shape[1] for sample in raw}) == 1:
        systems["raw input"] = [Parts("", ((raw[0],), (raw[1],), (raw[2],)))]
    rows: list[Row] = []
    chosen: list[str] = []
    truth = Truth(test.label, test.accepted)
    for system, parts in systems.items():
        told, settings = method(parts)
        rows += accuracy_rows(system, metric, told, truth, baseline=system != OWN)
        chosen += [f"{system}: {settings}"] if settings else []
    largest = torch.full_like(test.label, int(train.label.bincount().argmax()))
    rows += accuracy_rows("largest class", metric, largest[None], truth)
    counts = f"{len(train.label)} samples to train, {len(val.label)} to choose, {len(test.label)} to test"
    return rows, "\n  ".join([f"{counts}, {found} classes", *chosen])


def gather(model: Model, data: Data, readings: Sequence[tuple[Reading, ...]]) -> list[Parts]:
    """Labelled features of every part of the data, for each of the readings; one pass of the encoder a part.

    Raises:
        UserError: a part has no labelled samples.
    """
    flat = [reading for group in readings for reading in group]
    columns: list[list[Sample]] = []
    for split in SPLITS:
        if not data.names(split):
            raise UserError(f"an evaluation needs all parts of the data, but the {split} part has no samples")
        found = [one.labelled() for one in read_features(model, data.plain(split), flat)]
        if not len(found[0].label):
            raise UserError(f"an evaluation needs labels, but the {split} part has none")
        columns.append([Sample(one.x, one.label, one.raw, one.accepted) for one in found])
    parts, start = [], 0
    for group in readings:
        here = slice(start, start + len(group))
        start += len(group)
        train, val, test = (tuple(column[here]) for column in columns)
        parts.append(Parts(",".join(map(str, group)), (train, val, test)))
    return parts


def scratch_rows(run: Run, overrides: Mapping[str, Any], metric: str) -> list[Row]:
    """The accuracy of a supervised run's own head: what training from scratch gives for its time."""
    told, truth = tell(run, overrides)
    trained = read_json(run.directory / "metrics.json").get("fit", {}).get("seconds")
    took = "" if trained is None else f" ({trained:.0f} s)"
    return accuracy_rows(f"from scratch: {run.directory}{took}", metric, told[None], truth)


def _path(config: Mapping[str, Any]) -> Any:
    return config["data"].get("init_args", {}).get("path", "its own data")
