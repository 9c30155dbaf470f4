"""The time between the rows of a table: inferred, checked, and counted on beyond the last row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from ...tokenizers.errors import UserError

DAY = pd.Timedelta(days=1)
#: What stamps are counted in.
UNIT: Literal["us"] = "us"
#: Rows a season, for steps of about so many days (a business day is 1.4 days on average).
SEASONS = ((1.0, 7), (1.4, 5), (7.0, 52), (30.44, 12), (91.3, 4))
#: A grid may hold this many times more stamps than the table has rows, else its step is wrong.
SPARSE = 100


@dataclass(frozen=True)
class Step:
    """The time between rows, by pandas' name of it (`h`, `15min`, `D`, `B`, `7D`, `MS`, ...)."""

    name: str

    @property
    def days(self) -> float:
        """Its length in days, on average."""
        span = pd.date_range("2001-01-01", periods=61, freq=self.name)
        return float((span[-1] - span[0]) / DAY / 60)

    @property
    def season(self) -> int:
        """Rows a season: 24 for hours, 7 for days, 5 for business days, 12 for months; 1 if there is none."""
        days = self.days
        if days < 0.9:
            return max(1, round(1 / days))
        return next((season for length, season in SEASONS if abs(days / length - 1) < 0.1), 1)

    @property
    def seasons(self) -> tuple[int, ...]:
        """Rows of every season: a day and a week of hours, a week and a year of days; none for years."""
        days = self.days
        if days < 0.9:
            return (self.season, 7 * self.season) if self.season > 1 else ()
        longer = (365,) if abs(days - 1) < 0.1 else ()
        return (self.season, *longer) if self.season > 1 else ()

    def after(self, last: pd.Timestamp, count: int) -> pd.DatetimeIndex:
        """The `count` stamps after `last`."""
        return pd.date_range(last, periods=count + 1, freq=self.name)[1:]


def find_step(time: pd.DatetimeIndex, owner: np.ndarray, freq: str | None, name: str) -> Step:
    """The step of a table whose rows have stamps `time` and belong to the series `owner`.

    It is the most frequent difference between neighbours if all stamps are whole multiples of it
    apart, else a calendar step (business days, months, quarters, years) that meets every stamp.

    Args:
        time: stamp of each row, in any order, counted in `UNIT`.
        owner: series of each row.
        freq: pandas' name of the step, if the user gave it.
        name: what errors call the table.

    Raises:
        UserError: `freq` is not one, or none can be inferred.
    """
    if freq is not None:
        return _named(freq)
    order = np.lexsort((time.asi8, owner))
    ordered = time[order]
    apart = np.diff(ordered.asi8)[np.diff(owner[order]) == 0]
    if len(apart) == 0:
        raise UserError(
            f"expected two rows or more in a series of {name} to infer its frequency from; give --data.freq"
        )
    sizes, counts = np.unique(apart, return_counts=True)
    shortest, usual, longest = (
        pd.Timedelta(int(i), unit="us") for i in (sizes[0], sizes[counts.argmax()], sizes[-1])
    )
    stamps = time.unique().sort_values()
    if usual >= 28 * DAY:
        for candidate in _calendar(stamps):
            if stamps.isin(pd.date_range(stamps[0], stamps[-1], freq=candidate).as_unit(UNIT)).all():
                return Step(candidate)
    if usual == DAY and longest > DAY and (stamps.day_of_week < 5).all():
        return Step("B")
    if (sizes % sizes[counts.argmax()] == 0).all():
        whole_days = usual % DAY == pd.Timedelta(0)
        return _named(f"{usual // DAY}D") if whole_days else Step(to_offset(usual).freqstr)
    raise UserError(
        f"expected regular stamps in {name}, but they are {shortest} to {longest} apart, "
        f"most often {usual}; give --data.freq"
    )


def regular_grid(time: pd.DatetimeIndex, step: Step, name: str) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Every stamp from the first to the last, and where on it each of `time` lies.

    Raises:
        UserError: a stamp lies off the grid, or the grid is far finer than the table.
    """
    first, last = time.min(), time.max()
    if (last - first) / DAY / step.days > SPARSE * len(time):
        raise UserError(
            f"expected stamps {step.name!r} apart in {name}, but its {len(time)} rows span {last - first}"
        )
    grid = pd.date_range(first, last, freq=step.name).as_unit(UNIT)
    where = grid.get_indexer(time)
    if (where < 0).any():
        raise UserError(
            f"expected stamps {step.name!r} apart in {name}, but {time[int(where.argmin())]} is not"
        )
    return grid, where


def _calendar(stamps: pd.DatetimeIndex) -> list[str]:
    """The calendar steps of whole months that could start at the first stamp, the longest first."""
    month = stamps[0].strftime("%b").upper()
    return [f"YS-{month}", f"YE-{month}", f"QS-{month}", f"QE-{month}", "MS", "ME"]


def _named(freq: str) -> Step:
    try:
        return Step(to_offset(freq).freqstr)
    except (ValueError, AttributeError) as error:
        raise UserError(f"expected a frequency such as h, 15min, D, W-MON or MS, but got {freq!r}") from error
