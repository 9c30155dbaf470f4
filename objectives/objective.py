"""The types every objective is written against: what it reads, what it returns.

Shapes: N sequences, S packed tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backbones.schedule import Schedule
from ..tokenizers.tokens import Tokens
from ..tokenizers.view import View

Branch = Literal["student", "teacher"]


@dataclass(frozen=True)
class Read:
    """One thing an objective needs: a view, through a branch, at a layer (-1 the end, 0 the input).

    The teacher reads every view whole: clean, nothing masked, nothing hidden. With `prefix` only the prefix
    tokens are read, and the encoder may leave out the others: what is read is the same, and it costs less.
    """

    view: str
    branch: Branch = "student"
    layer: int = -1
    prefix: bool = field(default=False, compare=False)


def union(reads: Iterable[Read]) -> tuple[Read, ...]:
    """Each read once, of all tokens where any wants all."""
    found: dict[Read, bool] = {}
    for read in reads:
        found[read] = found.get(read, True) and read.prefix
    return tuple(replace(read, prefix=prefix) for read, prefix in found.items())


@dataclass(frozen=True)
class TokenSpec:
    """What a view's tokens look like.

    Attributes:
        modality: which tokenizer makes them.
        source_dim: values that a token's source holds.
        feature_dim: width of a token's features.
        prefix: names of the prefix tokens.
        length: content tokens of one sequence of the data's own length, where the data has one.
    """

    modality: str
    source_dim: int | None
    feature_dim: int | None
    prefix: tuple[str, ...]
    length: int | None = None


@dataclass(frozen=True)
class Spec:
    """All that an objective may size itself by; saved with the model, so that loading needs no data.

    Attributes:
        width: D of the encoder.
        depth: blocks of the encoder.
        views: what each view's tokens look like.
        data: facts of each modality's data: `classes`, `alphabet`, `channels`, `rate`, `horizon` ...
    """

    width: int
    depth: int
    views: Mapping[str, TokenSpec]
    data: Mapping[str, Mapping[str, Any]]

    def facts(self, view: str) -> Mapping[str, Any]:
        """The data's facts for the modality of `view`."""
        return self.data[self.views[view].modality]


@dataclass
class Step:
    """One training or validation step, as objectives see it.

    Attributes:
        views: the batch.
        encoded: the encoder's tokens for everything that was read.
        progress: share of the run that is done, 0 to 1.
        epoch: epochs done, with fractions.
    """

    views: Mapping[str, View]
    encoded: Mapping[Read, Tokens]
    progress: float = 0.0
    epoch: float = 0.0

    def __getitem__(self, read: Read) -> Tokens:
        """The tokens of one read."""
        return self.encoded[read]


@dataclass(frozen=True)
class Term:
    """One summand of a loss: `weight * sum / count`.

    Attributes:
        sum: summed over what it counts (tokens, samples); a scalar.
        count: how many.
        weight: factor of the term.
        scope: `sample` if it is a sum over samples that do not see each other, `batch` if it
            looks across the batch (diversity, KoLeo, NT-Xent, centring).
    """

    sum: Tensor
    count: float
    weight: float | Tensor = 1.0
    scope: Literal["sample", "batch"] = "sample"

    @property
    def mean(self) -> Tensor:
        """`sum / count`; zero when nothing was counted."""
        return self.sum / self.count if self.count else torch.nan_to_num(self.sum) * 0.0


@dataclass(frozen=True)
class Loss:
    """Named terms, and figures to log beside them that nothing is trained on.

    A figure that counts some of the samples alone is a `Term`, so that its mean over batches is exact.
    """

    terms: dict[str, Term]
    metrics: Mapping[str, Tensor | Term] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The weighted sum of the terms' means."""
        return torch.stack([term.weight * term.mean for term in self.terms.values()]).sum()

    def over(self, counts: Mapping[str, float]) -> Loss:
        """The same with terms divided by the counts given.

        With the mean count over the micro-batches and ranks of an optimiser step, the mean of
        their gradients is the gradient of them all taken together.

        Args:
            counts: by term; a term that is missing keeps its own.
        """
        terms = {name: replace(term, count=counts.get(name, term.count)) for name, term in self.terms.items()}
        return replace(self, terms=terms)


class Objective(nn.Module):
    """Encoded tokens -> `Loss`. It owns its heads, logs nothing and knows no trainer.

    State that follows the batches (a centre, say) moves only while `self.training`. An objective
    whose view a batch does not hold is left out of that step.

    Args:
        weight: factor of all its terms: fixed, or a schedule over the run.
    """

    #: Whether it learns from entries with a label alone.
    needs_labels = False
    #: Power of a variance by which learned weights divide its loss: .5, a deviation, for absolute errors.
    precision = 1.0

    def __init__(self, weight: float | Schedule = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def reads(self) -> tuple[Read, ...]:
        """Everything it needs of the encoder."""
        raise TypeError(f"{type(self).__name__} must define reads()")

    def build(self, spec: Spec) -> None:
        """Make its networks; called once, when the data's facts are known."""

    def forward(self, step: Step) -> Loss:
        """The loss of one step."""
        raise TypeError(f"{type(self).__name__} must define forward()")

    def counts(self, batch: Mapping[str, View]) -> dict[str, float]:
        """What its terms will count for a batch, where that is known before the forward pass.

        Masks and labels come with the batch, so a term over masked tokens can tell. A term that
        is not named is divided by its own count in each micro-batch of an optimiser step.
        """
        return {}

    def averaged(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """(student, average) pairs of heads that the teacher's momentum moves."""
        return ()

    def after_backward(self, progress: float, epoch: float) -> None:
        """Called when gradients are there and before the optimiser steps: clear those to be frozen."""


class Predictor(Objective):
    """An objective whose head is used after training."""

    def predict(self, tokens: Tokens, view: View) -> Any:
        """What the head says of one view's tokens: logits, quantiles, emissions."""
        raise TypeError(f"{type(self).__name__} must define predict()")

    def predict_from(self, layers: Sequence[Tokens], view: View) -> Any:
        """The same of all that it reads, in the order of `reads`; a head of several layers defines it."""
        (tokens,) = layers
        return self.predict(tokens, view)
