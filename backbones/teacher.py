"""The teacher: an exponential moving average of the student (Tarvainen and Valpola 2017)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from .schedule import Schedule


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that never asks for gradients and never drops anything."""
    return copy.deepcopy(module).requires_grad_(False).eval()


class Teacher(nn.Module):
    """Averages of tokenizers, encoder and predicting heads, and the rule by which every average moves.

    A head that predicts after training needs the average it was trained in step with, so it is averaged
    here with no word from its objective: that is the EMA of weights of supervised recipes. Heads that are
    averaged as part of the training (DINO's) stay with their objective; the model hands their pairs to
    `update`, so that one momentum serves the whole run.

    Args:
        momentum: share of the old average kept at each optimiser step; a number or a schedule
            (DINO: from .996 to 1 along a cosine).
        tokenizers: `averaged` as all else, or `shared` with the student, whose weights of the moment the
            teacher then reads with (data2vec).
    """

    tokenizers: nn.ModuleDict
    encoder: nn.Module
    heads: nn.ModuleDict

    def __init__(
        self,
        momentum: Schedule | float = 0.996,
        tokenizers: Literal["averaged", "shared"] = "averaged",
    ) -> None:
        super().__init__()
        self.momentum = momentum if isinstance(momentum, Schedule) else Schedule(momentum)
        self.shares_tokenizers = tokenizers == "shared"

    def build(
        self, tokenizers: nn.ModuleDict, encoder: nn.Module, heads: Mapping[str, nn.Module] | None = None
    ) -> None:
        """Start as a copy of the student; `heads` are the objectives that predict, by name."""
        self.tokenizers = frozen_copy(tokenizers)  # type: ignore[assignment]
        self.encoder = frozen_copy(encoder)
        self.heads = nn.ModuleDict({name: frozen_copy(head) for name, head in (heads or {}).items()})

    def train(self, mode: bool = True) -> Teacher:
        """A teacher stays in evaluation mode: no dropout, no stochastic depth."""
        return super().train(False)

    @torch.no_grad()
    def update(self, pairs: Iterable[tuple[nn.Module, nn.Module]], progress: float) -> None:
        """Move each average towards its student: average <- m average + (1 - m) student.

        Args:
            pairs: (student, average) modules of the same shape.
            progress: share of the run that is done, which the momentum follows.
        """
        weight = 1 - self.momentum(progress)
        for student, average in pairs:
            shared = self.shares_tokenizers and average is self.tokenizers
            _move(student, average, 1.0 if shared else weight)

    @torch.no_grad()
    def copy_student(self, pairs: Iterable[tuple[nn.Module, nn.Module]]) -> None:
        """Make each average equal to its student."""
        for student, average in pairs:
            _move(student, average, 1.0)


def _move(student: nn.Module, average: nn.Module, weight: float) -> None:
    """average <- (1 - weight) average + weight student."""
    parameters: list[Tensor] = list(average.parameters())
    if parameters:
        torch._foreach_lerp_(parameters, list(student.parameters()), weight)
    for old, new in zip(average.buffers(), student.buffers(), strict=True):
        old.copy_(new)
