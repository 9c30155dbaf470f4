"""Which way up: the quarter turn of a view is its label (Gidaris et al. 2018).

Shapes: n entries of a view, D width.
"""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from .classification import pooled, pooling
from .objective import Loss, Objective, Read, Spec, Step, Term

TURNS = 4


class Rotation(Objective):
    """Four-way cross-entropy on one linear head; the view gives the target `rotation` `(n,)`, 0 to 3.

    Args:
        view: the view that was turned.
        pool: prefix token that the head reads (SiT gives it one of its own, `rotation`), or `mean`.
        weight: factor of the loss.
    """

    def __init__(self, view: str = "train", pool: str = "rotation", weight: float | Schedule = 1.0) -> None:
        super().__init__(weight)
        self.view, self.pool = view, pool

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (pooling(self.view, self.pool),)

    def build(self, spec: Spec) -> None:
        """Make the linear head."""
        self.head = nn.Linear(spec.width, TURNS)

    def forward(self, step: Step) -> Loss:
        """Cross-entropy over the entries, and the share of turns that were told rightly."""
        view = step.views[self.view]
        turn = view.targets["rotation"]
        logits = self.head(pooled(step[Read(self.view)], self.pool, len(view)))
        accuracy = (logits.argmax(1) == turn).float().mean()
        loss = F.cross_entropy(logits, turn, reduction="sum")
        return Loss({"ce": Term(loss, len(turn))}, {"accuracy": accuracy})
