"""Sets of classifiers trained together on frozen features: one for every learning rate, in one pass.

Shapes: H heads, B samples, D feature width, M hidden width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import generator, seeded

#: Learning rates tried together: three a decade, from 1e-4 to 1.
RATES = tuple(10 ** (-4 + i / 3) for i in range(13))

#: What stands between features and classes: nothing, or SiT's linear layer of `HIDDEN` and tanh.
Kind = Literal["linear", "nonlinear"]
HIDDEN = 1024
MOMENTUM = 0.9


@dataclass(frozen=True)
class Recipe:
    """How heads are trained: SGD with momentum .9 and no weight decay along a cosine, as DINO's.

    Attributes:
        kind: of head.
        epochs: passes over the train part.
        batch: samples a step.
        rates: learning rates, one head each.
    """

    kind: Kind = "linear"
    epochs: int = 100
    batch: int = 128
    rates: tuple[float, ...] = RATES


class Heads(nn.Module):
    """H classifiers of the same features, side by side.

    They standardise what they are given by the train part's mean and deviation, MAE's norm without
    parameters (He et al. 2022, appendix A), so that one range of learning rates suits all features.

    Args:
        x: `(B, D)` train features.
        classes: K.
        kind: linear, or with a hidden layer of `HIDDEN` and tanh (SiT's non-linear head).
        count: H.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, x: Tensor, classes: int, kind: Kind, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("scale", x.std(0, correction=0).clamp(min=1e-6))
        widths = [x.shape[1], classes] if kind == "linear" else [x.shape[1], HIDDEN, classes]
        # heads differ in their learning rate alone, so all start from the same weights
        deviation = [0.01] if kind == "linear" else [widths[0] ** -0.5, 0.01]
        self.weights = nn.ParameterList(
            (std * torch.randn(inputs, outputs)).expand(count, -1, -1).clone()
            for std, inputs, outputs in zip(deviation, widths[:-1], widths[1:], strict=True)
        )
        self.biases = nn.ParameterList(torch.zeros(count, 1, width) for width in widths[1:])

    def forward(self, x: Tensor) -> Tensor:
        """`(B, D)` -> logits `(H, B, K)`."""
        first, *deeper = zip(self.weights, self.biases, strict=True)
        # one product for all heads: several times faster than one for each
        product = ((x - self.mean) / self.scale) @ first[0].transpose(0, 1).flatten(1)
        x = product.view(len(x), len(first[0]), -1).transpose(0, 1) + first[1]
        for weight, bias in deeper:
            x = torch.baddbmm(bias, x.tanh(), weight)
        return x


@dataclass(frozen=True)
class Probe:
    """Trained heads on one or several features of each sample; several vote by the mean of their logits.

    SiT reads its rotation and its contrastive token so, with a head each and the sum of both losses.
    """

    parts: tuple[Heads, ...]

    @torch.no_grad()
    def logits(self, xs: Sequence[Tensor]) -> Tensor:
        """`(H, B, K)` from the features `(B, D)` of each part."""
        return torch.stack([heads(x) for heads, x in zip(self.parts, xs, strict=True)]).mean(0)


def train_heads(xs: Sequence[Tensor], label: Tensor, recipe: Recipe, classes: int, seed: int = 0) -> Probe:
    """One probe for every learning rate of the recipe, all trained in one pass over the same batches.

    Args:
        xs: features `(B, D)` of the train part, one for each part of the probe.
        label: `(B,)`.
        recipe: how.
        classes: K.
        seed: of the first weights and of the order.
    """
    rates = torch.tensor(recipe.rates)[:, None, None]
    with seeded(seed, "heads"):
        probe = Probe(tuple(Heads(x, classes, recipe.kind, len(rates)) for x in xs))
    parameters = [p for heads in probe.parts for p in heads.parameters()]
    velocities = [torch.zeros_like(p) for p in parameters]
    order = generator(seed, "order of heads")
    batches = math.ceil(len(label) / recipe.batch)
    for step in range(recipe.epochs * batches):
        if step % batches == 0:
            shuffled = torch.randperm(len(label), generator=order).tensor_split(batches)
        index = shuffled[step % batches]
        loss = torch.stack(
            [_loss(heads(x[index]), label[index]) for heads, x in zip(probe.parts, xs, strict=True)]
        ).sum()
        falling = 0.5 + 0.5 * math.cos(math.pi * step / (recipe.epochs * batches))
        slopes = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, v, slope in zip(parameters, velocities, slopes, strict=True):
                v.mul_(MOMENTUM).add_(slope)
                p.sub_(rates * falling * v)
    return probe


def _loss(logits: Tensor, label: Tensor) -> Tensor:
    """The sum over heads of each one's mean cross-entropy, so that none feels the others."""
    heads = len(logits)
    return F.cross_entropy(logits.flatten(0, 1), label.repeat(heads), reduction="sum") / len(label)
