"""The clean source of tokens, foretold from what is left of their sequence.

Masked tokens are told by a linear head (Xie et al. 2022, SimMIM; PatchTST) or a decoder; tokens that were
hidden from the encoder need a decoder (He et al. 2022, MAE). Nothing here knows the modality.

Shapes: S packed tokens, D width, E width of the decoder, P values of a token's source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..backbones.encoder import Encoder
from ..backbones.schedule import Schedule
from ..tokenizers.errors import UserError
from ..tokenizers.positions import sincos
from ..tokenizers.tokens import Tokens, concat
from ..tokenizers.view import View
from .objective import Loss, Objective, Read, Spec, Step, Term


class Reconstruction(Objective):
    """Distance between a prediction and the source of tokens, over the values that were observed.

    Args:
        view: the view whose tokens were masked, hidden or corrupted.
        distance: `l1` or `mse`.
        of: `masked` tokens (hidden ones included), `all`, or the single values that were `corrupted`.
        normalise: targets are each token's values with its own mean and deviation taken away (MAE).
        decoder: a small encoder of any width, or None to tell each token from its own output alone.
        hidden_layers: each of as many values as it is given and followed by a GELU, before the linear head
            (SiT's last version has 3).
        weight: factor of the loss.
    """

    def __init__(
        self,
        view: str = "train",
        distance: Literal["l1", "mse"] = "mse",
        of: Literal["masked", "all", "corrupted"] = "masked",
        normalise: bool = False,
        decoder: Encoder | None = None,
        hidden_layers: int = 0,
        weight: float | Schedule = 1.0,
    ) -> None:
        super().__init__(weight)
        self.view, self.distance, self.of, self.normalise = view, distance, of, normalise
        self.decoder, self.hidden_layers = decoder, hidden_layers
        self.precision = 0.5 if distance == "l1" else 1.0

    def reads(self) -> tuple[Read, ...]:
        """The student's final tokens."""
        return (Read(self.view),)

    def build(self, spec: Spec) -> None:
        """Make the head for the view's source, and what leads into the decoder.

        Raises:
            UserError: the view's tokenizer has no source.
        """
        values = spec.views[self.view].source_dim
        if values is None:
            raise UserError(f"the tokens of the view {self.view!r} have no source to reconstruct")
        if self.decoder is not None:
            self.enter = nn.Linear(spec.width, self.decoder.width)
            self.mask_token = nn.Parameter(torch.empty(self.decoder.width).normal_(std=0.02))
        width = spec.width if self.decoder is None else self.decoder.width
        layers = [layer for _ in range(self.hidden_layers) for layer in (nn.Linear(width, width), nn.GELU())]
        self.deepen = nn.Sequential(*layers)
        self.head = nn.Linear(width, values)

    def forward(self, step: Step) -> Loss:
        """The mean distance over the values that count."""
        tokens = self.reconstruct(step[Read(self.view)])
        assert tokens.source is not None
        counts = self.counted(tokens)
        if tokens.observed is not None:
            counts = counts & tokens.observed
        target = standardised(tokens.source, tokens.observed) if self.normalise else tokens.source
        error = tokens.values - target
        distance = error.abs() if self.distance == "l1" else error.square()
        loss = distance.where(counts, torch.zeros_like(distance)).sum()
        return Loss({self.distance: Term(loss, int(counts.sum()))})

    def counts(self, batch: Mapping[str, View]) -> dict[str, float]:
        """The values that count, where none is missing and not all of them do."""
        view = batch[self.view]
        if self.of == "all" or view.observed is not None:
            return {}
        if self.of == "corrupted":
            assert isinstance(view.data, Tensor)
            touched = view.corrupted
            return {self.distance: 0 if touched is None else int(touched.expand_as(view.data).sum())}
        told = sum(int(mask.sum()) for mask in (view.masked, view.hidden) if mask is not None)
        return {self.distance: told * self.head.out_features}

    def reconstruct(self, tokens: Tokens) -> Tokens:
        """Content tokens, hidden ones included, whose values are the predicted sources `(S, P)`.

        `masked` says which of them the encoder did not see.

        Raises:
            UserError: tokens were hidden, and there is no decoder.
        """
        if self.decoder is not None:
            tokens = self._decode(tokens)
        elif tokens.whole is not None:
            raise UserError(f"tokens hidden from the encoder ({self.view!r}) can only be told by a decoder")
        content = tokens.content()
        return content.with_values(self.head(self.deepen(content.values)))

    def _decode(self, tokens: Tokens) -> Tokens:
        """Put mask tokens where tokens were hidden, add positions, and run the decoder."""
        assert self.decoder is not None
        values, whole = self.enter(tokens.values), tokens
        if tokens.whole is not None and tokens.kept is not None:
            whole = tokens.whole
            hidden = torch.ones(sum(whole.lengths), dtype=torch.bool, device=values.device)
            hidden[tokens.kept] = False
            filled = self.mask_token.to(values.dtype).expand(len(hidden), -1)
            values = filled.index_copy(0, tokens.kept, values)
            whole = replace(whole, masked=hidden if whole.masked is None else hidden | whole.masked)
        values = values + sincos(whole.position, self.decoder.width).to(values.dtype)
        return self.decoder(concat([whole.with_values(values)])).layers[-1][0]

    def counted(self, tokens: Tokens) -> Tensor:
        """`(S, P)` bool: the values whose reconstruction is learnt from."""
        assert tokens.source is not None
        if self.of == "all":
            return torch.ones_like(tokens.source, dtype=torch.bool)
        which = tokens.corrupted if self.of == "corrupted" else tokens.masked
        if which is None:
            return torch.zeros_like(tokens.source, dtype=torch.bool)
        return which if which.ndim == 2 else which.unsqueeze(1).expand_as(tokens.source)


def standardised(source: Tensor, observed: Tensor | None = None) -> Tensor:
    """Each token's values with its own mean and deviation taken away: `(x - mean) / sqrt(var + 1e-6)`.

    As MAE's targets (He et al. 2022, section 4.1), the variance over P - 1. Values that were not observed
    count for nothing.

    Args:
        source: `(S, P)`.
        observed: `(S, P)` bool, or None.
    """
    weight = torch.ones_like(source) if observed is None else observed.to(source.dtype)
    count = weight.sum(1, keepdim=True)
    mean = (source * weight).sum(1, keepdim=True) / count.clamp(min=1)
    variance = ((source - mean).square() * weight).sum(1, keepdim=True) / (count - 1).clamp(min=1)
    return (source - mean) / (variance + 1e-6).sqrt()
