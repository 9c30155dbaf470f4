"""Probes on several readings of frozen features: the best is chosen on validation data, then tested.

Shapes: S seeds, N samples of the test part, H learning rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .heads import Probe, Recipe, train_heads


@dataclass(frozen=True)
class Sample:
    """Labelled features of one part: `x` `(N, D)`, `label` `(N,)`, the raw input and ReaL labels or None."""

    x: Tensor
    label: Tensor
    raw: Tensor | None = None
    accepted: Tensor | None = None


@dataclass(frozen=True)
class Parts:
    """One reading of the train, validation and test parts; several `Sample`s a part have a head each."""

    name: str
    splits: tuple[tuple[Sample, ...], tuple[Sample, ...], tuple[Sample, ...]]

    def single(self) -> tuple[Sample, Sample, Sample]:
        """The first sample of each part: what one vector an entry comes to."""
        train, val, test = (samples[0] for samples in self.splits)
        return train, val, test


@dataclass(frozen=True)
class Candidate:
    """The probes of one reading, one a seed, and how the validation part judges each learning rate."""

    parts: Parts
    probes: tuple[Probe, ...]
    accuracy: Tensor
    loss: Tensor


def sweep(readings: Sequence[Parts], recipe: Recipe, seeds: int = 3) -> tuple[Tensor, str]:
    """Train every learning rate on every reading, choose one of each on validation data, and test it.

    Returns:
        The class each seed names for each test sample, `(S, N)`, and the choice in words.
    """
    chosen, rate = choose(readings, recipe, seeds)
    test = chosen.parts.splits[2]
    told = [probe.logits([s.x for s in test])[rate].argmax(1) for probe in chosen.probes]
    name = f"{chosen.parts.name}, " if chosen.parts.name else ""
    return torch.stack(told), f"{name}lr {recipe.rates[rate]:.2g}"


def choose(readings: Sequence[Parts], recipe: Recipe, seeds: int) -> tuple[Candidate, int]:
    """The reading and the learning rate that the validation part likes best, by their place.

    By mean accuracy over the seeds, and among equals by cross-entropy; the test part has no say in it.
    """
    classes = 1 + max(int(sample.label.max()) for parts in readings for sample in parts.single())
    tried = [_candidate(parts, recipe, seeds, classes) for parts in readings]
    ranked = [
        (round(accuracy, 9), -loss, index, rate)
        for index, one in enumerate(tried)
        for rate, (accuracy, loss) in enumerate(zip(one.accuracy.tolist(), one.loss.tolist(), strict=True))
    ]
    *_, index, rate = max(ranked)
    return tried[index], rate


def _candidate(parts: Parts, recipe: Recipe, seeds: int, classes: int) -> Candidate:
    train, val, _ = parts.splits
    xs, label = [sample.x for sample in train], train[0].label
    probes = tuple(train_heads(xs, label, recipe, classes, seed) for seed in range(seeds))
    judged = [_judge(probe, val) for probe in probes]
    accuracy, loss = (torch.stack(column).mean(0) for column in zip(*judged, strict=True))
    return Candidate(parts, probes, accuracy, loss)


def _judge(probe: Probe, val: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Accuracy and cross-entropy of each learning rate, `(H,)`; a head that ran away has neither."""
    logits = probe.logits([sample.x for sample in val])
    label = val[0].label
    loss = torch.stack([F.cross_entropy(one, label) for one in logits])
    finite = loss.isfinite()
    accuracy = (logits.argmax(2) == label).double().mean(1)
    return accuracy.where(finite, -torch.ones_like(accuracy)), loss.nan_to_num(1e9, 1e9).clamp(max=1e9)
