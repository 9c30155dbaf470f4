"""How far a measured share may lie from the true one: the test set's size, and the seeds.

Shapes: S seeds, N samples of the test part.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..data import generator

#: Quantile of the normal distribution for 95 %, two-sided.
Z = 1.959964


def wilson(correct: float, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): what the size of the test set alone leaves open."""
    share, extra = correct / total, Z**2 / total
    centre = (share + extra / 2) / (1 + extra)
    half = Z / (1 + extra) * math.sqrt(share * (1 - share) / total + extra / (4 * total))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def interval(right: Tensor) -> tuple[float, float]:
    """95 % interval of a mean accuracy over seeds, all tested on the same samples.

    Two independent parts are joined in quadrature to either side: Wilson's for the N test samples, and
    Student's for the mean of S seeds (none for one seed, whose spread is unknown).

    Args:
        right: `(S, N)` bool, which samples each seed told rightly.
    """
    from scipy.stats import t

    seeds, samples = right.shape
    each = right.double().mean(1)
    share = float(each.mean())
    low, high = wilson(share * samples, samples)
    spread = float(t.ppf(0.975, seeds - 1)) * float(each.std()) / math.sqrt(seeds) if seeds > 1 else 0.0
    return max(share - math.hypot(share - low, spread), 0.0), min(
        share + math.hypot(high - share, spread), 1.0
    )


def bootstrap(values: Tensor, figure: Callable[[Tensor], float], draws: int = 1000) -> tuple[float, float]:
    """95 % interval of a figure of a test set (Efron 1979): its percentiles over sets drawn anew.

    Args:
        values: `(N, ...)`, one entry a test sample.
        figure: of `(N, ...)` samples.
        draws: how many sets, each of N samples drawn with replacement.
    """
    index = torch.randint(len(values), (draws, len(values)), generator=generator("bootstrap"))
    figures = torch.tensor([figure(values[some]) for some in index], dtype=torch.float64)
    low, high = torch.quantile(figures, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
