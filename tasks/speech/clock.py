"""Where the frames of a tokenizer lie in time."""

from __future__ import annotations

from dataclasses import dataclass

from ...tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Clock:
    """Where a tokenizer's frames lie in time, found from how many it makes of how many samples.

    Attributes:
        window: samples that one frame hears.
        hop: samples from one frame to the next.
        rate: Hz.
    """

    window: int
    hop: int
    rate: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, rate: int) -> Clock:
        """The clock of a tokenizer of waveforms at `rate` Hz."""
        window = _shortest(tokenizer, 1)
        return cls(window, (_shortest(tokenizer, 101) - window) // 100, rate)

    def samples(self, frames: int) -> int:
        """Fewest samples that give so many frames."""
        return self.window + (frames - 1) * self.hop

    def begins(self, frame: int) -> float:
        """Second at which the hop around a frame's centre begins."""
        return (self.window - self.hop) / 2 / self.rate + frame * self.hop / self.rate


def _shortest(tokenizer: Tokenizer, frames: int) -> int:
    low, high = 0, 1
    while tokenizer.num_tokens((high,)) < frames:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tokenizer.num_tokens((middle,)) < frames else (low, middle)
    return high
