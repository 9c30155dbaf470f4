"""Values that change over a run: learning rate, weight decay, momentum, temperature, weights of terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass
class Schedule:
    """From `start` to `end` over a run, after a linear warm-up from `warmup_from` and a time at `start`.

    Warm-up, hold and exponential decay are the three stages of wav2vec 2.0's fine-tuning.

    Attributes:
        start: value when the warm-up is over.
        end: value at the end of the run; None keeps `start`.
        warmup: share of the run (0 to 1) that the warm-up takes.
        warmup_from: value at the very first step.
        shape: `cosine` (half a wave), `linear`, `exponential` (a constant factor a step; `start` and
            `end` must be above zero), or `constant` between start and end.
        hold: share of the run, after the warm-up, for which the value stays at `start`.
    """

    start: float
    end: float | None = None
    warmup: float = 0.0
    warmup_from: float = 0.0
    shape: Literal["cosine", "linear", "exponential", "constant"] = "cosine"
    hold: float = 0.0

    def __call__(self, progress: float) -> float:
        """The value at `progress`, the share of the run that is done (0 to 1)."""
        progress = min(max(progress, 0.0), 1.0)
        if progress < self.warmup:
            return self.warmup_from + (self.start - self.warmup_from) * progress / self.warmup
        if self.end is None or self.shape == "constant":
            return self.start
        begin = self.warmup + self.hold
        after = max(progress - begin, 0.0) / max(1 - begin, 1e-12)
        if self.shape == "exponential":
            return self.start * (self.end / self.start) ** after
        done = after if self.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * after)
        return self.start + (self.end - self.start) * done


def value(quantity: float | Schedule, progress: float) -> float:
    """A number as it is, or a schedule's value at `progress`."""
    return quantity(progress) if isinstance(quantity, Schedule) else quantity
