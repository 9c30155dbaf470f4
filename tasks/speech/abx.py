"""ABX: is one phone nearer to another of its kind than to one of another kind?

Shapes: P pairs of sequences, L and M frames of their two, D width, n items, K phones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Frame distances held at once.
ROOM = 20_000_000
#: Resamplings of the phones for an interval.
RESAMPLED = 1000


@dataclass(frozen=True)
class Item:
    """One phone as it was said: its label, its voice, its frames `(L, D)`."""

    phone: str
    voice: str
    frames: Tensor


@dataclass(frozen=True)
class Error:
    """Share of triples told wrong, mean over pairs of phones; its 95 % interval resamples the phones."""

    mean: float
    low: float
    high: float


def abx(items: Sequence[Item], across: bool) -> Error | None:
    """ABX error over phones in any context (Schatz et al. 2013; Kahn et al. 2020 aggregate in this order).

    A and X are of one phone, B of another; a triple is wrong if X is nearer to B than to A, and half wrong if
    as near. Mean over triples, then over voices, then over ordered pairs of phones.

    Args:
        items: phones of all voices.
        across: X is of another voice than A and B, else of the same.

    Returns:
        The error; None where no triple can be made.
    """
    phones = sorted({item.phone for item in items})
    total, count = np.zeros((len(phones), len(phones))), np.zeros((len(phones), len(phones)))
    for own, other in _voices(items, across):
        wrong = wrong_shares(own, other, phones)
        known = ~np.isnan(wrong)
        total[known] += wrong[known]
        count += known
    with np.errstate(invalid="ignore"):
        errors = total / count
    if np.isnan(errors).all():
        return None
    draws = np.random.default_rng(0).integers(len(phones), size=(RESAMPLED, len(phones)))
    drawn = [pairs for draw in draws if not np.isnan(pairs := errors[np.ix_(draw, draw)]).all()]
    low, high = np.quantile([np.nanmean(pairs) for pairs in drawn], (0.025, 0.975))
    return Error(float(np.nanmean(errors)), float(low), float(high))


def _voices(items: Sequence[Item], across: bool) -> Iterator[tuple[list[Item], list[Item]]]:
    """The items of A and B, and those of X; within a voice they are the same list."""
    by_voice: dict[str, list[Item]] = {}
    for item in items:
        by_voice.setdefault(item.voice, []).append(item)
    for voice, own in by_voice.items():
        others = [items for name, items in by_voice.items() if name != voice] if across else [own]
        yield from ((own, other) for other in others)


def wrong_shares(own: Sequence[Item], other: Sequence[Item], phones: Sequence[str]) -> NDArray[np.float64]:
    """`(K, K)`: for A and X of the row's phone and B of the column's, the share of wrong triples, or NaN.

    Args:
        own: items of A and B.
        other: items of X; where it is `own` itself, A is never X.
        phones: K labels.
    """
    distances = pairwise_distances([i.frames for i in own], [i.frames for i in other]).numpy()
    if own is other:
        np.fill_diagonal(distances, np.nan)
    rows, columns = (
        [np.array([x.phone for x in side]) == phone for phone in phones] for side in (own, other)
    )
    shares = np.full((len(phones), len(phones)), np.nan)
    for a, (near, probes) in enumerate(zip(rows, columns, strict=True)):
        to_own = distances[near][:, probes]
        for b, far in enumerate(rows):
            if a == b or not far.any() or np.isnan(to_own).all():
                continue
            gap = to_own[:, None] - distances[far][:, probes][None]
            shares[a, b] = np.nanmean(np.where(np.isnan(gap), np.nan, (gap > 0) + 0.5 * (gap == 0)))
    return shares


def pairwise_distances(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Time-warped distances `(n, n')` of sequences of frames: mean angle over pi along the cheapest path."""
    (left, lengths), (right, others) = (_padded(side) for side in (one, other))
    step = max(ROOM // (right.shape[0] * left.shape[1] * right.shape[1]), 1)
    rows = []
    for start in range(0, len(left), step):
        part = left[start : start + step]
        angles = torch.einsum("nld,pmd->nplm", part, right).clamp(-1, 1).acos() / torch.pi
        warped = warp(
            angles.flatten(0, 1),
            lengths[start : start + step].repeat_interleave(len(right)),
            others.repeat(len(part)),
        )
        rows.append(warped.view(len(part), len(right)))
    return torch.cat(rows)


def warp(distances: Tensor, lengths: Tensor, others: Tensor) -> Tensor:
    """Mean distance along the path of least total distance (dynamic time warping), `(P,)`.

    Steps go one frame on in either sequence or in both; of equally cheap ways the diagonal is taken.

    Args:
        distances: `(P, L, M)`; what lies beyond a pair's lengths is not read.
        lengths, others: `(P,)` frames of each pair's two sequences.
    """
    pairs, rows, columns = distances.shape
    distances = distances.permute(1, 2, 0).contiguous()  # pairs side by side: three times as fast
    cost = distances.new_full((rows + 1, columns + 1, pairs), torch.inf)
    steps = torch.zeros_like(cost)
    cost[0, 0] = 0.0
    for i in range(rows):
        for j in range(columns):
            least, which = torch.stack([cost[i, j], cost[i, j + 1], cost[i + 1, j]]).min(0)
            taken = torch.stack([steps[i, j], steps[i, j + 1], steps[i + 1, j]])
            cost[i + 1, j + 1] = least + distances[i, j]
            steps[i + 1, j + 1] = taken.gather(0, which.unsqueeze(0))[0] + 1
    at = lengths, others, torch.arange(pairs)
    return cost[at] / steps[at]


def _padded(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`(n, L, D)` of unit length with zeros behind the shorter ones, and the lengths."""
    unit = [torch.nn.functional.normalize(frames, dim=1) for frames in sequences]
    return torch.nn.utils.rnn.pad_sequence(unit, batch_first=True), torch.tensor([len(x) for x in unit])
