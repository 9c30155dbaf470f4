"""The letters probe: which letters a clip's transcript holds, read off frozen features.

Shapes: n clips, F features of a clip, K letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data import seed_of

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: A letter is asked for if at least this share of the clips has it, and this share has not.
RAREST = 0.1
#: Inverse strengths of the penalty tried inside the training clips.
STRENGTHS = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Score:
    """Macro AUC of one kind of features, over repeated splits.

    Attributes:
        splits: AUC of each split, the mean over the letters.
    """

    splits: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the splits."""
        return float(np.mean(self.splits))


def letters(texts: Sequence[str]) -> tuple[list[str], NDArray[np.bool_]]:
    """Letters that are neither rare nor everywhere, and which of the n texts have each, `(n, K)`."""
    lowered = [text.lower() for text in texts]
    known = sorted({letter for text in lowered for letter in text if letter.isalpha()})
    present = np.array([[letter in text for letter in known] for text in lowered])
    share = present.mean(0)
    kept = (share >= RAREST) & (share <= 1 - RAREST)
    return [letter for letter, keep in zip(known, kept, strict=True) if keep], present[:, kept]


def groups(table: pd.DataFrame) -> NDArray[np.int64]:
    """A number for each clip, equal for clips that share a prompt or a text, even in a chain."""
    parent = list(range(len(table)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for column in ("prompt", "text"):
        if column in table:
            first: dict[str, int] = {}
            for index, key in enumerate(table[column].str.lower()):
                parent[root(index)] = root(first.setdefault(key, index))
    return np.array([root(index) for index in range(len(table))])


def folds(group: NDArray[np.int64], repeats: int, count: int = 5) -> list[NDArray[np.bool_]]:
    """Test masks `(n,)` of `repeats` times `count`-fold cross-validation that never splits a group."""
    masks = []
    for repeat in range(repeats):
        names = np.unique(group)
        place = np.random.default_rng(seed_of("letters", repeat)).permutation(len(names)) % count
        fold = place[np.searchsorted(names, group)]
        masks += [fold == index for index in range(count)]
    return masks


def score(
    candidates: Sequence[Array], present: NDArray[np.bool_], group: NDArray[np.int64], repeats: int = 1
) -> Score:
    """Macro AUC of logistic regressions, one a letter, over splits that keep groups together.

    Which candidate (layer) to read, and then the strength of the penalty, are chosen for all
    letters at once, on a fifth of the training clips' groups; the test clips have no part in it.

    Args:
        candidates: `(n, F)` features, of one layer each.
        present: `(n, K)` which letters each clip has.
        group: `(n,)` clips that stay on one side of a split.
        repeats: of five-fold cross-validation.
    """
    results = []
    for test in folds(group, repeats):
        train = ~test
        inner = folds(group[train], 1)[0]
        held = [_auc(x[train], present[train], inner, STRENGTHS[1]) for x in candidates]
        x = candidates[int(np.argmax(held))]
        areas = [_auc(x[train], present[train], inner, strength) for strength in STRENGTHS]
        strength = STRENGTHS[int(np.argmax(areas))]
        results.append(_auc(x, present, test, strength))
    return Score(tuple(results))


def _auc(x: Array, present: NDArray[np.bool_], test: NDArray[np.bool_], strength: float) -> float:
    """Mean AUC over the letters that both sides have and lack."""
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    scaler = StandardScaler().fit(x[~test])
    known, truth = present[~test], present[test]
    asked = np.logical_and.reduce([known.any(0), ~known.all(0), truth.any(0), ~truth.all(0)])
    with threadpool_limits(1):  # threads cost more than matrices of this size take
        weight, bias = logistic(scaler.transform(x[~test]), known[:, asked], strength)
    return float(roc_auc_score(truth[:, asked], scaler.transform(x[test]) @ weight + bias))


def logistic(x: Array, y: NDArray[np.bool_], strength: float) -> tuple[Array, Array]:
    """Logistic regressions of all K letters in one minimisation, several times as fast as one after another.

    Args:
        x: `(n, F)` standardised features.
        y: `(n, K)`.
        strength: inverse strength of the penalty on the weights; the bias has none.

    Returns:
        Weights `(F, K)` and bias `(K,)`.
    """
    from scipy.optimize import minimize

    shape = (x.shape[1] + 1, y.shape[1])

    def loss(flat: Array) -> tuple[float, Array]:
        weight, bias = np.split(flat.reshape(shape), [-1])
        z = x @ weight + bias
        error = strength * (1 / (1 + np.exp(-z)) - y)
        gradient = np.concatenate([x.T @ error + weight, error.sum(0, keepdims=True)])
        return float(strength * (np.logaddexp(0, z) - y * z).sum() + (weight**2).sum() / 2), gradient.ravel()

    options = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-6 * strength * len(x)}
    found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options=options)
    weight, bias = np.split(found.x.reshape(shape), [-1])
    return weight, bias[0]
