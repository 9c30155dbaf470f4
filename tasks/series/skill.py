"""Skill against naive, with an interval that knows how few independent windows there are.

Shapes: S series, B blocks of cut-offs, D draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .frames import models
from .scores import Scales

NAIVE = "Naive"
DRAWS = 2000


@dataclass(frozen=True)
class Skill:
    """How much smaller a system's error is than naive's: `1 - error / error of naive`.

    Attributes:
        system: which.
        value: the skill; 0 is naive, 1 perfect.
        low, high: 95 % interval; None where one window of one series leaves nothing to draw.
    """

    system: str
    value: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """One of three sentences; an interval that reaches zero or below is no skill."""
        if self.low is None:
            return "too few windows to tell from naive"
        return "better than naive" if self.low > 0 else "no better than naive"


def skills(frame: pd.DataFrame, scale: Scales, block: np.ndarray, seed: int = 0) -> list[Skill]:
    """Skill of every system by its mean absolute scaled error over all series and windows.

    The bootstrap draws series and blocks of cut-offs, both with replacement (the pigeonhole
    bootstrap, Owen 2007): windows that overlap, or that stand at the same time, are not independent.

    Args:
        frame: as `frames` makes it.
        scale: of its series.
        block: of each of its rows, a number shared by cut-offs closer than the horizon.
        seed: of the draws.
    """
    names = models(frame)
    factor = scale.absolute.reindex(frame["unique_id"]).to_numpy()
    series, blocks = pd.factorize(frame["unique_id"])[0], pd.factorize(block)[0]
    shape = (int(series.max()) + 1, int(blocks.max()) + 1)
    cell = series * shape[1] + blocks
    sums = {}
    for name in names:
        error = np.nan_to_num(np.abs(frame[name].to_numpy() - frame["y"].to_numpy()) * factor)
        sums[name] = np.bincount(cell, error, minlength=shape[0] * shape[1]).reshape(shape)
    generator = np.random.default_rng(seed)
    rows, columns = (_draws(generator, size) for size in shape)
    drawn = {name: ((rows @ table) * columns).sum(1) for name, table in sums.items()}
    found = []
    for name in names:
        value = 1 - sums[name].sum() / sums[NAIVE].sum()
        if shape == (1, 1):
            found.append(Skill(name, value, None, None))
            continue
        drawn_any = drawn[NAIVE] > 0  # unequal series: a draw may hold no window at all
        ratio = drawn[name][drawn_any] / drawn[NAIVE][drawn_any]
        low, high = np.quantile(1 - ratio, (0.025, 0.975))
        found.append(Skill(name, float(value), float(low), float(high)))
    return found


def _draws(generator: np.random.Generator, size: int) -> np.ndarray:
    """How often each of `size` units is drawn, `(D, size)`."""
    return generator.multinomial(size, np.full(size, 1 / size), DRAWS).astype(float)
