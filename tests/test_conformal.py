"""Calibrated intervals: ranks by hand, only the past is read, and coverage under drift.

Shapes: T origins in time, N sequences, H horizon, Q quantiles.
"""

import numpy as np
import pytest
from triptych.tasks.series.conformal import ALONE, Residuals, online, split

LEVELS = np.array([0.1, 0.5, 0.9])
ORIGINS, SEQUENCES, HORIZON, STRIDE, HELD_OUT = 701, 3, 5, 2, 101


def drawn(seed: int = 0, drift: float = 0.0) -> Residuals:
    """Quantiles of a standard normal, and truths that are `drift` times wider after the held-out part."""
    truth = np.random.default_rng(seed).standard_normal((ORIGINS, SEQUENCES, HORIZON))
    truth[HELD_OUT:] *= 1 + drift
    quantiles = np.broadcast_to([-1.2816, 0.0, 1.2816], (*truth.shape, 3))
    return Residuals(quantiles, truth, np.ones_like(truth), LEVELS, STRIDE)


def held_out(count: int = HELD_OUT) -> np.ndarray:
    return np.broadcast_to(np.arange(ORIGINS)[:, None] < count, (ORIGINS, SEQUENCES))


def coverage(quantiles: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`(H,)` share of the truths within the outer quantiles after a while."""
    late = slice(ORIGINS // 2, None)
    return ((quantiles[late, ..., 0] <= truth[late]) & (truth[late] <= quantiles[late, ..., -1])).mean((0, 1))


def test_a_quantile_is_moved_by_the_quantile_of_its_held_out_residuals() -> None:
    residuals, count = drawn(), 99  # .9 of 99 residuals is the 90th of them
    moved = split(residuals, held_out(count))
    scores = np.sort(residuals.truth[:count] - residuals.quantiles[:count, ..., 2], axis=0)
    np.testing.assert_allclose(
        moved[..., 2] - residuals.quantiles[..., 2], np.tile(scores[89], (ORIGINS, 1, 1))
    )


def test_sequences_with_few_windows_share_their_residuals() -> None:
    moved = split(drawn(), held_out(ALONE - 1))
    assert (moved == moved[:1, :1]).all()
    alone = split(drawn(), held_out(ALONE))
    assert (alone[0, 0] != alone[0, 1]).any()


@pytest.mark.parametrize("count", [ALONE - 1, HELD_OUT], ids=["together", "each alone"])
def test_online_recalibration_reads_what_was_known_at_the_origin(count: int) -> None:
    before, cut = drawn(), 301
    changed = Residuals(before.quantiles, before.truth.copy(), before.unit, LEVELS, STRIDE)
    known = (np.arange(ORIGINS)[:, None] + before.delay) <= cut  # (T, H): its truth came by the origin `cut`
    changed.truth[np.broadcast_to(~known[:, None], changed.truth.shape)] += 100
    first, second = online(before, held_out(count)), online(changed, held_out(count))
    np.testing.assert_array_equal(first[: cut + 1], second[: cut + 1])
    assert (first[cut + 2 :] != second[cut + 2 :]).any()


@pytest.mark.parametrize("drift", [-0.5, 1.0])
def test_online_recalibration_holds_under_drift_where_a_fixed_one_does_not(drift: float) -> None:
    residuals = drawn(drift=drift)
    fixed = coverage(split(residuals, held_out()), residuals.truth)
    moved = coverage(online(residuals, held_out()), residuals.truth)
    assert (np.abs(fixed - 0.8) > 0.1).all()
    assert (np.abs(moved - 0.8) < 0.05).all()


def test_the_median_is_not_adapted() -> None:
    residuals = drawn(drift=1.0)
    still, moving = (online(residuals, held_out(), gamma=gamma) for gamma in (0.0, 0.1))
    np.testing.assert_array_equal(still[..., 1], moving[..., 1])
    assert (still[..., 0] != moving[..., 0]).any()
