"""Classification on a learnt weighted sum of layers, at several learning rates at once.

Shapes: n entries, R learning rates, Y layers, K classes, D width, S packed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from ..tokenizers.tokens import Tokens
from ..tokenizers.view import View
from .classification import UNLABELLED, classes_of, pooled
from .objective import Loss, Predictor, Read, Spec, Step, Term


class LayerClassification(Predictor):
    """SUPERB's probe (Yang et al. 2021): softmax-weighted sum of all layers, mean over time, linear head.

    One such probe is trained for each learning rate, side by side: a parameter kept at 1 / r of its size
    moves r times as far under AdamW, whose steps do not depend on the gradient's scale. Predictions
    are those of the probe that was best in the latest validation.

    Args:
        rates: R factors of the optimiser's learning rate.
        view: the view that carries `label` `(n,)`, -1 where there is none.
        weight: factor of the loss.
    """

    needs_labels = True

    rate: Tensor
    right: Tensor
    best: Tensor

    def __init__(
        self, rates: Sequence[float] = (1.0,), view: str = "train", weight: float | Schedule = 1.0
    ) -> None:
        super().__init__(weight)
        self.rates, self.view, self.depth = tuple(rates), view, 0

    def reads(self) -> tuple[Read, ...]:
        """The student's input and the output of every block; the end alone until it is built."""
        if not self.depth:
            return (Read(self.view),)
        return tuple(Read(self.view, layer=layer) for layer in range(self.depth + 1))

    def build(self, spec: Spec) -> None:
        """Make R probes for the data's classes, all zero: layers alike, classes alike.

        Raises:
            UserError: the data has no labels, or only one class.
        """
        classes, self.depth = classes_of(spec, self.view), spec.depth
        self.layers = nn.Parameter(torch.zeros(len(self.rates), spec.depth + 1))
        self.heads = nn.Parameter(torch.zeros(len(self.rates), len(classes), spec.width))
        self.biases = nn.Parameter(torch.zeros(len(self.rates), len(classes)))
        self.register_buffer("rate", torch.tensor(self.rates), persistent=False)
        self.register_buffer("right", torch.zeros(len(self.rates)), persistent=False)
        self.register_buffer("best", torch.tensor(0))

    def forward(self, step: Step) -> Loss:
        """Cross-entropy of each probe over the labelled entries, and in evaluation each one's accuracy."""
        view = step.views[self.view]
        label = view.targets["label"]
        logits = self.logits([step[read] for read in self.reads()], view)
        kept = label != UNLABELLED
        losses = F.cross_entropy(
            logits.flatten(0, 1), label.repeat(len(self.rates)), reduction="sum", ignore_index=UNLABELLED
        )
        right = (logits.argmax(-1) == label)[:, kept].float()
        self._follow(right.sum(1))
        metrics = {f"accuracy_{rate:g}": share for rate, share in zip(self.rates, right.mean(1), strict=True)}
        return Loss({"ce": Term(losses, int(kept.sum()))}, metrics if kept.any() else {})

    @torch.no_grad()
    def _follow(self, right: Tensor) -> None:
        """Count what each probe tells right since training paused, and keep the best one's number."""
        if self.training:
            self.right.zero_()
        else:
            self.right += right
            self.best.copy_(self.right.argmax())

    def logits(self, layers: Sequence[Tokens], view: View) -> Tensor:
        """`(R, n, K)`: every layer is normed over its channels first, so that none is louder."""
        pools = [
            pooled(
                tokens.with_values(F.layer_norm(tokens.values, tokens.values.shape[1:])), "mean", len(view)
            )
            for tokens in layers
        ]
        shares = (self.rate[:, None] * self.layers).softmax(1)
        mixed = torch.einsum("ry,ynd->rnd", shares, torch.stack(pools))
        heads, biases = self.rate[:, None, None] * self.heads, self.rate[:, None] * self.biases
        return torch.einsum("rnd,rkd->rnk", mixed, heads) + biases[:, None]

    def predict_from(self, layers: Sequence[Tokens], view: View) -> Tensor:
        """Logits `(n, K)` of the best probe."""
        return self.logits(layers, view)[self.best]
