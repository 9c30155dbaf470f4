"""Supervised classification.

Shapes: N sequences, B samples of n entries, K classes, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from ..tokenizers.errors import UserError
from ..tokenizers.tokens import Tokens
from ..tokenizers.view import View
from .objective import Branch, Loss, Predictor, Read, Spec, Step, Term

#: Label of an entry that has none; it is left out of the loss.
UNLABELLED = -1


class Classification(Predictor):
    """Cross-entropy on one linear head (Dosovitskiy et al. 2021).

    Targets are `label`: `(n,)` class indices, where -1 is unlabelled, or `(n, K)` soft labels
    (mixup), where a row of zeros is unlabelled. A sample of several sequences (a series of many
    channels) is pooled over them.

    Args:
        view: the view that carries the labels.
        pool: `class` for the class token, `mean` for the mean of the content tokens.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016).
        weight: factor of the loss.
    """

    needs_labels = True

    def __init__(
        self,
        view: str = "train",
        pool: Literal["class", "mean"] = "class",
        label_smoothing: float = 0.0,
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.view, self.pool, self.label_smoothing = view, pool, label_smoothing

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (pooling(self.view, self.pool),)

    def build(self, spec: Spec) -> None:
        """Make the linear head for the data's classes.

        Raises:
            UserError: the data has no labels, or only one class.
        """
        classes = classes_of(spec, self.view)
        self.head = nn.Linear(spec.width, len(classes))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, step: Step) -> Loss:
        """Cross-entropy over the labelled entries, and the accuracy where labels are hard.

        Where the view has ReaL labels, the target `accepted` `(n, K)` bool, that by them is told too: any of
        an entry's is right, and entries without one are left out (Beyer et al. 2020).

        Raises:
            UserError: evaluation meets a class that the model does not know.
        """
        label = step.views[self.view].targets["label"]
        if not self.training and label.ndim == 1 and int(label.max()) >= self.head.out_features:
            raise UserError(
                f"the data has classes besides the {self.head.out_features} that the model was trained on"
            )
        logits = self.predict(step[Read(self.view)], step.views[self.view])
        if label.ndim == 2:
            known = label.sum(1) > 0
            each = F.cross_entropy(logits, label, reduction="none", label_smoothing=self.label_smoothing)
            return Loss({"ce": Term((each * known).sum(), int(known.sum()))})
        labelled = label != UNLABELLED
        loss = F.cross_entropy(
            logits, label, reduction="sum", ignore_index=UNLABELLED, label_smoothing=self.label_smoothing
        )
        count = int(labelled.sum())
        told = logits.argmax(1)
        metrics: dict[str, Tensor | Term] = {}
        if count:
            metrics["accuracy"] = Term((told == label)[labelled].float().sum(), count)
        accepted = step.views[self.view].targets.get("accepted")
        if accepted is not None and accepted.any():
            right = accepted.gather(1, told[:, None]).float().sum()
            metrics["real_accuracy"] = Term(right, int(accepted.any(1).sum()))
        return Loss({"ce": Term(loss, count)}, metrics)

    def predict(self, tokens: Tokens, view: View) -> Tensor:
        """Logits `(n, K)`."""
        return self.head(pooled(tokens, self.pool, len(view)))


def pooling(view: str, pool: str, branch: Branch = "student") -> Read:
    """What `pooled` reads of a view."""
    return Read(view, branch, prefix=pool != "mean")


def pooled(tokens: Tokens, pool: str, entries: int) -> Tensor:
    """One vector an entry of the view, `(n, D)`: the class token or the mean of the content tokens.

    An entry of several sequences (a series of many channels) is the mean over them.
    """
    features = tokens.mean() if pool == "mean" else tokens.named(pool)
    if len(tokens) == entries:
        return features
    owner = torch.tensor(tokens.sample, device=features.device)
    counts = torch.bincount(owner, minlength=entries).unsqueeze(1)
    return features.new_zeros(entries, features.shape[1]).index_add(0, owner, features) / counts


def classes_of(spec: Spec, view: str) -> list[str]:
    """The classes of a view's data. Raises UserError where there are fewer than two."""
    classes = spec.facts(view).get("classes") or []
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "no labels"
        raise UserError(f"classification needs at least 2 classes, but the data has {found}")
    return list(classes)
