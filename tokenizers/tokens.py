"""Tokens: sequences of different lengths packed along one axis, never padded.

Shapes: N sequences, S packed tokens (the sum of the lengths), L tokens of one sequence,
D width, P values of a token's source, F width of a token's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

#: Columns of one row a token that a tokenizer may give beside the values, zero for prefix tokens.
PER_TOKEN = ("source", "features", "energy", "observed", "corrupted")


@dataclass(frozen=True)
class Stats:
    """What instance normalisation took away from each sequence: `x = normalised * scale + mean`.

    Both are `(N, 1)`, in the units of the series.
    """

    mean: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Tokens:
    """Packed sequences, each starting with its prefix tokens, then its content in order.

    Attributes:
        values: `(S, D)`.
        lengths: tokens of each sequence, as Python ints: a tensor on a GPU would synchronise in
            every block and could not key the cache of attention layouts.
        position: `(S, 3)` time, row, column of each token, in tokens; -1 for prefix tokens.
        sample: which entry of the view each sequence shows; a series of C channels is C
            sequences that share a sample.
        channel: channel of each sequence, 0 where the tokenizer mixes channels.
        prefix: names of the tokens each sequence starts with (`class`, `register`, ...).
        source: `(S, P)` clean raw values of each token (patch, window, log-mel frame); zero
            for prefix tokens. None where a tokenizer has none.
        features: `(S, F)` features before projection and masking, with their gradients
            (wav2vec 2.0's targets); zero for prefix tokens.
        energy: `(S,)` mean square of each token's features before their norm, with gradients
            (wav2vec 2.0's feature penalty); zero for prefix tokens.
        masked: `(S,)` bool, True where the value was replaced by the mask token.
        observed: `(S, P)` bool, False where a value of `source` is missing; None: all observed.
        corrupted: `(S, P)` bool, True where what the encoder read may differ from `source`; False for
            prefix tokens. None where nothing was corrupted.
        stats: what instance normalisation took away, or None.
        whole: the tokens before hidden ones were dropped, and `kept` `(S,)` the index of each
            of these tokens in it; both None when nothing was hidden.
    """

    values: Tensor
    lengths: tuple[int, ...]
    position: Tensor
    sample: tuple[int, ...]
    channel: tuple[int, ...]
    prefix: tuple[str, ...] = ()
    source: Tensor | None = None
    features: Tensor | None = None
    energy: Tensor | None = None
    masked: Tensor | None = None
    observed: Tensor | None = None
    corrupted: Tensor | None = None
    stats: Stats | None = None
    whole: Tokens | None = None
    kept: Tensor | None = None

    def __len__(self) -> int:
        """Number of sequences N."""
        return len(self.lengths)

    @property
    def starts(self) -> tuple[int, ...]:
        """Index of the first token of each sequence."""
        return tuple(accumulate(self.lengths, initial=0))[:-1]

    def with_values(self, values: Tensor) -> Tokens:
        """The same tokens after a layer: `values` is `(S, D)`."""
        return replace(self, values=values)

    def named(self, name: str) -> Tensor:
        """The prefix token `name` of every sequence, `(N, D)`.

        Raises:
            UserError: the tokenizer has no prefix token of that name.
        """
        if name not in self.prefix:
            raise UserError(
                f"the token {name!r} must be in the tokenizer's prefix, which is {list(self.prefix)}"
            )
        offset = self.prefix.index(name)
        if len(set(self.lengths)) == 1:
            return self.values.view(len(self), self.lengths[0], -1)[:, offset]
        return self.values[torch.tensor(self.starts, device=self.values.device) + offset]

    def content(self) -> Tokens:
        """Only the content tokens, without the prefix."""
        if not self.prefix:
            return self
        keep = (self.position[:, 0] >= 0).nonzero().squeeze(1)
        return self._take(keep, tuple(length - len(self.prefix) for length in self.lengths), ())

    def prefixes(self) -> Tokens:
        """Only the prefix tokens, without the content."""
        count = len(self.prefix)
        index = first_tokens(self.lengths, count, self.values.device)
        return self._take(index, (count,) * len(self), self.prefix)

    def mean(self) -> Tensor:
        """Mean of each sequence's content tokens, `(N, D)`."""
        content = self.content()
        if len(set(content.lengths)) == 1:
            return content.values.view(len(content), content.lengths[0], -1).mean(1)
        counts = torch.tensor(content.lengths, device=content.values.device)
        owner = torch.arange(len(content), device=content.values.device).repeat_interleave(counts)
        total = content.values.new_zeros(len(content), content.values.shape[1]).index_add(
            0, owner, content.values
        )
        return total / counts.unsqueeze(1)

    def select(self, keep: Tensor) -> Tokens:
        """Drop the tokens where `keep` `(S,)` is False; the result remembers the whole."""
        index = keep.nonzero().squeeze(1)
        counts = [int(part.sum()) for part in keep.cpu().split(self.lengths)]
        return replace(self._take(index, tuple(counts), self.prefix), whole=self, kept=index)

    def sequences(self, chosen: Sequence[int]) -> Tokens:
        """Only some of the sequences, by their indices in rising order."""
        index = torch.cat([torch.arange(self.starts[i], self.starts[i] + self.lengths[i]) for i in chosen])
        taken = self._take(index.to(self.values.device), tuple(self.lengths[i] for i in chosen), self.prefix)
        where = torch.tensor(list(chosen), device=self.values.device)
        stats = None if self.stats is None else Stats(self.stats.mean[where], self.stats.scale[where])
        sample, channel = (tuple(column[i] for i in chosen) for column in (self.sample, self.channel))
        return replace(taken, sample=sample, channel=channel, stats=stats)

    def per_sequence(self, per_token: Tensor) -> tuple[Tensor, ...]:
        """Split any `(S, ...)` tensor into one `(L_i, ...)` tensor a sequence."""
        return per_token.split(self.lengths)

    def _take(self, index: Tensor, lengths: tuple[int, ...], prefix: tuple[str, ...]) -> Tokens:
        taken: dict[str, Any] = {
            name: None if (tensor := getattr(self, name)) is None else tensor.index_select(0, index)
            for name in (*PER_TOKEN, "values", "position", "masked", "kept")
        }
        return replace(self, lengths=lengths, prefix=prefix, **taken)


@dataclass(frozen=True)
class Pack:
    """Several views' tokens laid end to end for one pass of the encoder.

    Only what the encoder reads is joined: `values` `(S, D)`, `lengths`, `position` `(S, 3)`.
    What differs by modality (sources, features, statistics) stays with the parts.
    """

    values: Tensor
    lengths: tuple[int, ...]
    position: Tensor
    parts: tuple[Tokens, ...]

    def split(self, values: Tensor) -> tuple[Tokens, ...]:
        """The parts again, with their share of `values` `(S, D)`."""
        shares = values.split([sum(part.lengths) for part in self.parts])
        return tuple(part.with_values(share) for part, share in zip(self.parts, shares, strict=True))

    def prefixes(self) -> Pack:
        """The pack of the parts' prefix tokens alone."""
        return concat([part.prefixes() for part in self.parts])


def concat(parts: Sequence[Tokens]) -> Pack:
    """Pack the tokens of several views, of any modality, into one."""
    return Pack(
        values=torch.cat([part.values for part in parts]) if len(parts) > 1 else parts[0].values,
        lengths=tuple(length for part in parts for length in part.lengths),
        position=torch.cat([part.position for part in parts]) if len(parts) > 1 else parts[0].position,
        parts=tuple(parts),
    )


@lru_cache(maxsize=256)
def first_tokens(lengths: tuple[int, ...], count: int, device: torch.device) -> Tensor:
    """`(N * count,)` index of the first `count` tokens of each packed sequence.

    Made outside inference mode, whose tensors autograd could not save when a later step finds them here.
    """
    with torch.inference_mode(False):
        starts = torch.tensor(tuple(accumulate(lengths, initial=0))[:-1], dtype=torch.long)
        return (starts.unsqueeze(1) + torch.arange(count)).flatten().to(device)
