"""Frozen features of a data set, and what can be read off them: neighbours and linear probes.

Shapes: B samples, D feature width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..objectives.classification import UNLABELLED, pooled
from .model import Model

#: How an entry's tokens become one vector; `auto` takes the class token where there is one.
Pool = Literal["auto", "class", "mean", "both"]


@dataclass(frozen=True)
class Features:
    """Features of the samples of a split, in its order.

    Attributes:
        x: `(B, D)` frozen features.
        label: `(B,)` class indices, -1 where there is none.
        raw: `(B, values)` the raw input, where all samples have one shape; else None.
        ids: index of each sample in its split.
    """

    x: Tensor
    label: Tensor
    raw: Tensor | None
    ids: tuple[int, ...]

    def labelled(self) -> Features:
        """Only the samples that have a label."""
        keep = self.label != UNLABELLED
        raw = None if self.raw is None else self.raw[keep]
        return Features(self.x[keep], self.label[keep], raw, tuple(torch.tensor(self.ids)[keep].tolist()))


def features(model: Model, loader: Any, layer: int = -1, pool: Pool = "auto") -> Features:
    """Run the frozen model over a plain loader.

    Args:
        model: in evaluation mode.
        loader: batches of the one view `plain`.
        layer: whose tokens: 1 to depth, or -1 for the end after the final norm.
        pool: how tokens become one vector; `both` is class token and mean side by side.
    """
    device = next(model.parameters()).device
    vectors, labels, raws, ids = [], [], [], []
    for batch in loader:
        (view,) = batch.values()
        view = view.to(device)
        tokens = model.embed(view, layer)
        if pool == "auto":
            pool = "class" if "class" in tokens.prefix else "mean"
        pools = ("class", "mean") if pool == "both" else (pool,)
        vectors.append(torch.cat([pooled(tokens, name, len(view)) for name in pools], dim=1).cpu())
        labels.append(view.targets.get("label", torch.full((len(view),), UNLABELLED)).cpu())
        raws.append(view.data.flatten(1).cpu() if isinstance(view.data, Tensor) else None)
        ids.extend(view.ids)
    same = all(raw is not None and raw.shape[1] == raws[0].shape[1] for raw in raws)  # type: ignore[union-attr]
    return Features(torch.cat(vectors), torch.cat(labels), torch.cat(raws) if same else None, tuple(ids))  # type: ignore[arg-type]


def knn_predict(
    train: Tensor, label: Tensor, query: Tensor, k: int = 20, temperature: float = 0.07, chunk: int = 1024
) -> Tensor:
    """Classes voted by the k nearest neighbours by cosine, each with exp(similarity / T).

    DINO's protocol (Caron et al. 2021, appendix F; Wu et al. 2018).

    Args:
        train: `(B, D)` features with `label` `(B,)`.
        query: `(Q, D)`.
        k: neighbours that vote, at most B.
        temperature: T.
        chunk: queries at a time, which bounds memory.

    Returns:
        `(Q,)` class indices.
    """
    train, query = F.normalize(train.float(), dim=1), F.normalize(query.float(), dim=1)
    classes = int(label.max()) + 1
    predicted = []
    for part in query.split(chunk):
        similarity, index = (part @ train.T).topk(min(k, len(train)), dim=1)
        votes = (similarity / temperature).exp()
        predicted.append(votes.new_zeros(len(part), classes).scatter_add(1, label[index], votes).argmax(1))
    return torch.cat(predicted)


def linear_predict(train: Tensor, label: Tensor, query: Tensor, seed: int = 0) -> Tensor:
    """Classes of a logistic regression on standardised features.

    Its strength is chosen on a tenth of the train part.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    grid = {"logisticregression__C": [0.001, 0.01, 0.1, 1.0, 10.0]}
    held_out = max(0.1, (int(label.max()) + 1) / len(label))
    search = GridSearchCV(probe, grid, cv=StratifiedShuffleSplit(1, test_size=held_out, random_state=seed))
    search.fit(train.numpy(), label.numpy())
    return torch.from_numpy(search.predict(query.numpy()))


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): what the size of the test set alone leaves open."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
