"""What the labels of a test part say of a run, of its largest class, and of any prediction.

Shapes: S seeds, N samples of the test part, n entries of a view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...objectives.classification import UNLABELLED
from ...tokenizers.errors import UserError
from ..panel import Row
from ..run import Run
from .intervals import interval


@torch.no_grad()
def told_rightly(run: Run, overrides: Mapping[str, Any] | None = None) -> Tensor:
    """`(N,)` bool: which labelled test samples a supervised run's own head tells rightly."""
    right = []
    for batch in run.data(overrides).plain("test"):
        (view,) = batch.values()
        label = label_of(view.targets)
        right.append((run.model.predict(view).argmax(1) == label)[label != UNLABELLED])
    return torch.cat(right)


def accuracy_row(system: str, metric: str, right: Tensor, baseline: bool = True) -> Row:
    """Accuracy and its interval from which test samples each seed told rightly, `(S, N)` bool."""
    return Row(system, metric, float(right.double().mean()), *interval(right), baseline)


def largest_class(run: Run) -> Tensor:
    """`(N,)` bool: what the most frequent class of the train part gets right."""
    data = run.data()
    train, test = (
        torch.cat([label_of(view.targets) for batch in data.plain(split) for view in batch.values()])
        for split in ("train", "test")
    )
    known = train[train != UNLABELLED]
    return test[test != UNLABELLED] == known.bincount().argmax()


def label_of(targets: Mapping[str, Tensor]) -> Tensor:
    """`(n,)` classes of a view's entries. Raises UserError where there are none."""
    if "label" not in targets:
        raise UserError("accuracies need labelled data, but the data has no labels")
    return targets["label"]
