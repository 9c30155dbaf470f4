"""Frozen features of a data set, and its nearest neighbours.

Shapes: B samples, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..objectives.classification import UNLABELLED, pooled
from ..tokenizers.errors import UserError
from ..tokenizers.tokens import Tokens, concat
from ..tokenizers.view import View
from .model import Model

#: Values of a raw sample above which it is not kept: photographs fill the memory, and their pixels tell
#: little about what they show.
RAW_VALUES = 16_384


@dataclass(frozen=True)
class Reading:
    """How an entry's tokens become one vector.

    Attributes:
        pool: `class` or another prefix token's name, `mean` of the content tokens, or several joined by
            `+` side by side; `auto` takes the class token where there is one, else the mean.
        layer: whose tokens: a block from 1 to depth, or -1 for the last after the final norm.
        blocks: read so many last blocks instead, each after the final norm, side by side. What `+ mean`
            adds to a token is the last block's mean alone (Caron et al. 2021, Oquab et al. 2023).
    """

    pool: str = "auto"
    layer: int = -1
    blocks: int = 1

    def known(self, prefix: Sequence[str]) -> Reading:
        """The same with `auto` replaced by what a tokenizer with these prefix tokens has.

        Raises:
            UserError: the tokenizer has no such token.
        """
        if self.pool == "auto":
            return replace(self, pool="class" if "class" in prefix else "mean")
        for name in self.pool.split("+"):
            if name not in (*prefix, "mean"):
                raise UserError(f"pool must be of {', '.join((*prefix, 'mean'))}, but {name!r} is asked for")
        return self

    def layers(self, depth: int) -> tuple[int, ...]:
        """The layers it reads, the last one first.

        Raises:
            UserError: there are fewer blocks than are to be read.
        """
        if self.blocks > depth:
            raise UserError(f"blocks must be at most the encoder's depth {depth}, but is {self.blocks}")
        return (self.layer, *range(depth - 1, depth - self.blocks, -1))

    def __str__(self) -> str:
        return self.pool if self.blocks == 1 else f"{self.pool} of the last {self.blocks} blocks"


@dataclass(frozen=True)
class Features:
    """Features of the samples of a split, in its order.

    Attributes:
        x: `(B, D)` frozen features.
        label: `(B,)` class indices, -1 where there is none.
        raw: `(B, values)` the raw input, where all samples have one shape of few values; else None.
        ids: index of each sample in its split.
        accepted: `(B, K)` bool, all classes that are right for a sample, where the data say so, or None.
    """

    x: Tensor
    label: Tensor
    raw: Tensor | None
    ids: tuple[int, ...]
    accepted: Tensor | None = None

    def labelled(self) -> Features:
        """Only the samples that have a label."""
        keep = self.label != UNLABELLED
        raw = None if self.raw is None else self.raw[keep]
        accepted = None if self.accepted is None else self.accepted[keep]
        ids = tuple(torch.tensor(self.ids)[keep].tolist())
        return Features(self.x[keep], self.label[keep], raw, ids, accepted)


def features(model: Model, loader: Any, layer: int = -1, pool: str = "auto") -> Features:
    """Run the frozen model over a plain loader and read it one way; see `Reading`."""
    return read_features(model, loader, [Reading(pool, layer)])[0]


def read_features(model: Model, loader: Iterable[Any], readings: Sequence[Reading]) -> list[Features]:
    """Run the frozen model once over a plain loader, and read it in several ways.

    Args:
        model: in evaluation mode.
        loader: batches of the one view `plain`.
        readings: ways of turning an entry's tokens into a vector.

    Raises:
        UserError: there are no samples, or the model has not what is to be read.
    """
    device = next(model.parameters()).device
    vectors: list[list[Tensor]] = [[] for _ in readings]
    labels: list[Tensor] = []
    accepted: list[Tensor] = []
    raws: list[Tensor | None] = []
    ids: list[int] = []
    for batch in loader:
        (view,) = batch.values()
        view = view.to(device)
        for column, x in zip(vectors, read(model, view, readings), strict=True):
            column.append(x.cpu())
        labels.append(view.targets.get("label", torch.full((len(view),), UNLABELLED)).cpu())
        accepted += [view.targets["accepted"].cpu()] if "accepted" in view.targets else []
        raws.append(_raw(view))
        ids.extend(view.ids)
    if not labels:
        raise UserError("features need samples, but this part of the data has none")
    first = raws[0]
    kept = [raw for raw in raws if raw is not None and first is not None and raw.shape[1] == first.shape[1]]
    raw = torch.cat(kept) if len(kept) == len(raws) else None
    right = torch.cat(accepted) if accepted else None
    return [Features(torch.cat(column), torch.cat(labels), raw, tuple(ids), right) for column in vectors]


@torch.no_grad()
def read(model: Model, view: View, readings: Sequence[Reading]) -> list[Tensor]:
    """`(n, D)` for every reading of a view, from one pass of the branch that is evaluated."""
    tokenizers, encoder = model.branch(model.evaluate_with)
    tokens = tokenizers[view.modality](view)
    depth = model.encoder.depth
    wanted = {layer for reading in readings for layer in reading.layers(depth)}
    layers = {layer: parts[0] for layer, parts in encoder(concat([tokens]), wanted).layers.items()}

    def vector(reading: Reading) -> Tensor:
        first, *rest = (
            layers[layer] if at == 0 else _normed(encoder, layers[layer])
            for at, layer in enumerate(reading.layers(depth))
        )
        names = reading.known(tokens.prefix).pool.split("+")
        deep = [name for name in names if name != "mean"] or ["mean"]
        parts = [pooled(first, name, len(view)) for name in names]
        return torch.cat([*parts, *(pooled(t, name, len(view)) for t in rest for name in deep)], dim=1)

    return [vector(reading) for reading in readings]


def _normed(encoder: Any, tokens: Tokens) -> Tokens:
    return tokens.with_values(encoder.norm(tokens.values))


def _raw(view: View) -> Tensor | None:
    """`(n, values)` of a view whose entries have one shape and few values."""
    if not isinstance(view.data, Tensor) or view.data[0].numel() > RAW_VALUES:
        return None
    return view.data.flatten(1).cpu()


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
