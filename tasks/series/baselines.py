"""What every forecast is shown beside: naive, seasonal naive and pooled ridge, on the same windows.

Shapes: n windows, C channels, L rows of context, H rows of horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...tokenizers.view import View
from .windows import Windows

#: Strengths tried, as shares of the mean variance of the inputs.
STRENGTHS = tuple(10.0**power for power in range(-6, 3))


def naive(context: np.ndarray, horizon: int) -> np.ndarray:
    """The last value again: `(n, C, L)` -> `(n, C, H)`."""
    return np.repeat(context[..., -1:], horizon, axis=-1)


def seasonal_naive(context: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """The last season again: `(n, C, L)` -> `(n, C, H)`; a shorter context is repeated whole."""
    period = min(season, context.shape[-1])
    return context[..., -period:][..., np.arange(horizon) % period]


@dataclass(frozen=True)
class Ridge:
    """One linear map of a channel's own lags, less its last value, shared by all channels.

    Attributes:
        weight: `(L, H)`.
        strength: the penalty, as a share of the mean variance of the inputs.
    """

    weight: np.ndarray
    strength: float

    def __call__(self, context: np.ndarray) -> np.ndarray:
        """`(n, C, L)` -> `(n, C, H)`."""
        last = context[..., -1:]
        return last + (context - last) @ self.weight


def fit_ridge(train: Windows, val: Windows) -> Ridge:
    """Ridge in closed form, its strength chosen by the squared error on the validation windows.

    The normal equations are summed over blocks of windows, so that memory does not grow with
    the data; windows with a missing target row count with that row's filled value, as the
    context does.
    """
    gram = np.zeros((train.context, train.context))
    moment = np.zeros((train.context, train.horizon))
    for _, view in train.in_order():
        context, future = arrays(view)
        last = context[..., -1:]
        lags = (context - last).reshape(-1, train.context).astype(np.float64)
        gram += lags.T @ lags
        moment += lags.T @ (future - last).reshape(-1, train.horizon)
    values, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ moment
    candidates = [
        Ridge(vectors @ (rotated / (np.maximum(values, 0) + strength * values.mean())[:, None]), strength)
        for strength in STRENGTHS
    ]
    errors = np.zeros(len(candidates))
    for _, view in val.in_order():
        context, future = arrays(view)
        observed = view.targets["future_observed"].numpy()
        for index, candidate in enumerate(candidates):
            errors[index] += np.square((candidate(context) - future)[observed]).sum()
    return candidates[int(errors.argmin())]


def arrays(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Context `(n, C, L)` and future `(n, C, H)` of a view without its covariates.

    What is missing holds its filled value.
    """
    assert not isinstance(view.data, list)
    future = view.targets["future"].numpy()
    return view.data[:, : future.shape[1]].numpy(), future
