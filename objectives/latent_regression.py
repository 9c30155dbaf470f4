"""Regression of a teacher's layers at the frames that the student does not see: data2vec.

Shapes: S packed tokens, M masked tokens, L tokens of one sequence, D width, Y layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.layout import Layout
from ..backbones.schedule import Schedule
from ..tokenizers.errors import UserError
from ..tokenizers.tokens import Tokens
from ..tokenizers.view import View
from .objective import Loss, Objective, Read, Spec, Step, Term


class LatentRegression(Objective):
    """data2vec (Baevski et al. 2022, section 3): where its tokens are masked the student says the
    mean of the top layers of a teacher that sees the same input whole.

    The layers are the outputs of whole blocks; the paper takes those of their feed-forward parts.

    Args:
        layers: Y, the top blocks of the teacher that are averaged.
        norm: of each layer before that: `instance`, each channel over the tokens of its sequence (audio), or
            `layer`, each token over its channels (images).
        beta: where the error turns from squared to absolute (smooth L1); 0 for squared throughout.
        view: the masked view.
        weight: factor of the loss.
    """

    def __init__(
        self,
        layers: int = 8,
        norm: Literal["instance", "layer"] = "instance",
        beta: float = 0.0,
        view: str = "train",
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.layers, self.norm, self.beta, self.view = layers, norm, beta, view
        self.depth: int | None = None

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens, and the teacher's top layers (its end alone until this is built)."""
        if self.depth is None:
            return Read(self.view), Read(self.view, "teacher")
        return Read(self.view), *(Read(self.view, "teacher", layer) for layer in self._top(self.depth))

    def build(self, spec: Spec) -> None:
        """Make the head.

        Raises:
            UserError: the encoder has fewer blocks than are to be averaged.
        """
        if not 1 <= self.layers <= spec.depth:
            raise UserError(
                f"layers of the teacher must lie between 1 and the encoder's depth {spec.depth}, "
                f"but are {self.layers}"
            )
        self.depth = spec.depth
        self.head = nn.Linear(spec.width, spec.width)

    def forward(self, step: Step) -> Loss:
        """The error a masked token, and what tells a collapse.

        Metrics: `target_variance` and `prediction_variance` over the masked tokens, mean of the channels (at
        0 the teacher says the same everywhere); `explained`, the share of the targets' variance that is told.

        Raises:
            UserError: the view has no mask.
        """
        content, *layers = (step[read].content() for read in self.reads())
        if content.masked is None:
            raise UserError(f"regression of hidden layers needs a mask, but the view {self.view!r} has none")
        wanted = targets(layers, self.norm)[content.masked]
        told = self.head(content.values[content.masked])
        loss = Term(regression(told, wanted, self.beta).sum(), len(wanted))
        return Loss({"regression": loss}, _watch(told.detach(), wanted) if len(wanted) > 1 else {})

    def counts(self, batch: Mapping[str, View]) -> dict[str, float]:
        """Masked tokens."""
        masked = batch[self.view].masked
        return {} if masked is None else {"regression": float(masked.sum())}

    def _top(self, depth: int) -> range:
        return range(depth - self.layers + 1, depth + 1)


def targets(layers: Sequence[Tokens], norm: Literal["instance", "layer"]) -> Tensor:
    """Mean of normed layers, `(S, D)`; nothing of one sequence enters another's.

    Args:
        layers: Y layers of the same content tokens.
        norm: as for `LatentRegression`; without learnt factors in either case.
    """
    if norm == "layer":
        normed = [F.layer_norm(tokens.values, tokens.values.shape[1:]) for tokens in layers]
    else:
        normed = [Layout(tokens.lengths).per_length(_instance_norm, tokens.values) for tokens in layers]
    return torch.stack(normed).mean(0)


def regression(told: Tensor, wanted: Tensor, beta: float) -> Tensor:
    """Smooth L1 of each token, summed over its channels and divided by the root of their number, `(M,)`.

    `d^2 / (2 beta)` where |d| < beta, else `|d| - beta / 2` (eq. 2 of the paper); `d^2` for beta 0. The scale
    is fairseq's.

    Args:
        told, wanted: `(M, D)`.
        beta: see above.
    """
    each = F.smooth_l1_loss(told, wanted, reduction="none", beta=beta) if beta else (told - wanted).square()
    return each.sum(1) / told.shape[1] ** 0.5


def _instance_norm(x: Tensor) -> Tensor:
    """Each channel over the tokens of each sequence: `(n, L, D)` -> `(n, L, D)`."""
    variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
    return (x - mean) * (variance + 1e-5).rsqrt()


@torch.no_grad()
def _watch(told: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    variance = wanted.var(0, correction=0).mean()
    error = (told - wanted).square().mean()
    return {
        "target_variance": variance,
        "prediction_variance": told.var(0, correction=0).mean(),
        "explained": 1 - error / variance.clamp(min=1e-12),
    }
