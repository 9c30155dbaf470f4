"""The order of audio: languages and corpora by tempered shares, batches of seconds of like length.

Shapes: N samples of an epoch, G groups (a language's share of a corpus).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.utils.data import Sampler

from ...objectives.gather import ranks
from ..data import EpochSampler, generator, of_rank

#: A sample's epoch and index, as samplers hand them to data sets.
Key = tuple[int, int]
#: What a key's epoch grows by each time that its sample comes again within the epoch: what is drawn for it
#: then (masks, noise, speed) is drawn anew.
AGAIN = 2**32


@dataclass
class Sampling:
    """How an epoch of training is put together.

    Attributes:
        buckets: kinds of length; a batch holds samples of one kind, or of two next to each other.
        language: alpha of the languages: p ~ (hours / all hours) ** alpha. 1 keeps their shares and
            0 makes them equal; XLS-R takes .5. None, with no alpha for corpora, gives every
            sample once an epoch.
        corpus: alpha of the corpora inside a language, likewise.
    """

    buckets: int = 8
    language: float | None = None
    corpus: float | None = None


class GroupSampler(EpochSampler):
    """As many draws an epoch as there are samples, from groups in given shares.

    Counts follow the shares to within one draw (systematic sampling); inside a group every sample comes
    once before any comes again. All is drawn from (seed, epoch), so that an epoch needs no past.

    Args:
        groups: G lists of sample indices.
        shares: p of each group; they sum to one.
        seed: the run's seed.
    """

    def __init__(self, groups: Sequence[Sequence[int]], shares: Sequence[float], seed: int) -> None:
        super().__init__(sum(len(group) for group in groups), seed)
        self.groups, self.shares = groups, shares

    def keys(self) -> list[Key]:
        """The whole order, of all processes."""
        drawn = [key for number, count in enumerate(self.counts()) for key in self._members(number, count)]
        order = torch.randperm(len(drawn), generator=generator(self.seed or 0, self.epoch, "order"))
        return [drawn[place] for place in order.tolist()]

    def counts(self) -> list[int]:
        """Draws of each group in this epoch: the points (i + u) / N that fall in its part of [0, 1)."""
        offset = float(torch.rand((), generator=generator(self.seed or 0, self.epoch, "groups")))
        ends = [math.ceil(end * self.size - offset) for end in accumulate(self.shares)]
        ends[-1] = self.size
        return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]

    def _members(self, number: int, count: int) -> list[Key]:
        group, members = self.groups[number], list[Key]()
        while len(members) < count:
            draw = generator(self.seed or 0, self.epoch, number, len(members), "group")
            epoch = self.epoch + AGAIN * (len(members) // len(group))
            members += [
                (epoch, group[place]) for place in torch.randperm(len(group), generator=draw).tolist()
            ]
        return members[:count]


def tempered(
    hours: Mapping[tuple[Hashable, Hashable], float], language: float, corpus: float
) -> dict[tuple[Hashable, Hashable], float]:
    """Shares of (language, corpus) groups: p(l) p(c | l), each ~ (n / N) ** alpha (XLS-R, section 3).

    Args:
        hours: n of each group, in any unit.
        language, corpus: alphas.
    """
    total: dict[Hashable, float] = {}
    for (name, _), amount in hours.items():
        total[name] = total.get(name, 0.0) + amount
    inside = {(name, kind): (amount / total[name]) ** corpus for (name, kind), amount in hours.items()}
    scale = {name: sum(p for (owner, _), p in inside.items() if owner == name) for name in total}
    everything = sum(total.values())
    outer = {name: (amount / everything) ** language for name, amount in total.items()}
    norm = sum(outer.values())
    return {key: outer[key[0]] / norm * p / scale[key[0]] for key, p in inside.items()}


def seconds_of_epoch(sampler: EpochSampler, lengths: Sequence[float]) -> float:
    """Seconds of all samples of an epoch, of `lengths` each; where groups are drawn, as many as expected."""
    if not isinstance(sampler, GroupSampler):
        return sum(lengths)
    means = [sum(lengths[index] for index in group) / len(group) for group in sampler.groups]
    return len(lengths) * sum(p * mean for p, mean in zip(sampler.shares, means, strict=True))


class SecondsSampler(Sampler[list[Key]]):
    """Batches of about equal seconds and of like length, the same number of them every epoch.

    The samples of an epoch, in the sampler's order inside each bucket of lengths, are laid end to end and
    shared out by the slice of time that the middle of each falls in; the batches are then shuffled by
    (seed, epoch). An order without a seed, and samples all of one length, stay as they are. Several processes
    take turns at the batches.

    Args:
        sampler: gives (epoch, index) pairs.
        lengths: seconds of each sample; none may be longer than a batch.
        batch_seconds: most seconds of a slice; a batch holds at most a sample more.
        buckets: of lengths, with about as many samples in each.
        expected: seconds of an epoch, where the sampler does not give each sample once.
    """

    def __init__(
        self,
        sampler: EpochSampler,
        lengths: Sequence[float],
        batch_seconds: float,
        buckets: int = 1,
        expected: float | None = None,
    ) -> None:
        self.sampler, self.lengths = sampler, lengths
        total = sum(lengths) if expected is None else expected
        # no slice shorter than a sample: the middles of neighbours then never skip one
        self.count = max(min(math.ceil(total / batch_seconds), int(total / max(lengths))), 1)
        ordered = sorted(lengths)
        edges = [ordered[len(ordered) * i // buckets] for i in range(1, buckets)]
        self.bucket = [bisect_right(edges, length) for length in lengths]
        self.shuffled = sampler.seed is not None and len(set(self.bucket)) > 1

    def __len__(self) -> int:
        return -(-self.count // ranks())

    def __iter__(self) -> Iterator[list[Key]]:
        keys = self.sampler.keys()
        if not self.shuffled:
            return iter(of_rank(self._slices(keys)))
        batches = self._slices(sorted(keys, key=lambda key: self.bucket[key[1]]))
        draw = generator(self.sampler.seed or 0, self.sampler.epoch, "batches")
        order = torch.randperm(len(batches), generator=draw).tolist()
        return iter(of_rank([batches[place] for place in order]))

    def _slices(self, keys: Sequence[Key]) -> list[list[Key]]:
        width, begin = sum(self.lengths[index] for _, index in keys) / self.count, 0.0
        batches: dict[int, list[Key]] = {}
        for key in keys:
            length = self.lengths[key[1]]
            batches.setdefault(min(int((begin + length / 2) / width), self.count - 1), []).append(key)
            begin += length
        return list(batches.values())
