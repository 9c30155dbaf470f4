"""Covariates as the model reads them: scaled by train rows, on the time of the look-back.

A known covariate is shifted: its channel holds, at each place of the look-back, the value one horizon
later. So the future it tells of lies within the look-back's own places, where attention across the
channels of a sample finds it beside the values.

Shapes: E series, R' rows of covariates, K covariates, n origins, L rows of context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from .covariates import Covariates, Role, calendar
from .table import Table


@dataclass(frozen=True)
class Given:
    """The covariates of a table, as a config names them.

    Attributes:
        past: columns known up to the present, as the values are.
        known: columns known beyond it too; rows after a series' last value give them for a forecast.
        static: columns of one value a series.
        calendar: whether the time of day, week and year are known covariates.
    """

    past: Sequence[str] = ()
    known: Sequence[str] = ()
    static: Sequence[str] = ()
    calendar: bool = False

    def roles(self) -> dict[str, Role]:
        """The role of each column. Raises UserError if a column has two."""
        named: dict[str, Role] = {}
        roles: tuple[tuple[Role, Sequence[str]], ...] = (
            ("past", self.past),
            ("known", self.known),
            ("static", self.static),
        )
        for role, columns in roles:
            for column in columns:
                if column in named:
                    raise UserError(
                        f"expected one role of the covariate {column!r}, but got {named[column]} and {role}"
                    )
                named[column] = role
        return named


@dataclass(frozen=True)
class Beside:
    """Covariates of a table.

    Attributes:
        covariates: with the rows after the last value, where they are known.
        mean, scale: `(K,)` of the train rows.
        horizon: rows by which known covariates are shifted.
    """

    covariates: Covariates
    mean: np.ndarray
    scale: np.ndarray
    horizon: int

    def at(self, series: np.ndarray, rows: np.ndarray, length: int, ahead: int = 0) -> tuple[Tensor, Tensor]:
        """Scaled covariates before each origin and which of them are observed, both `(n, K, L)`.

        Args:
            series, rows: `(n,)` the origins: the first row that is not known of their series' values.
            length: L.
            ahead: rows that the look-back ends after the origin, in a forecast that reads its own
                forecasts; past covariates are not known there.
        """
        known = np.array([role == "known" for role in self.covariates.roles])
        past = np.array([role == "past" for role in self.covariates.roles])
        shift = np.where(known, self.horizon, 0)[:, None]
        index = rows[:, None, None] + ahead - length + np.arange(length) + shift
        last = self.covariates.lengths[series][:, None, None] - 1
        inside = (index >= 0) & (index <= last) & ~(past[:, None] & (index >= rows[:, None, None]))
        place = self.covariates.starts[series][:, None, None] + np.clip(index, 0, last)
        values = self.covariates.values[place, np.arange(len(known))[:, None]]
        observed = inside & ~np.isnan(values)
        scaled = (np.where(observed, values, 0.0) - self.mean[:, None]) / self.scale[:, None]
        scaled = np.where(observed, scaled, 0.0).astype(np.float32)
        return torch.from_numpy(scaled), torch.from_numpy(observed)

    def check(self, table: Table, steps: int) -> None:
        """Refuse a forecast of `steps` rows for which a known covariate is not known.

        Raises:
            UserError: naming the covariate and the series.
        """
        starts = self.covariates.starts + table.lengths
        ahead = self.covariates.values[starts[:, None] + np.arange(steps)]  # (E, H, K)
        found = (~np.isnan(ahead)).sum(1)
        for place, (name, role) in enumerate(zip(self.covariates.names, self.covariates.roles, strict=True)):
            short = found[:, place] < steps
            if role == "known" and short.any():
                series = int(short.argmax())
                of = f" of the series {table.ids[series]!r}" if table.ids[series] else ""
                raise UserError(
                    f"expected the known covariate {name.partition('=')[0]!r} in {steps} rows after the last "
                    f"value{of}, but it is in {int(found[series, place])}"
                )

    def facts(self) -> list[dict[str, Any]]:
        """Name, role, mean and scale of every covariate, as plain values."""
        columns = (self.covariates.names, self.covariates.roles, self.mean.tolist(), self.scale.tolist())
        keys = ("name", "role", "mean", "scale")
        return [dict(zip(keys, each, strict=True)) for each in zip(*columns, strict=True)]


def beside(table: Table, with_calendar: bool, extra: int = 0) -> Covariates:
    """The covariates of a table up to `extra` rows after the last value of each series, calendar included."""
    lengths = table.lengths + extra
    covariates = table.covariates.laid(lengths)
    if not with_calendar:
        return covariates
    grid = pd.DatetimeIndex([*table.grid, *table.step.after(table.grid[-1], extra)]) if extra else table.grid
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    names, values = calendar(grid, table.step)
    return covariates.joined(names, "known", values[np.repeat(table.first, lengths) + within])


def fit_beside(table: Table, with_calendar: bool, train: np.ndarray, horizon: int) -> Beside | None:
    """Covariates scaled by the first `train` `(E,)` rows of each series; None if there are none."""
    covariates = beside(table, with_calendar)
    if not covariates.names:
        return None
    within = np.arange(len(covariates.values)) - np.repeat(covariates.starts, covariates.lengths)
    rows = covariates.values[within < np.repeat(train, covariates.lengths)]
    count = np.maximum((~np.isnan(rows)).sum(0), 1)
    mean = np.nansum(rows, axis=0) / count
    scale = np.sqrt(np.nansum((rows - mean) ** 2, axis=0) / count)
    return Beside(covariates, mean, np.where(scale > 1e-9 * np.maximum(abs(mean), 1e-9), scale, 1.0), horizon)


def read_beside(
    table: Table, facts: Sequence[Mapping[str, Any]], with_calendar: bool, horizon: int, extra: int
) -> Beside | None:
    """Covariates scaled as a model's `facts` say, up to `extra` rows ahead; None if it reads none."""
    if not facts:
        return None
    mean, scale = (np.array([fact[key] for fact in facts]) for key in ("mean", "scale"))
    return Beside(beside(table, with_calendar, extra), mean, scale, horizon)
