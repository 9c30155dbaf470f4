"""Intervals that hold what they say: split-conformal on held-out windows, and online recalibration.

Each quantile is moved by a quantile of its own past residuals, so that a share q of the truth lies
below the quantile of level q. A residual is `(truth - quantile) / unit`, the unit being the width of
the model's own interval (conformalised quantile regression, Romano et al. 2019, one side at a time).

Shapes: T origins in time, N sequences, H horizon, Q quantiles, W past origins, G groups of sequences
that are calibrated together (N, or 1 where all are pooled).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Past origins with a residual that a sequence needs to be calibrated on its own.
ALONE = 50
#: Past residuals of a group that a quantile is taken from.
WINDOW = 500
#: Step of adaptive conformal inference, as in its paper.
GAMMA = 0.005


@dataclass(frozen=True)
class Residuals:
    """Forecasts on a grid of origins and sequences beside what came; NaN where there is none.

    Attributes:
        quantiles: `(T, N, H, Q)`.
        truth: `(T, N, H)`.
        unit: `(T, N, H)` what residuals are measured in.
        levels: `(Q,)`.
        stride: rows between origins.
    """

    quantiles: np.ndarray
    truth: np.ndarray
    unit: np.ndarray
    levels: np.ndarray
    stride: int

    @property
    def delay(self) -> np.ndarray:
        """`(H,)` how many origins later the truth of each step is known."""
        steps = np.arange(1, self.truth.shape[2] + 1)
        return -(-steps // self.stride)

    def scores(self) -> np.ndarray:
        """`(T, N, H, Q)` residuals."""
        return (self.truth[..., None] - self.quantiles) / self.unit[..., None]

    def moved(self, shift: np.ndarray, at: int | slice = slice(None)) -> np.ndarray:
        """The quantiles of origins `at`, each moved by `shift` units, in rising order."""
        return np.sort(self.quantiles[at] + self.unit[at][..., None] * shift, axis=-1)


def pooled(calibrates: np.ndarray) -> bool:
    """Whether sequences have too few windows to be calibrated each on its own; `calibrates` is `(T, N)`."""
    return bool(calibrates.sum(0).min() < ALONE)


def split(residuals: Residuals, calibrates: np.ndarray) -> np.ndarray:
    """Quantiles `(T, N, H, Q)` moved by those of the residuals of the held-out origins `calibrates` `(T, N)`.

    Split-conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018): valid if what comes is
    like what was held out, which no series promises.
    """
    scores = np.where(calibrates[..., None, None], residuals.scores(), np.nan)
    if pooled(calibrates):
        scores = scores.reshape(-1, 1, *scores.shape[2:])
    levels = np.broadcast_to(residuals.levels, scores.shape[1:])
    return residuals.moved(Scores(scores).look_up(levels))


def online(residuals: Residuals, calibrates: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """Quantiles `(T, N, H, Q)`, each origin's recalibrated by what was known at that origin.

    Adaptive conformal inference (Gibbs and Candès 2021), for each level, step and group: the level
    that is looked up among the latest residuals moves by `gamma (q - share below)` with every
    origin whose truth has become known. A step h ahead is known h rows later, not at once. The median,
    which bounds no interval, is looked up at its own level.
    """
    scores, delay = residuals.scores(), residuals.delay
    one = pooled(calibrates)
    pace = np.where(residuals.levels == 0.5, 0.0, gamma)
    groups = 1 if one else scores.shape[1]
    level = np.tile(residuals.levels, (groups, scores.shape[2], 1))
    adjusted = np.full_like(residuals.quantiles, np.nan)
    refresh = max(1, int(delay[-1]))
    latest = _latest(scores, 0, delay, one)
    for now in range(len(scores)):
        level = level + pace * _surprise(adjusted, residuals, now - delay, one)
        if now % refresh == 0:
            latest = _latest(scores, now, delay, one)
        adjusted[now] = residuals.moved(latest.look_up(level), now)
    return adjusted


class Scores:
    """Residuals in rising order, of which quantiles are looked up.

    Args:
        scores: `(W, G, H, Q)`, NaN where a residual is not known.
    """

    def __init__(self, scores: np.ndarray) -> None:
        self.ordered = np.sort(scores, axis=0)  # NaN last
        self.count = np.isfinite(scores).sum(0)
        self.range = self._at(np.maximum(self.count - 1, 0)) - self._at(np.zeros_like(self.count))

    def look_up(self, level: np.ndarray) -> np.ndarray:
        """The quantiles of levels `(G, H, Q)`; nothing known moves nothing.

        Level p of m residuals lies at rank p (m + 1), between neighbours linearly. A level outside
        0 and 1, which online recalibration can ask for, lies as far beyond the outermost residual
        as it is outside, in units of their range.
        """
        last = np.maximum(self.count - 1, 0)
        rank = np.clip(level * (self.count + 1) - 1, 0, last)
        low = np.floor(rank).astype(np.int64)
        below, above = self._at(low), self._at(np.minimum(low + 1, last))
        outside = np.where(level > 1, level - 1, np.minimum(level, 0.0))
        return np.nan_to_num(below + (rank - low) * (above - below) + outside * self.range)

    def _at(self, rank: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.ordered, rank[None], axis=0)[0]


def _latest(scores: np.ndarray, now: int, delay: np.ndarray, one: bool) -> Scores:
    """At each step, the latest residuals that are known at origin `now`."""
    sequences = scores.shape[1]
    window = min(max(WINDOW // sequences, 1) if one else WINDOW, len(scores))
    origin = now - delay - np.arange(window)[:, None]  # (W, H)
    known = scores[np.maximum(origin, 0), :, np.arange(len(delay))]  # (W, H, N, Q)
    known = np.where((origin >= 0)[..., None, None], known, np.nan).swapaxes(1, 2)
    return Scores(known.reshape(-1, 1, *known.shape[2:]) if one else known)


def _surprise(adjusted: np.ndarray, residuals: Residuals, origin: np.ndarray, one: bool) -> np.ndarray:
    """`(G, H, Q)` level less share of the truth at or below the quantile, at origins `(H,)`; 0 if unknown."""
    step, past = np.arange(len(origin)), np.maximum(origin, 0)
    truth = residuals.truth[past, :, step]  # (H, N)
    known = (origin >= 0)[:, None] & np.isfinite(truth) & np.isfinite(adjusted[past, :, step, 0])
    below = (truth[..., None] <= adjusted[past, :, step]).swapaxes(0, 1)
    surprise = np.where(known.T[..., None], residuals.levels - below, 0.0)
    if not one:
        return surprise
    return surprise.sum(0, keepdims=True) / np.maximum(known.T.sum(0), 1)[None, :, None]
