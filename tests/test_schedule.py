"""Schedules at points whose values are known in closed form."""

import math

import pytest
from triptych.backbones.schedule import Schedule, value


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        (Schedule(2.0), 0.7, 2.0),
        (Schedule(2.0, 6.0), 0.0, 2.0),
        (Schedule(2.0, 6.0), 0.5, 4.0),
        (Schedule(2.0, 6.0), 1.0, 6.0),
        (Schedule(2.0, 6.0), 1 / 3, 2 + 4 * (1 - math.cos(math.pi / 3)) / 2),
        (Schedule(2.0, 6.0, shape="linear"), 0.25, 3.0),
        (Schedule(2.0, 6.0, shape="constant"), 1.0, 2.0),
        (Schedule(2.0, 6.0, warmup=0.2, warmup_from=1.0), 0.0, 1.0),
        (Schedule(2.0, 6.0, warmup=0.2, warmup_from=1.0), 0.1, 1.5),
        (Schedule(2.0, 6.0, warmup=0.2, warmup_from=1.0), 0.2, 2.0),
        (Schedule(2.0, 6.0, warmup=0.2, warmup_from=1.0), 0.6, 4.0),
        (Schedule(2.0, 6.0, warmup=0.2, shape="linear"), 0.4, 3.0),
        (Schedule(2.0, warmup=0.5), 0.25, 1.0),
        (Schedule(2.0, warmup=0.5), 0.75, 2.0),
        (Schedule(2.0, 6.0, warmup=1.0), 0.5, 1.0),
        (Schedule(2.0, 6.0, warmup=0.2, hold=0.4, shape="linear"), 0.5, 2.0),
        (Schedule(2.0, 6.0, warmup=0.2, hold=0.4, shape="linear"), 0.7, 3.0),
        (Schedule(2.0, 32.0, shape="exponential"), 0.25, 4.0),
        (Schedule(2.0, 6.0), -1.0, 2.0),
        (Schedule(2.0, 6.0), 2.0, 6.0),
    ],
)
def test_values(schedule: Schedule, progress: float, expected: float) -> None:
    assert schedule(progress) == pytest.approx(expected)


def test_dinos_momentum_rises_to_one() -> None:
    """Caron et al. 2021: from .996 to 1 along a cosine."""
    momentum = [Schedule(0.996, 1.0)(step / 100) for step in range(101)]
    assert momentum == sorted(momentum)
    assert (momentum[0], momentum[50], momentum[100]) == pytest.approx((0.996, 0.998, 1.0))


def test_three_stages() -> None:
    """fairseq's tri-stage, phase ratio .1, .4, .5 and final scale .05."""
    rate = Schedule(1e-4, 5e-6, warmup=0.1, warmup_from=1e-6, hold=0.4, shape="exponential")
    assert [rate(p) for p in (0.0, 0.1, 0.3, 0.5, 1.0)] == pytest.approx([1e-6, 1e-4, 1e-4, 1e-4, 5e-6])
    assert rate(0.75) == pytest.approx(1e-4 * 0.05**0.5)


def test_a_number_is_its_own_schedule() -> None:
    assert value(0.3, 0.9) == 0.3
    assert value(Schedule(1.0, 3.0, shape="linear"), 0.5) == 2.0
