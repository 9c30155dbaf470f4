"""Skill against naive, with an interval that knows how few independent windows there are.

Shapes: S series, B blocks of cut-offs, D draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .frames import models
from .scores import Scales

NAIVE = "Naive"
DRAWS = 2000
#: Fewest series and blocks of cut-offs: by six windows of one series one system in 30 that is no better
#: than naive is told to be, as by more windows; by five it was one in 18.
FEWEST = 6


@dataclass(frozen=True)
class Skill:
    """How much smaller a system's error is than naive's: `1 - error / error of naive`.

    Attributes:
        system: which.
        value: the skill; 0 is naive, 1 perfect; NaN where naive makes no error.
        low, high: 95 % interval; None where there are too few series and windows to draw.
    """

    system: str
    value: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """One of four; an interval that reaches zero or below is no skill."""
        if math.isnan(self.value):
            return "no better than naive, which makes no error"
        if self.low is None:
            return "not told from naive by so few windows"
        return "better than naive" if self.low > 0 else "no better than naive"


def skills(frame: pd.DataFrame, scale: Scales, block: np.ndarray, seed: int = 0) -> list[Skill]:
    """Skill of every system by its mean absolute scaled error over all series and windows.

    The bootstrap draws series and blocks of cut-offs, both with replacement (the pigeonhole
    bootstrap, Owen 2007): windows that overlap, or that stand at the same time, are not independent. Its
    percentiles are those that Student's interval for as many units would reach to (Hesterberg 2015).

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
    units, naive = sum(shape) - 1, float(sums[NAIVE].sum())
    found = []
    for name in names:
        value = 1 - float(sums[name].sum()) / naive if naive > 0 else math.nan
        if units < FEWEST or naive == 0:
            found.append(Skill(name, value, None, None))
            continue
        drawn_any = drawn[NAIVE] > 0  # unequal series: a draw may hold no window at all
        ratio = drawn[name][drawn_any] / drawn[NAIVE][drawn_any]
        tail = _tail(units)
        low, high = np.quantile(1 - ratio, (tail, 1 - tail))
        found.append(Skill(name, value, float(low), float(high)))
    return found


def _tail(units: int) -> float:
    """What to cut off at either end: 2.5 % of the many, less of the few, whose bootstrap is too narrow."""
    from scipy.stats import norm, t

    return float(norm.cdf(t.ppf(0.025, units - 1) * math.sqrt(units / (units - 1))))


def _draws(generator: np.random.Generator, size: int) -> np.ndarray:
    """How often each of `size` units is drawn, `(D, size)`."""
    return generator.multinomial(size, np.full(size, 1 / size), DRAWS).astype(float)
