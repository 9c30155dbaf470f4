"""CTC and the contrastive task of wav2vec 2.0 on one set of codes: UniSpeech.

Shapes: S packed tokens, D width, K width of the space that is compared in, W width of a quantised vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..backbones.schedule import Schedule
from ..tokenizers.view import View
from .ctc import CTC
from .masked_contrastive import MaskedContrastive
from .objective import Loss, Read, Spec, Step
from .quantiser import Quantised


class ContrastiveCTC(CTC):
    """UniSpeech (Wang et al. 2021, section 3): `a CTC + (1 - a) (contrastive + diversity)`.

    In training the CTC head reads, at a share of the frames, the frame's quantised features in place of what
    the encoder says there, so that codes come to stand for what letters are made of. Clips without a text
    take part in the contrastive task alone. Codes are drawn once, for all frames; the diversity is over all.

    Args:
        contrastive: the task, with a quantiser; its view must be masked and carry the transcripts.
        replaced: share of the frames that are replaced.
        supervised: a.
        dropout: before the CTC head.
        weight: factor of the loss.
    """

    needs_labels = False  # the contrastive task needs none

    def __init__(
        self,
        contrastive: MaskedContrastive,
        replaced: float = 0.5,
        supervised: float = 0.5,
        dropout: float = 0.0,
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(contrastive.view, dropout, weight)
        if contrastive.quantiser is None:
            raise ValueError("UniSpeech replaces frames by their codes: contrastive.quantiser must be given")
        self.contrastive, self.replaced, self.supervised = contrastive, replaced, supervised

    def build(self, spec: Spec) -> None:
        """Make the contrastive task's networks, the CTC head, and the way from codes to the width."""
        super().build(spec)
        self.contrastive.build(spec)
        self.project_codes = nn.Linear(self.contrastive.width, spec.width)

    def forward(self, step: Step) -> Loss:
        """Both losses, weighted. Nothing is replaced in evaluation."""
        tokens, view = step[Read(self.view)].content(), step.views[self.view]
        assert tokens.features is not None and tokens.masked is not None
        quantised = self.contrastive.quantise(tokens.features, step.progress)
        assert quantised is not None
        masked = Quantised(quantised.vectors[tokens.masked], quantised.codes[tokens.masked], quantised.share)
        contrast = self.contrastive.compare(tokens, masked.vectors, masked.codes)
        told = self.contrastive.loss(tokens, contrast, masked)
        heard = tokens
        if self.training:
            chosen = torch.rand(len(tokens.values), device=tokens.values.device) < self.replaced
            heard = tokens.with_values(self.with_codes(tokens.values, quantised.vectors, chosen))
        spelt = self.loss(self.predict(heard, view), view)
        terms = {name: replace(term, weight=self.supervised) for name, term in spelt.terms.items()}
        for name, term in told.terms.items():
            terms[name] = replace(term, weight=(1 - self.supervised) * term.weight)
        return Loss(terms, {**told.metrics, **spelt.metrics})

    def with_codes(self, values: Tensor, vectors: Tensor, chosen: Tensor) -> Tensor:
        """`values` `(S, D)` with `project_codes(project_target(q))` where `chosen` `(S,)`; q is `(S, W)`."""
        codes = self.project_codes(self.contrastive.project_target(vectors))
        return torch.where(chosen.unsqueeze(1), codes, values)

    def counts(self, batch: Mapping[str, View]) -> dict[str, float]:
        """Symbols, and masked and all frames."""
        return {**super().counts(batch), **self.contrastive.counts(batch)}
