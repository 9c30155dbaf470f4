"""How much units say of phones: mutual information and purity of frames.

Shapes: S frames of all clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

#: Resamplings of the clips for an interval.
RESAMPLED = 200


@dataclass(frozen=True)
class Agreement:
    """Of one set of frames.

    Attributes:
        pnmi: I(phone; unit) / H(phone), phone-normalised mutual information (Hsu et al. 2021, section V-A).
        phone_purity: share of the frames whose phone is the commonest of their unit.
        unit_purity: share of the frames whose unit is the commonest of their phone.
    """

    pnmi: float
    phone_purity: float
    unit_purity: float


def agreement(phones: NDArray[np.int64], units: NDArray[np.int64]) -> Agreement:
    """Of the phone `(S,)` and the unit `(S,)` of each frame; PNMI is 0 where there is one phone."""
    from sklearn.metrics import mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(phones, units)
    share = table.sum(1) / table.sum()
    entropy = float(-(share * np.log(share)).sum())
    told = float(mutual_info_score(None, None, contingency=table)) / entropy if entropy > 0 else 0.0
    return Agreement(told, float(table.max(0).sum() / table.sum()), float(table.max(1).sum() / table.sum()))


def resampled(
    phones: Sequence[NDArray[np.int64]], units: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest 2.5 % of (pnmi, phone purity, unit purity) when clips are drawn with replacement.

    Fewer different clips agree better by chance, so the draws lie above the figure: they are moved by as much
    as their mean is off (Efron and Tibshirani 1993, section 10.2).
    """
    random = np.random.default_rng(0)

    def told(drawn: NDArray[np.int64]) -> tuple[float, ...]:
        return astuple(agreement(*(np.concatenate([of[i] for i in drawn]) for of in (phones, units))))

    found = np.array([told(random.integers(len(phones), size=len(phones))) for _ in range(RESAMPLED)])
    bias = found.mean(0) - told(np.arange(len(phones)))
    low, high = np.quantile(found - bias, (0.025, 0.975), axis=0)
    return low, high
