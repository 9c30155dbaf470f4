"""What is known beside the values of a series, as further channels with a role.

A covariate is `past` (known up to the present, as the values are), `known` (also beyond it: prices,
holidays, the calendar) or `static` (one value a series). One that is not a number becomes one
channel of 0 and 1 for each of its levels.

Shapes: E series, R rows of all series laid end to end, K covariates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from .frequency import Step

Role = Literal["past", "known", "static"]
#: Most levels of a covariate that is not a number.
LEVELS = 64


@dataclass(frozen=True)
class Covariates:
    """Covariates of a table, laid out as its values are, and beyond them where they are known.

    Attributes:
        names: of the K channels, such as `price` or `weather=rain`.
        roles: of the K channels.
        values: `(R', K)` float64, NaN where nothing is known.
        lengths: `(E,)` rows of each series here, which are its rows of values and those after.
        levels: of each column that is not a number.
    """

    names: tuple[str, ...]
    roles: tuple[Role, ...]
    values: np.ndarray
    lengths: np.ndarray
    levels: Mapping[str, Sequence[str]]

    @property
    def starts(self) -> np.ndarray:
        """`(E,)` first row of each series in `values`."""
        return np.cumsum(self.lengths) - self.lengths

    def laid(self, lengths: np.ndarray) -> Covariates:
        """Cut to, or continued to, `lengths` `(E,)` rows a series; what is static goes on, others are NaN."""
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        last, starts = np.repeat(self.lengths - 1, lengths), np.repeat(self.starts, lengths)
        values = self.values[starts + np.minimum(within, last)]
        static = np.array([role == "static" for role in self.roles], dtype=bool)
        values[(within > last)[:, None] & ~static] = np.nan
        return replace(self, values=values, lengths=lengths)

    def spread(self) -> Covariates:
        """With what is static in every row of its series, those that a gap left empty among them."""
        values, owner = self.values.copy(), np.repeat(np.arange(len(self.lengths)), self.lengths)
        for place in np.flatnonzero([role == "static" for role in self.roles]):
            given = np.flatnonzero(~np.isnan(values[:, place]))
            of_series = np.full(len(self.lengths), np.nan)
            of_series[owner[given]] = values[given, place]
            values[:, place] = of_series[owner]
        return replace(self, values=values)

    def joined(self, names: Sequence[str], role: Role, values: np.ndarray) -> Covariates:
        """With further channels `(R', k)` of one role."""
        roles: tuple[Role, ...] = (*self.roles, *([role] * len(names)))
        return replace(
            self, names=(*self.names, *names), roles=roles, values=np.column_stack([self.values, values])
        )


def encode(
    frame: pd.DataFrame,
    roles: Mapping[str, Role],
    owner: np.ndarray,
    ids: Sequence[str],
    levels: Mapping[str, Sequence[str]],
    name: str,
) -> Covariates:
    """The covariates of a frame, row by row as they stand in it; not yet laid out.

    Args:
        frame: the table.
        roles: by column.
        owner: series of each row; a static covariate is spread over the rows of its series.
        ids: what errors call the series.
        levels: of columns as a model knows them; others are found here. A level that a model does
            not know is none of its channels.
        name: what errors call the table.

    Raises:
        UserError: a column is missing, has too many levels, or is static and changes.
    """
    names: list[str] = []
    found: list[Role] = []
    columns: list[np.ndarray] = []
    kept: dict[str, list[str]] = {}
    for column, role in roles.items():
        if column not in frame.columns:
            near = did_you_mean(column, map(str, frame.columns))
            raise UserError(f"expected a column {column!r} of covariates in {name}, but it has none{near}")
        given = frame[column]
        if role == "static":
            given = _static(given, owner, ids, name)
        if column not in levels and pd.api.types.is_numeric_dtype(given):
            names.append(column)
            columns.append(given.to_numpy(float))
            found.append(role)
            continue
        kept[column] = list(levels.get(column) or _levels(given, name))
        for level in kept[column]:
            names.append(f"{column}={level}")
            columns.append(np.where(given.isna(), np.nan, given.astype(str) == level))
            found.append(role)
    values = np.column_stack(columns) if columns else np.zeros((len(frame), 0))
    return Covariates(tuple(names), tuple(found), values, np.array([len(frame)]), kept)


def _levels(column: pd.Series[Any], name: str) -> list[str]:
    levels = sorted(column.dropna().astype(str).unique())
    if len(levels) > LEVELS:
        raise UserError(
            f"expected at most {LEVELS} different values in the covariate {column.name!r} of {name}, "
            f"which is not a number, but it has {len(levels)}"
        )
    return levels


def _static(column: pd.Series[Any], owner: np.ndarray, ids: Sequence[str], name: str) -> pd.Series[Any]:
    by_series = column.groupby(owner)
    several = by_series.nunique()
    if (several > 1).any():
        series = int(several.index[several.to_numpy() > 1][0])
        of = f" for the series {ids[series]!r}" if ids[series] else ""
        raise UserError(
            f"expected one value of the static covariate {column.name!r}{of} in {name}, "
            f"but it has {int(several.loc[series])}"
        )
    return by_series.transform("first")


def calendar(stamps: pd.DatetimeIndex, step: Step) -> tuple[list[str], np.ndarray]:
    """Sine and cosine of where each stamp lies in the day, the week and the year, `(T, k)`.

    A period is left out if the step does not divide it in at least four: there is no hour of the day
    in daily data, and no day of the week in monthly data.
    """
    day = (stamps - stamps.normalize()) / pd.Timedelta(days=1)
    phases = {
        "day": (1.0, day),
        "week": (7.0, (stamps.day_of_week + day) / 7),
        "year": (365.25, (stamps.day_of_year - 1 + day) / 365.25),
    }
    names, columns = [], []
    for name, (days, phase) in phases.items():
        if days / step.days >= 3.9:
            angle = 2 * np.pi * np.asarray(phase, float)
            names += [f"{name} sin", f"{name} cos"]
            columns += [np.sin(angle), np.cos(angle)]
    return names, np.column_stack(columns) if columns else np.zeros((len(stamps), 0))
