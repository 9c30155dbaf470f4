"""A weighted sum of objectives, which is itself an objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..backbones.schedule import value
from ..tokenizers.view import View
from .objective import Loss, Objective, Read, Spec, Step, Term, union


class Combined(Objective):
    """Named objectives together, weighted by their own weights or by learned uncertainties.

    With `learned` weights every objective i has a log variance s_i and the loss is
    `sum_i exp(-a_i s_i) L_i + s_i / 2`, homoscedastic uncertainty (Kendall et al. 2018, eq. 7, in the
    form corrected for SiT: a_i is the objective's `precision`, .5 for absolute errors and else 1); each
    objective's own weight multiplies L_i.

    Args:
        objectives: by name; the terms and metrics of each are prefixed by it.
        weighting: `fixed` (each objective's weight or schedule alone) or `learned`.
    """

    def __init__(
        self, objectives: Mapping[str, Objective], weighting: Literal["fixed", "learned"] = "fixed"
    ) -> None:
        super().__init__()
        self.members = nn.ModuleDict(objectives)
        self.log_variance = nn.Parameter(torch.zeros(len(objectives))) if weighting == "learned" else None

    def __iter__(self):  # type: ignore[no-untyped-def]
        """(name, objective) pairs."""
        return iter(self.members.items())

    def __getitem__(self, name: str) -> Objective:
        return self.members[name]  # type: ignore[return-value]

    def reads(self) -> tuple[Read, ...]:
        """The union of what the members read, each read once."""
        return union(read for _, member in self for read in member.reads())

    def build(self, spec: Spec) -> None:
        """Build every member."""
        for _, member in self:
            member.build(spec)

    def forward(self, step: Step, instead: Mapping[str, tuple[Objective, Step]] | None = None) -> Loss:
        """All members' terms, as `objective/term`, with their weights multiplied in.

        Args:
            step: what the members see.
            instead: by name, objectives that stand in for members, and what they see.
        """
        terms: dict[str, Term] = {}
        metrics: dict[str, Tensor | Term] = {}
        for index, (name, member) in enumerate(self):
            if not _present(member, step.views):
                continue
            stand_in, seen = (instead or {}).get(name, (member, step))
            loss = stand_in(seen)
            factor: float | Tensor = value(member.weight, step.progress)
            if self.log_variance is not None:
                log_variance = self.log_variance[index]
                factor = factor * torch.exp(-member.precision * log_variance)
                terms[f"{name}/uncertainty"] = Term(log_variance / 2, 1.0, scope="batch")
                metrics[f"{name}/log_variance"] = log_variance.detach()
            for key, term in loss.terms.items():
                terms[f"{name}/{key}"] = replace(term, weight=factor * term.weight)
            metrics.update({f"{name}/{key}": figure for key, figure in loss.metrics.items()})
        return Loss(terms, metrics)

    def counts(self, batch: Mapping[str, View]) -> dict[str, float]:
        """The members' counts, as `objective/term`."""
        return {
            f"{name}/{term}": count
            for name, member in self
            if _present(member, batch)
            for term, count in member.counts(batch).items()
        }

    def averaged(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """The members' pairs."""
        return tuple(pair for _, member in self for pair in member.averaged())

    def after_backward(self, progress: float, epoch: float) -> None:
        """Hand on to every member."""
        for _, member in self:
            member.after_backward(progress, epoch)


def _present(member: Objective, views: Mapping[str, View]) -> bool:
    """Whether a batch holds all that an objective reads."""
    return all(read.view in views for read in member.reads())
