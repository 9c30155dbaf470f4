"""Masked prediction of discrete units: HuBERT and BEST-RQ.

Shapes: S packed tokens, M masked frames, K units, D width, W width of the space that units lie in.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.schedule import Schedule
from ..tokenizers.errors import UserError
from ..tokenizers.tokens import Tokens
from ..tokenizers.view import View
from .objective import Loss, Objective, Read, Spec, Step, Term
from .quantiser import perplexity
from .random_quantiser import RandomQuantiser


class MaskedPrediction(Objective):
    """Cross-entropy of a frame's unit at the masked frames (Hsu et al. 2021, eq. 2 and 3; Chiu et al. 2022).

    Units come with the view, one a frame (k-means on MFCC or on a layer: HuBERT), or from a random
    quantiser of the frames' own source (BEST-RQ).

    Args:
        quantiser: of the frames' source; None takes the view's `units`.
        width: W, in which HuBERT compares by cosine; None for a plain linear head (BEST-RQ).
        temperature: of the cosines.
        penalty: weight of the mean square of the tokenizer's features, where it has that (HuBERT: 10).
        view: the masked view.
        weight: factor of all terms.
    """

    def __init__(
        self,
        quantiser: RandomQuantiser | None = None,
        width: int | None = 256,
        temperature: float = 0.1,
        penalty: float = 10.0,
        view: str = "train",
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.quantiser, self.width, self.temperature = quantiser, width, temperature
        self.penalty, self.view = penalty, view

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (Read(self.view),)

    def build(self, spec: Spec) -> None:
        """Make the head, and the quantiser for the frames' source.

        Raises:
            UserError: the data has no units, or the tokenizer's frames have no source to quantise.
        """
        source = spec.views[self.view].source_dim
        if self.quantiser is not None and source is None:
            raise UserError(
                "a random quantiser needs a tokenizer whose frames have a source, such as LogMelFrames"
            )
        if self.quantiser is not None and source is not None:
            self.quantiser.build(source)
        units = spec.facts(self.view).get("units") if self.quantiser is None else self.quantiser.codes
        if not units:
            raise UserError(
                "masked prediction needs units: data.units must be `mfcc` or a file of `triptych cluster`"
            )
        if self.width is None:
            self.head = nn.Linear(spec.width, units)
        else:
            self.project = nn.Linear(spec.width, self.width)
            self.units = nn.Parameter(torch.rand(units, self.width))

    def forward(self, step: Step) -> Loss:
        """Nats a masked frame, with the accuracy and how many units the frames spread over."""
        view, tokens = step.views[self.view], step[Read(self.view)].content()
        assert tokens.masked is not None
        wanted = self.targets(tokens, view)[tokens.masked]
        logits = self.logits(tokens.values[tokens.masked])
        terms = {"masked": Term(F.cross_entropy(logits, wanted, reduction="sum"), len(wanted))}
        if tokens.energy is not None:
            terms["penalty"] = Term(tokens.energy.sum(), len(tokens.energy), self.penalty)
        if not len(wanted):
            return Loss(terms)
        share = wanted.bincount(minlength=logits.shape[1]) / len(wanted)
        metrics = {
            "accuracy": (logits.argmax(1) == wanted).float().mean(),
            "commonest": share.max(),  # what saying one unit everywhere would score
            "perplexity": perplexity(share),
        }
        return Loss(terms, metrics)

    def counts(self, batch: Mapping[str, View]) -> dict[str, float]:
        """Masked frames."""
        masked = batch[self.view].masked
        return {} if masked is None else {"masked": float(masked.sum())}

    def targets(self, tokens: Tokens, view: View) -> Tensor:
        """The unit of each content token, `(S,)`.

        Raises:
            UserError: the view has not one unit a frame.
        """
        if self.quantiser is not None:
            assert tokens.source is not None
            return self.quantiser(tokens.source)
        units = view.ragged.get("units", [])
        if [len(of_one) for of_one in units] != list(tokens.lengths):
            raise UserError(f"the view {self.view!r} must have a unit for each frame; data.units makes them")
        return torch.cat(units)

    def logits(self, values: Tensor) -> Tensor:
        """`(M, D)` -> `(M, K)`: a linear head, or `cos(A x, e_k) / temperature`."""
        if self.width is None:
            return self.head(values)
        return (
            F.normalize(self.project(values), dim=-1) @ F.normalize(self.units, dim=-1).T / self.temperature
        )
