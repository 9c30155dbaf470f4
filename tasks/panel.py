"""What a panel (images, time series, speech) says of a finished run: figures and a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .run import Run

#: Draws a run into a PNG file and returns the caption.
Picture: TypeAlias = "Callable[[Run, Path], str]"


@dataclass(frozen=True)
class Row:
    """One line of a results table.

    Attributes:
        system: what was measured (`this run`, `untrained encoder`, `raw pixels`, ...).
        metric: its name with its unit, the same for all rows that compare (`accuracy`, `MSE (z units)`).
        value: the figure.
        low, high: 95 % interval, counting the test set's size; None where there is none.
        baseline: True for everything that is not this run.
    """

    system: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    baseline: bool = True
