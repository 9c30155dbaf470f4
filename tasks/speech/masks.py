"""Which frames an utterance's student does not see.

Shapes: L frames of one utterance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...tokenizers.errors import UserError


def check_spans(share: float, length: int) -> None:
    """Refuse a mask that covers no share of anything, or in spans of nothing.

    Raises:
        UserError: the share lies outside 0 to 1, or the length is below 1.
    """
    if not 0 <= share <= 1 or length < 1:
        raise UserError(
            f"expected a mask of a share from 0 to 1 in spans of at least 1, but got {share:g} and {length}"
        )


@dataclass
class SpanMask:
    """Spans of frames at random starts, which may overlap (wav2vec 2.0, section 3.1).

    `share * L / length` spans, rounded up or down at random so that the expectation is kept.
    Because spans overlap, less than `share` is masked: .65 of spans of 10 mask about 49 %.

    Attributes:
        share: of the frames if no spans overlapped; .65 is a probability of .065 to start a span.
        length: of a span, in frames.
        spans: fewest in an utterance, so that more than `share` is masked of a short one.
    """

    share: float = 0.65
    length: int = 10
    spans: int = 2

    def __post_init__(self) -> None:
        check_spans(self.share, self.length)

    def draw(self, frames: int, generator: torch.Generator) -> Tensor:
        """`(L,)` bool, True where masked."""
        length = min(self.length, frames)
        chance = float(torch.rand((), generator=generator))
        spans = max(int(self.share * frames / self.length + chance), self.spans)
        starts = torch.randperm(frames - length + 1, generator=generator)[:spans]
        masked = torch.zeros(frames, dtype=torch.bool)
        masked[(starts.unsqueeze(1) + torch.arange(length)).flatten()] = True
        return masked
