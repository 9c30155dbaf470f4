"""`triptych evaluate`: frozen features of a run, beside untrained ones and the raw input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..tokenizers.errors import UserError
from .data import Data, Split
from .features import Features, Pool, features, knn_predict, linear_predict, wilson
from .model import Model
from .panel import Row
from .run import Run, load
from .table import print_rows, record

EVALUATED: tuple[Split, ...] = ("train", "test")

#: (train features, train labels, query) -> predicted classes.
Classifier = Callable[[Tensor, Tensor, Tensor], Tensor]


def knn(
    run: str,
    overrides: Mapping[str, Any],
    k: int = 20,
    temperature: float = 0.07,
    pool: Pool = "auto",
    json: str | None = None,
) -> list[Row]:
    """k nearest neighbours on frozen features (DINO's protocol), as a table and as JSON."""
    name = f"kNN accuracy (k={k}, T={temperature:g})"
    return _report(
        load(run), overrides, name, lambda x, y, q: knn_predict(x, y, q, k, temperature), pool, json
    )


def linear(run: str, overrides: Mapping[str, Any], pool: Pool = "auto", json: str | None = None) -> list[Row]:
    """A linear classifier on frozen features, as a table and as JSON."""
    return _report(load(run), overrides, "linear probe accuracy", linear_predict, pool, json)


def _report(
    run: Run, overrides: Mapping[str, Any], metric: str, classify: Classifier, pool: Pool, json: str | None
) -> list[Row]:
    rows = compare(run, overrides, metric, classify, pool)
    print_rows(f"{metric}, {run.directory}", rows)
    record(run.directory, metric, rows, json)
    return rows


def compare(
    run: Run, overrides: Mapping[str, Any], metric: str, classify: Classifier, pool: Pool = "auto"
) -> list[Row]:
    """The run, an untrained encoder of its shape, the raw input and the largest class, on the test part.

    Raises:
        UserError: the data has fewer than two classes.
    """
    data = run.data(overrides)
    train, test = _splits(run.model, data, pool)
    found = len(train.label.unique())
    if found < 2:
        raise UserError(f"an evaluation by classes needs at least 2 in the train part, but found {found}")
    fresh = _splits(run.untrained(), data, pool)
    rows = [
        _row("this run", metric, train, test, classify(train.x, train.label, test.x), baseline=False),
        _row("untrained encoder", metric, train, test, classify(fresh[0].x, train.label, fresh[1].x)),
    ]
    if train.raw is not None and test.raw is not None and train.raw.shape[1] == test.raw.shape[1]:
        rows.append(_row("raw input", metric, train, test, classify(train.raw, train.label, test.raw)))
    largest = torch.full_like(test.label, int(train.label.bincount().argmax()))
    return [*rows, _row("largest class", metric, train, test, largest)]


def _splits(model: Model, data: Data, pool: Pool) -> tuple[Features, Features]:
    """Labelled features of the train and the test part."""
    train, test = (features(model, data.plain(split), pool=pool).labelled() for split in EVALUATED)
    return train, test


def _row(
    system: str, metric: str, train: Features, test: Features, predicted: Tensor, baseline: bool = True
) -> Row:
    correct = int((predicted == test.label).sum())
    low, high = wilson(correct, len(test.label))
    return Row(system, metric, correct / len(test.label), low, high, baseline)
