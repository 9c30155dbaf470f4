"""Windows over series that lie end to end, drawn by index arithmetic: no loop over series or windows.

Shapes: E series, R rows of all series, C channels, n windows, L rows of context, H rows of horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from ...tokenizers.view import Batch, View

#: Shares of the rows that train, validate and test.
SPLIT = (0.7, 0.1, 0.2)
#: Windows drawn at once where all are wanted.
BLOCK = 4096


@dataclass(frozen=True)
class Span:
    """The rows `[low, high)` of each series in which a split's forecasts lie; both `(E,)`."""

    low: np.ndarray
    high: np.ndarray


def split_spans(lengths: np.ndarray, split: Sequence[float] = SPLIT) -> dict[str, Span]:
    """Chronological train, validation and test rows of each series.

    Args:
        lengths: `(E,)` rows of each series.
        split: shares of the rows that train, validate and test, which sum to 1: the first two of
            the borders are rounded as the published benchmarks do (train and test down). Or rows:
            the first `split[0]` train, the next `split[1]` validate, the next `split[2]` test,
            and what comes after is left out, as the published split of ETT does.

    Raises:
        UserError: the three numbers are neither shares that sum to 1 nor whole numbers of rows.
    """
    low, middle, high = _sizes(lengths, split)
    return {
        "train": Span(np.zeros_like(low), low),
        "val": Span(low, middle),
        "test": Span(middle, high),
    }


def _sizes(lengths: np.ndarray, split: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The row, in each series, after the last one of each split; all `(E,)`."""
    whole = all(share == int(share) for share in split)
    if len(split) == 3 and min(split) >= 0 and abs(sum(split) - 1) < 1e-9:
        train = (lengths * split[0]).astype(np.int64)
        test = np.minimum((lengths * split[2]).astype(np.int64), lengths - train)
        return train, (lengths - test).astype(np.int64), lengths.astype(np.int64)
    if len(split) == 3 and min(split) >= 0 and whole and max(split) > 1:
        ends = np.cumsum(split).astype(np.int64)
        train, val, test = (np.minimum(lengths, end).astype(np.int64) for end in ends)
        return train, val, test
    raise UserError(
        f"expected data.split to be three shares that sum to 1, or three numbers of rows, but got {[*split]}"
    )


def window_origins(span: Span, starts: np.ndarray, context: int, horizon: int, stride: int = 1) -> np.ndarray:
    """First forecast row of every window, as rows of the series laid end to end.

    The forecast lies wholly in the span; its context lies in the same series and may reach
    back before the span. So a series gives `(high - max(low, context) - horizon) // stride + 1`
    windows, or none.

    Args:
        span: rows of each series.
        starts: `(E,)` first row of each series.
        context, horizon: rows before and after the origin.
        stride: rows between the origins of one series.

    Returns:
        `(n,)`, in the order of the series and of time.
    """
    low = np.maximum(span.low, context)
    counts = np.maximum(0, (span.high - low - horizon) // stride + 1)
    counts[span.high - low < horizon] = 0
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts + low, counts) + within * stride


class Windows:
    """Windows as a data set: an item is an index, and `collate` draws a whole batch at once.

    Items are ordered by series, then time, then (where channels are apart) channel.

    Args:
        values: `(R, C)`; what is missing may hold anything.
        observed: `(R, C)` bool.
        origins: `(n,)` first forecast row of each window.
        context, horizon: rows before and after the origin.
        together: an item is a window of all channels, rather than of one.
        view: name of the view.
        series: `(n,)` which of the E series each window is of.
        beside: draws the covariates `(n, K, L)` of some windows, and which of them are observed.
    """

    def __init__(
        self,
        values: Tensor,
        observed: Tensor,
        origins: np.ndarray,
        context: int,
        horizon: int,
        together: bool = False,
        view: str = "train",
        series: np.ndarray | None = None,
        beside: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.values, self.observed, self.origins = values, observed, torch.from_numpy(origins)
        self.context, self.horizon, self.together, self.view = context, horizon, together, view
        self.beside = beside
        self.each = 1 if together else values.shape[1]
        self.series = (
            torch.zeros(len(origins), dtype=torch.long) if series is None else torch.from_numpy(series)
        )

    def __len__(self) -> int:
        return len(self.origins) * self.each

    def __getitem__(self, key: tuple[int, int]) -> int:
        """The window's own index; nothing is drawn at random."""
        return key[1]

    def collate(self, items: Sequence[int]) -> Batch:
        """One view: `data` and `observed` `(n, C + K, L)`, and three targets.

        They are `future` and `future_observed` `(n, C, H)`, and `name` `(n, C)`, the index of each
        sequence among the table's names. The K covariates come last and are no targets.
        """
        index = torch.tensor(items)
        values, observed = (self._draw(column, index) for column in (self.values, self.observed))
        context, seen = values[..., : self.context], observed[..., : self.context]
        if self.beside is not None:
            more, more_seen = self.beside(index // self.each)
            context, seen = torch.cat([context, more], dim=1), torch.cat([seen, more_seen], dim=1)
        view = View(
            "series",
            context,
            observed=seen,
            targets={
                "future": values[..., self.context :],
                "future_observed": observed[..., self.context :],
                "name": self._names(index),
            },
            ids=tuple(items),
        )
        return {self.view: view}

    def in_order(self) -> Iterator[tuple[slice, View]]:
        """Every window once, many at a time: which, and their view."""
        for start in range(0, len(self), BLOCK):
            which = slice(start, min(start + BLOCK, len(self)))
            (view,) = self.collate(range(which.start, which.stop)).values()
            yield which, view

    def _names(self, index: Tensor) -> Tensor:
        """`(n, C)` places in the table's names; C is 1 where channels are apart."""
        channels = self.values.shape[1]
        first = self.series[index // self.each].unsqueeze(1) * channels
        return first + (torch.arange(channels) if self.together else (index % self.each).unsqueeze(1))

    def _draw(self, column: Tensor, index: Tensor) -> Tensor:
        """`(n, C, L + H)` of a column `(R, C)`; C is 1 where channels are apart."""
        strips = column.unfold(0, self.context + self.horizon, 1)  # from every row, (R', C, L + H), a view
        first = self.origins[index // self.each] - self.context
        return strips[first] if self.together else strips[first, index % self.each].unsqueeze(1)
