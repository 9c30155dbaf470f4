"""What the labels of a test part say of a run, of its largest class, and of any prediction.

Shapes: S seeds, N samples of the test part, n entries of a view, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...objectives.classification import UNLABELLED
from ...tokenizers.errors import UserError
from ..panel import Row
from ..run import Run
from .intervals import interval

#: What a metric is called when it counts every class that is right for an image (Beyer et al. 2020).
REAL = ", ReaL labels"


@dataclass(frozen=True)
class Truth:
    """What is right for each test sample.

    Attributes:
        label: `(N,)` class indices.
        accepted: `(N, K)` bool, all classes that are right, where the data say so (ReaL labels), or None.
    """

    label: Tensor
    accepted: Tensor | None = None


@torch.no_grad()
def tell(run: Run, overrides: Mapping[str, Any] | None = None) -> tuple[Tensor, Truth]:
    """The classes `(N,)` that a run's own head names for the labelled test samples, and the truth."""
    told, labels, accepted = [], [], []
    for batch in run.data(overrides).plain("test"):
        (view,) = batch.values()
        label = label_of(view.targets)
        known = label != UNLABELLED
        told.append(run.model.predict(view).argmax(1)[known])
        labels.append(label[known])
        if "accepted" in view.targets:
            accepted.append(view.targets["accepted"][known])
    return torch.cat(told), Truth(torch.cat(labels), torch.cat(accepted) if accepted else None)


def accuracy_rows(system: str, metric: str, told: Tensor, truth: Truth, baseline: bool = True) -> list[Row]:
    """Accuracy with its interval, and where several classes may be right, that by ReaL labels.

    The latter counts a sample as right when any accepted class is told, and leaves out what has none.

    Args:
        system, metric: of the rows.
        told: `(S, N)` classes that each seed names.
        truth: of the N samples.
        baseline: whether it is anything but this run.
    """
    counted = {metric: told == truth.label}
    if truth.accepted is not None:
        kept = truth.accepted.any(1)
        counted[metric + REAL] = truth.accepted[torch.arange(len(kept)), told][:, kept]
    return [
        Row(system, name, float(right.double().mean()), *interval(right), baseline)
        for name, right in counted.items()
    ]


def largest_class(run: Run) -> int:
    """The most frequent class of the train part's labels."""
    label = torch.cat([label_of(v.targets) for batch in run.data().plain("train") for v in batch.values()])
    return int(label[label != UNLABELLED].bincount().argmax())


def label_of(targets: Mapping[str, Tensor]) -> Tensor:
    """`(n,)` classes of a view's entries. Raises UserError where there are none."""
    if "label" not in targets:
        raise UserError("accuracies need labelled data, but the data has no labels")
    return targets["label"]
