"""Tables of series as they lie on disk: read, checked, put on a regular grid of time.

Shapes: E series, R rows of all series laid end to end, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError, did_you_mean
from ..files import separator_of
from .covariates import Covariates, Role, encode
from .frequency import Step, find_step, regular_grid
from .stamps import read_stamps

SAMPLES = Path(__file__).parents[2] / "samples" / "series"
#: The packaged sample: hourly weather of 2013 at the three airports of New York.
NYC_WEATHER = "nyc_weather"
NYC_CHANNELS = ("temp", "dewp", "humid", "wind_speed", "pressure")


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    Attributes:
        time: of the time stamps.
        series: of the series' names in a long table; a table without this column is wide.
        value: of the values in a long table.
        roles: of covariates, by column.
        levels: of covariates that are no numbers, as a model knows them; others are found.
    """

    time: str = "ds"
    series: str = "unique_id"
    value: str = "y"
    roles: Mapping[str, Role] = field(default_factory=dict)
    levels: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Series on one regular grid of time, each from its own first to its own last row.

    A long table is E series of one channel; a wide one is one series of C channels.

    Attributes:
        ids: names of the E series; one empty name for a wide table.
        channels: names of the C channels.
        values: `(R, C)` float64, NaN where a value is missing; gaps are rows of NaN.
        lengths: `(E,)` rows of each series.
        first: `(E,)` where on the grid each series starts.
        grid: every time stamp from the earliest to the latest.
        step: the time between rows.
        columns: what the file called its columns.
        covariates: of the same rows, and of those after the last value.
    """

    ids: tuple[str, ...]
    channels: tuple[str, ...]
    values: np.ndarray
    lengths: np.ndarray
    first: np.ndarray
    grid: pd.DatetimeIndex
    step: Step
    columns: Columns
    covariates: Covariates

    @property
    def starts(self) -> np.ndarray:
        """`(E,)` first row of each series in `values`."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each series and channel, E * C of them, as forecasts are labelled."""
        if len(self.channels) == 1 and self.ids != ("",):
            return self.ids
        return tuple(
            f"{name}/{channel}" if name else channel for name in self.ids for channel in self.channels
        )

    @property
    def counts(self) -> np.ndarray:
        """`(R, C)` bool: whether each channel has held only whole numbers from 0 up, until this row."""
        other = ~(np.isnan(self.values) | ((self.values >= 0) & (self.values == np.floor(self.values))))
        seen = np.cumsum(other, axis=0)
        before = seen[self.starts] - other[self.starts]
        return seen == np.repeat(before, self.lengths, axis=0)

    def floor(self, series: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """`(n, C)` what no forecast of these series from this many rows on may lie below: 0 of counts."""
        return np.where(self.counts[self.starts[series] + rows - 1], 0.0, -np.inf)

    def stamps(self, rows: np.ndarray) -> list[str]:
        """The stamp, as ISO 8601, of one row `(E,)` of each series, counted from its first one."""
        return [stamp.isoformat() for stamp in self.grid[np.clip(self.first + rows, 0, len(self.grid) - 1)]]

    def only(self, which: np.ndarray) -> Table:
        """The series `which` `(E,)` bool alone, on the same grid."""
        beside = self.covariates
        values = beside.values[np.repeat(which, beside.lengths)]
        return replace(
            self,
            ids=tuple(name for name, kept in zip(self.ids, which, strict=True) if kept),
            values=self.values[np.repeat(which, self.lengths)],
            lengths=self.lengths[which],
            first=self.first[which],
            covariates=replace(beside, values=values, lengths=beside.lengths[which]),
        )

    def until(self, rows: np.ndarray) -> pd.DataFrame:
        """The first `rows` `(E,)` rows of each series, long or wide as the table was read."""
        within = np.arange(len(self.values)) - np.repeat(self.starts, self.lengths)
        kept = within < np.repeat(rows, self.lengths)
        owner = np.repeat(np.arange(len(self.ids)), self.lengths)[kept]
        columns: dict[str, Any] = {self.columns.time: self.grid[self.first[owner] + within[kept]]}
        if self.ids != ("",):
            columns[self.columns.series] = np.array(self.ids, dtype=object)[owner]
        columns |= {name: self.values[kept, place] for place, name in enumerate(self.channels)}
        return pd.DataFrame(columns | self._written(kept))

    def _written(self, kept: np.ndarray) -> dict[str, Any]:
        """The covariates of some rows `(R,)` as they were read."""
        beside = self.covariates.laid(self.lengths)
        written: dict[str, Any] = {}
        for name in self.columns.roles:
            levels = beside.levels.get(name)
            if levels is None:
                written[name] = beside.values[kept, beside.names.index(name)]
                continue
            places = [beside.names.index(f"{name}={level}") for level in levels]
            chosen = beside.values[kept][:, places]
            found = np.array([*levels, None], dtype=object)
            written[name] = found[np.where(np.nansum(chosen, axis=1) > 0, chosen.argmax(1), -1)]
        return written

    def future(self, horizon: int) -> list[pd.DatetimeIndex]:
        """The `horizon` stamps after the last row of each series."""
        last = self.first + self.lengths - 1
        stamps = {int(end): self.step.after(self.grid[end], horizon) for end in set(last.tolist())}
        return [stamps[int(end)] for end in last]


def read_table(path: str, columns: Columns | None = None, freq: str | None = None) -> Table:
    """Read a long or wide table, CSV (also compressed) or Parquet, or the packaged `nyc_weather`.

    Args:
        path: file, or the name of the packaged sample.
        columns: names of its columns.
        freq: pandas' name of the time between rows (`h`, `D`, `MS`, ...); None infers it.

    Raises:
        UserError: the file cannot be read, a column is missing or not of its kind, a stamp is
            given twice, or the stamps are not regular.
    """
    columns = columns or Columns()
    frame = _nyc_weather(columns) if path == NYC_WEATHER else read_frame(path)
    return to_table(frame, columns, freq, path)


def to_table(
    frame: pd.DataFrame, columns: Columns | None = None, freq: str | None = None, name: str = "table"
) -> Table:
    """Put a data frame, long or wide, on a regular grid; `name` is what errors call it.

    Raises:
        UserError: as `read_table`.
    """
    columns = columns or Columns()
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise UserError(f"expected each column of {name} once, but {str(twice[0])!r} is there more than once")
    if columns.time not in frame.columns:
        near = did_you_mean(columns.time, map(str, frame.columns))
        raise UserError(
            f"expected a time column {columns.time!r} in {name}, but its columns are {_listed(frame)}"
            f"{near or ': name it with --data.time'}"
        )
    if frame.empty:
        raise UserError(f"expected rows in {name}, but it has only column names")
    long = columns.series in frame.columns
    if long and columns.value not in frame.columns:
        raise UserError(
            f"expected a column {columns.value!r} in the long table {name}, "
            f"but its columns are {_listed(frame)}"
        )
    beside = (columns.time, *columns.roles)
    channels = [columns.value] if long else [str(c) for c in frame.columns if c not in beside]
    if not channels:
        raise UserError(f"expected at least one column of values beside {columns.time!r} in {name}")
    values = np.column_stack([numbers(frame[channel], name) for channel in channels])
    if np.isnan(values).all():
        raise UserError(
            f"expected values in {name}, but there is none under {', '.join(map(repr, channels[:3]))}"
        )
    time = read_stamps(frame[columns.time], name)
    if long:
        nameless = frame[columns.series].isna().to_numpy()
        if nameless.any():
            raise UserError(
                f"expected the name of a series in every row of {columns.series!r} in {name}, "
                f"but row {int(nameless.argmax()) + 1} has none"
            )
        owner, ids = pd.factorize(frame[columns.series].astype(str))
    else:
        owner, ids = np.zeros(len(frame), int), pd.Index([""])
    _refuse_duplicates(time, owner, ids, name)
    step = find_step(time, owner, freq, name)
    grid, where = regular_grid(time, step, name)
    covariates = encode(frame, columns.roles, owner, tuple(ids), columns.levels, name)
    first, lengths, ahead = _extents(values, owner, where, columns, tuple(ids), name)
    laid = _laid(values, owner, where, first, lengths)
    beside_rows = _laid(covariates.values, owner, where, first, lengths + ahead)
    covariates = replace(covariates, values=beside_rows, lengths=lengths + ahead).spread()
    return Table(tuple(ids), tuple(channels), laid, lengths, first, grid, step, columns, covariates)


def _extents(
    values: np.ndarray,
    owner: np.ndarray,
    where: np.ndarray,
    columns: Columns,
    ids: Sequence[str],
    name: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where on the grid each series starts, its rows, and the rows after them that only covariates have.

    All `(E,)`. Without known covariates every row counts as one of the series.

    Raises:
        UserError: a series has covariates and no value.
    """
    known = "known" in columns.roles.values()
    counts = ~np.isnan(values).all(1) if known else np.ones(len(values), dtype=bool)
    first, last, end = np.full(len(ids), np.iinfo(np.int64).max), np.full(len(ids), -1), np.full(len(ids), -1)
    np.minimum.at(first, owner[counts], where[counts])
    np.maximum.at(last, owner[counts], where[counts])
    np.maximum.at(end, owner, where)
    if (last < 0).any():
        raise UserError(
            f"expected values of the series {ids[int(last.argmin())]!r} in {name}, but it has none"
        )
    return first, last - first + 1, end - last


def _laid(
    values: np.ndarray, owner: np.ndarray, where: np.ndarray, first: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """`lengths` rows of every series from its first, end to end; rows that are not there are NaN."""
    starts = np.cumsum(lengths) - lengths
    row = where - first[owner]
    inside = (row >= 0) & (row < lengths[owner])
    rows = np.full((int(lengths.sum()), values.shape[1]), np.nan)
    rows[starts[owner[inside]] + row[inside]] = values[inside]
    return rows


def read_frame(path: str) -> pd.DataFrame:
    """A CSV or Parquet file as it is, without a nameless first column that only counts the rows.

    Raises:
        UserError: it is not there, or is no table.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        kind = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"expected a CSV or Parquet table (or {NYC_WEATHER!r}), but {path!r} {kind}")
    suffixes = [suffix.lower() for suffix in file.suffixes]
    try:
        if suffixes and suffixes[-1] in (".parquet", ".pq"):
            return pd.read_parquet(file)
        if ".csv" in suffixes[-2:]:
            return _without_count(pd.read_csv(file, sep=separator_of(file), encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"expected a table in UTF-8 in {path!r}, but byte {error.start} is not: save it as CSV UTF-8"
        ) from error
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"expected a table in {path!r}, but it cannot be read: {error}") from error
    raise UserError(f"expected a table in .csv (also .csv.gz) or .parquet, but got {path!r}")


def _without_count(frame: pd.DataFrame) -> pd.DataFrame:
    """Less the index that pandas writes as a first column without a name."""
    first = frame.columns[0]
    counts = str(first) == "Unnamed: 0" and np.array_equal(frame[first], np.arange(len(frame)))
    return frame.drop(columns=first) if counts else frame


def _nyc_weather(columns: Columns) -> pd.DataFrame:
    """The packaged sample as a wide table of 15 channels, such as `EWR temp`."""
    frame = pd.read_csv(SAMPLES / "nyc_weather.csv.gz", parse_dates=["time_hour"])
    wide = frame.pivot(index="time_hour", columns="origin", values=list(NYC_CHANNELS))
    wide.columns = wide.columns.map(lambda pair: f"{pair[1]} {pair[0]}")
    return wide.rename_axis(columns.time).reset_index()


def numbers(column: pd.Series[Any], name: str) -> np.ndarray:
    """A column as float64, NaN where nothing is given; `name` is what errors call the table.

    Raises:
        UserError: it holds something else.
    """
    found = pd.to_numeric(column, errors="coerce")
    if found.isna().sum() > column.isna().sum():
        found = pd.to_numeric(_with_points(column, name), errors="coerce")
    bad = found.isna() & column.notna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise UserError(
            f"expected numbers in {column.name!r} of {name}, but row {row + 1} holds {column.iloc[row]!r}"
        )
    values = found.to_numpy(float)
    return np.where(np.isfinite(values), values, np.nan)


def _with_points(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Numbers as spreadsheets of other countries write them, 3,5 and 1.003,5, as 3.5 and 1003.5.

    Raises:
        UserError: as far as the column tells, 1,003 may be either.
    """
    text = column.astype(str).str.strip()
    commas = text[text.str.contains(",", regex=False)]
    if len(commas) and commas.str.fullmatch(r"-?[1-9]\d{0,2},\d{3}").all():
        large = commas.iloc[0]
        raise UserError(
            f"expected numbers in {column.name!r} of {name}, but {large!r} may be "
            f"{large.replace(',', '')} or {large.replace(',', '.')}: write one of these"
        )
    european = text.str.fullmatch(r"-?(\d+|\d{1,3}(\.\d{3})+),\d+")
    if european.any():  # then 1.003 in the same column is 1003
        european |= text.str.fullmatch(r"-?\d{1,3}(\.\d{3})+")
    points = text.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    return text.mask(european, points).where(column.notna())


def _refuse_duplicates(time: pd.DatetimeIndex, owner: np.ndarray, ids: pd.Index[Any], name: str) -> None:
    twice = pd.MultiIndex.from_arrays([owner, time]).duplicated()
    if twice.any():
        row = int(twice.argmax())
        of = f" of the series {ids[owner[row]]!r}" if ids[owner[row]] else ""
        raise UserError(
            f"expected each stamp once, but {time[row]}{of} is in {name} more than once "
            "(an hour that daylight saving repeats needs its offset from UTC)"
        )


def _listed(frame: pd.DataFrame) -> str:
    shown = [str(column) for column in frame.columns[:12]]
    return ", ".join(shown) + (", ..." if len(frame.columns) > len(shown) else "")
