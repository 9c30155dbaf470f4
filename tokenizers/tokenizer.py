"""The order inside every tokenizer: embed, mask, place, add the prefix, drop what is hidden.

Shapes: N sequences, S packed tokens, D width, P source values, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .tokens import PER_TOKEN, Stats, Tokens
from .view import View


@dataclass(frozen=True)
class Embedded:
    """What a tokenizer's `embed` returns: content tokens only, packed.

    `values` `(S, D)`, `lengths` of the N sequences, `position` `(S, 3)`, the `sample` and
    `channel` of each sequence; `source` `(S, P)`, `features` `(S, F)`, `energy` `(S,)`, `observed`
    and `corrupted` `(S, P)` and `stats` where the tokenizer has them, as in `Tokens`.
    `name` `(N,)` says which of the series trained on each sequence is, -1 for others.
    """

    values: Tensor
    lengths: tuple[int, ...]
    position: Tensor
    sample: tuple[int, ...]
    channel: tuple[int, ...]
    source: Tensor | None = None
    features: Tensor | None = None
    energy: Tensor | None = None
    observed: Tensor | None = None
    corrupted: Tensor | None = None
    stats: Stats | None = None
    name: Tensor | None = None


class Tokenizer(nn.Module):
    """Raw input of one modality -> `Tokens`.

    The order serves every system: wav2vec 2.0 masks before its positional convolution, iBOT
    before positions, MAE drops tokens after them. Subclasses write `setup`, `embed`, `place`
    and `num_tokens`.

    Args:
        prefix: names of the learnt tokens that each sequence starts with, in order. A name
            may be repeated with a number (`register0`, `register1`).
    """

    width: int
    source_dim: int | None = None
    feature_dim: int | None = None
    length: int | None = None

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        super().__init__()
        if len(set(prefix)) != len(prefix):
            raise ValueError(f"the names of prefix tokens must differ, but are {list(prefix)}")
        self.prefix = tuple(prefix)

    def build(self, width: int, data: Mapping[str, Any]) -> None:
        """Make the weights for an encoder of `width`, given the data's facts (channels, size, rate)."""
        self.width = width
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.prefix_tokens = nn.Parameter(torch.empty(len(self.prefix), width).normal_(std=0.02))
        self.setup(data)

    def setup(self, data: Mapping[str, Any]) -> None:
        """Make the modality's own weights; sets `source_dim`, `feature_dim` and `length` where it has one."""
        raise TypeError(f"{type(self).__name__} must define setup()")

    def adapt(self, weights: Mapping[str, Tensor], data: Mapping[str, Any]) -> dict[str, Tensor]:
        """Weights of a tokenizer of this kind that was sized by other `data`, as this one can take them."""
        return dict(weights)

    def embed(self, view: View) -> Embedded:
        """Content tokens of `view`, before masking and positions."""
        raise TypeError(f"{type(self).__name__} must define embed()")

    def place(self, embedded: Embedded) -> Tensor:
        """Values `(S, D)` of the content tokens with their positions added."""
        raise TypeError(f"{type(self).__name__} must define place()")

    def place_prefix(self) -> Tensor:
        """The prefix tokens `(len(prefix), D)`, with positions of their own where there are any."""
        return self.prefix_tokens

    def num_tokens(self, shape: Sequence[int]) -> int:
        """Content tokens that one entry of raw `shape` gives in all its sequences; needs no weights."""
        raise TypeError(f"{type(self).__name__} must define num_tokens()")

    def forward(self, view: View) -> Tokens:
        """Tokens of one view: embed, replace masked tokens, place, prefix, drop hidden tokens."""
        embedded = self.embed(view)
        if view.masked is not None:
            masked = torch.where(
                view.masked.unsqueeze(1), self.mask_token.to(embedded.values.dtype), embedded.values
            )
            embedded = replace(embedded, values=masked)
        if view.muted is not None:
            owner = torch.tensor(embedded.sample).repeat_interleave(torch.tensor(embedded.lengths))
            muted = view.muted[owner.to(view.muted.device)]
            embedded = replace(embedded, values=embedded.values.masked_fill(muted, 0.0))
        tokens = self._with_prefix(replace(embedded, values=self.place(embedded)), view.masked)
        if view.hidden is None:
            return tokens
        return tokens.select(~self._pad_prefix(view.hidden, embedded.lengths))

    def _with_prefix(self, content: Embedded, masked: Tensor | None) -> Tokens:
        lengths = tuple(length + len(self.prefix) for length in content.lengths)
        columns: dict[str, Any] = {
            name: None if column is None else self._pad_prefix(column, content.lengths)
            for name, column in (*((name, getattr(content, name)) for name in PER_TOKEN), ("masked", masked))
        }
        return Tokens(
            values=self._pad_prefix(content.values, content.lengths, self.place_prefix()),
            lengths=lengths,
            position=self._pad_prefix(
                content.position, content.lengths, content.position.new_full((1, 3), -1)
            ),
            sample=content.sample,
            channel=content.channel,
            prefix=self.prefix,
            stats=content.stats,
            **columns,
        )

    def _pad_prefix(self, column: Tensor, lengths: tuple[int, ...], head: Tensor | None = None) -> Tensor:
        """Put `head` (zeros unless given) before each sequence of a packed `(S, ...)` column."""
        count = len(self.prefix)
        if count == 0 or not lengths:
            return column
        if head is None:
            head = column.new_zeros((1, *column.shape[1:]))
        head = head.to(column.dtype).expand(count, *column.shape[1:])
        if len(set(lengths)) == 1:  # one copy instead of 2 N small ones
            body = column.view(len(lengths), lengths[0], *column.shape[1:])
            heads = head.unsqueeze(0).expand(len(lengths), *head.shape)
            return torch.cat([heads, body], dim=1).flatten(0, 1)
        return torch.cat([piece for part in column.split(lengths) for piece in (head, part)])
