"""What a finished model reads at any row of a table: the rows before it, scaled as in training.

Shapes: E series, R rows of all series, C channels, n origins, L rows of context.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from ..model import Model
from .beside import read_beside
from .data import fill_forward
from .table import Table

LOG = logging.getLogger("triptych")


@dataclass(frozen=True)
class Context:
    """The rows before n origins.

    Attributes:
        values: `(n, C, L)` scaled; 0 where nothing is observed.
        observed: `(n, C, L)` bool.
        beside: covariates `(n, K, L)` and which of them are observed, for a look-back that ends so
            many rows after the origin; None if the model reads none.
        names: `(n, C)` places among the names the model was trained on, -1 for others.
        mean, scale: `(n, C)` what brings a scaled forecast back to the table's units.
    """

    values: Tensor
    observed: Tensor
    names: Tensor
    mean: np.ndarray
    scale: np.ndarray
    beside: Callable[[int], tuple[Tensor, Tensor]] | None = None

    def unscale(self, quantiles: np.ndarray) -> np.ndarray:
        """Scaled quantiles `(n, C, H, Q)` in the units of the table, in double precision."""
        return quantiles.astype(np.float64) * self.scale[..., None, None] + self.mean[..., None, None]


class Contexts:
    """The context of a model at any row of a table.

    Sequences that the model was trained on are scaled as they were then; others by their own
    context. In double precision, which keeps values of any size exact in the model's single precision.

    Args:
        model: with one objective that forecasts.
        table: what it reads.
        fill: whether gaps are filled forward and read as observed, as in training.
        steps: rows that will be forecast after the table's last ones.
    """

    def __init__(self, model: Model, table: Table, fill: bool, steps: int = 0) -> None:
        assert model.spec is not None
        facts: Mapping[str, Any] = model.spec.data["series"]
        self.table, self.length, self.together = table, int(facts["context"]), bool(facts.get("together"))
        self.patch = int(getattr(model.tokenizers["series"], "patch", 1))
        self.filled, known = fill_forward(table.values, table.starts, table.lengths)
        self.seen = known if fill else ~np.isnan(table.values)
        self.names, self.mean, self.scale = _known(table, facts, _reads_levels(model))
        covariates = facts.get("covariates", [])
        with_calendar = len(covariates) > len(table.covariates.names)
        self.beside = read_beside(table, covariates, with_calendar, int(facts["horizon"]), steps)

    def at(self, series: np.ndarray, rows: np.ndarray) -> Context:
        """The context before each origin.

        Args:
            series: `(n,)` which series.
            rows: `(n,)` first row that is not read, counted from that series' first.
        """
        first = self.table.starts[series]
        index = (first + rows)[:, None] + np.arange(-self.length, 0)
        inside = index >= first[:, None]
        index = np.maximum(index, 0)
        values = self.filled[index].transpose(0, 2, 1)
        observed = (self.seen[index] & inside[:, :, None]).transpose(0, 2, 1)
        values, mean, scale = _scaled(values, observed, self.mean[series], self.scale[series])
        return Context(
            torch.from_numpy(values.astype(np.float32)),
            torch.from_numpy(observed),
            torch.from_numpy(self.names[series]),
            mean,
            scale,
            None if self.beside is None else partial(self.beside.at, series, rows, self.length),
        )

    def readable(self, series: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """`(E,)` bool: series with one window of the model full and every channel known at all origins.

        The others are named in the log.

        Args:
            series: `(n,)` which series.
            rows: `(n,)` first row that is not read, counted from that series' first.

        Raises:
            UserError: there is none.
        """
        observed = self.at(series, rows).observed.sum(2).numpy()
        short = (rows < self.patch) | (observed == 0).any(1)
        found = np.ones(len(self.table.ids), dtype=bool)
        found[series[short]] = False
        if not short.any():
            return found
        origin = int(short.argmax())
        channel = int(observed[origin].argmin())
        name = self.table.names[int(series[origin]) * len(self.table.channels) + channel]
        why = (
            f"at least {self.patch} rows, one window of the model"
            if rows[origin] < self.patch
            else f"values in the last {self.length} rows"
        )
        has = f"{int(observed[origin, channel])} values in {rows[origin]} rows"
        if not found[series].any():
            raise UserError(f"expected the series {name!r} to have {why}, but it has {has}")
        others = int((~found).sum()) - 1
        LOG.warning(
            f"left out the series {name!r}, which has {has} where the model needs {why}"
            + (f", and {others} more" if others else "")
        )
        return found


def _reads_levels(model: Model) -> bool:
    """Whether a model tells levels or series apart, so that those it knows must be scaled as in training."""
    tokenizer: Any = model.tokenizers["series"]
    own = any(getattr(member, "own", False) for _, member in model.objective)
    return own or tokenizer.known or tokenizer.level or tokenizer.normalise != "instance"


def _known(table: Table, facts: Mapping[str, Any], levels: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places among the names a model was trained on (-1 for others), mean and deviation (NaN for others).

    All three are `(E, C)`. A model that reads no levels needs to know none.
    """
    known = facts if levels else {"names": [], "mean": [], "scale": []}
    places = {name: place for place, name in enumerate(known["names"])}
    names = np.array([places.get(name, -1) for name in table.names])
    shape = (len(table.ids), len(table.channels))
    mean, scale = (np.append(known[key], np.nan)[names].reshape(shape) for key in ("mean", "scale"))
    return names.reshape(shape), mean, scale


def _scaled(
    values: np.ndarray, observed: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(n, C, L)` less `mean` over `scale` `(n, C)`; where those are NaN, by their own observed values."""
    count = np.maximum(observed.sum(2), 1)
    values = np.where(observed, values, 0.0)
    own_mean = values.sum(2) / count
    own_scale = np.sqrt((np.where(observed, values - own_mean[..., None], 0.0) ** 2).sum(2) / count)
    mean = np.where(np.isnan(mean), own_mean, mean)
    scale = np.where(np.isnan(scale), np.where(own_scale > 0, own_scale, 1.0), scale)
    return np.where(observed, (values - mean[..., None]) / scale[..., None], 0.0), mean, scale
