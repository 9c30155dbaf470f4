"""Time stamps as people write them: ISO 8601, local dates of a spreadsheet, with and without a time zone."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError
from .frequency import UNIT

OFFSET = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$")
#: Day and month, or month and day, then the year, then perhaps a time.
LOCAL = re.compile(r"^\d{1,2}([./-])\d{1,2}\1(\d{2}|\d{4})([ T]\d{1,2}:\d\d(:\d\d)?)?$")


def read_stamps(column: pd.Series[Any], name: str) -> pd.DatetimeIndex:
    """The stamps of a column; `name` is what errors call the table.

    Stamps with a time zone are kept in UTC, where every hour has one name, unless all of them are
    midnights there: those are dates, and stay what the calendar on the wall says.

    Raises:
        UserError: naming the row that holds no date, or two ways to read a local date.
    """
    if pd.api.types.is_numeric_dtype(column):
        raise UserError(
            f"expected dates in the column {column.name!r} of {name}, "
            f"but it holds numbers such as {column.iloc[0]}"
        )
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        wall = column.dt.tz_localize(None)
        return _index(wall if _midnights(wall) else column.dt.tz_convert("UTC"))
    if column.dtype.kind == "M":
        stamps = column
    else:
        text = column.astype(str).str.strip()
        zoned = text.str.contains(OFFSET.pattern, regex=True)
        stamps = _zoned(text) if zoned.any() else _local(text, name) if _all_local(text) else _parsed(text)
    bad = stamps.isna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise UserError(
            f"expected a date in {column.name!r} of {name}, but row {row + 1} holds {column.iloc[row]!r}"
        )
    return _index(stamps)


def _index(stamps: pd.Series[Any]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(stamps).as_unit(UNIT)


def _midnights(wall: pd.Series[Any]) -> bool:
    return bool((wall == wall.dt.normalize()).all())


def _parsed(text: pd.Series[Any], utc: bool = False) -> pd.Series[Any]:
    """ISO 8601, or whatever pandas makes of the first row; NaT where neither fits."""
    stamps = pd.to_datetime(text, errors="coerce", utc=utc, format="ISO8601")
    if stamps.isna().all():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            stamps = pd.to_datetime(text, errors="coerce", utc=utc)
    return stamps


def _zoned(text: pd.Series[Any]) -> pd.Series[Any]:
    wall = _parsed(text.str.replace(OFFSET.pattern, "", regex=True))
    whole = len(wall) > 0 and not wall.isna().any() and _midnights(wall)
    return wall if whole else _parsed(text, utc=True)


def _all_local(text: pd.Series[Any]) -> bool:
    return bool(text.str.match(LOCAL.pattern).all())


def _local(text: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Local dates: with dots day first, else day or month first, whichever leaves the stamps evenly apart.

    Raises:
        UserError: both ways are as even.
    """
    found = LOCAL.match(text.iloc[0])
    assert found is not None
    mark, year, time, seconds = found.groups()
    clock = "" if time is None else time[0] + ("%H:%M" if seconds is None else "%H:%M:%S")
    last = "%Y" if len(year) == 4 else "%y"
    ways = [
        pd.to_datetime(text, errors="coerce", format=f"{mark.join(order)}{mark}{last}{clock}")
        for order in (("%d", "%m"), ("%m", "%d"))
    ]
    if mark == ".":  # nobody writes the month first with dots
        return ways[0]
    ways.sort(key=lambda stamps: (int(stamps.isna().sum()), -_evenness(stamps)))
    best, other = ways
    if not other.isna().any() and _evenness(best) == _evenness(other) and not best.equals(other):
        raise UserError(
            f"expected dates in {text.name!r} of {name} that can be read in one way, such as 2024-12-31, "
            f"but {text.iloc[0]!r} and the rest may be day or month first"
        )
    return best


def _evenness(stamps: pd.Series[Any]) -> float:
    """Share of neighbouring stamps that are as far apart as most are, in time or, on one day, in months."""
    found = pd.DatetimeIndex(np.unique(stamps.dropna().to_numpy()))
    if len(found) < 2:
        return 0.0
    months = (found.year * 12 + found.month).to_numpy()
    one_day = found.day.nunique() == 1 or found.is_month_end.all()
    ways = [found.to_numpy(), months] if one_day else [found.to_numpy()]
    return max(float(np.unique(np.diff(way), return_counts=True)[1].max()) for way in ways) / (len(found) - 1)
