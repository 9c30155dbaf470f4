"""How packed tokens fall into sequences: the one thing that operations mixing tokens need to know.

Shapes: N sequences, S packed tokens, L tokens of one sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

#: Additive attention bias for the n sequences of one length L: called with (sequence indices, L),
#: returns something that broadcasts to `(n, H, L, L)`.
Bias: TypeAlias = Callable[[tuple[int, ...], int], Tensor]


@dataclass(frozen=True)
class Group:
    """The sequences of one length: `count` of them, at `start` when they lie end to end."""

    length: int
    count: int
    sequences: tuple[int, ...]
    start: int | None


@lru_cache(maxsize=1024)
def _groups(lengths: tuple[int, ...]) -> tuple[Group, ...]:
    by_length: dict[int, list[int]] = {}
    starts, total = [], 0
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
        starts.append(total)
        total += length
    groups = []
    for length, members in by_length.items():
        contiguous = members[-1] - members[0] + 1 == len(members)
        groups.append(Group(length, len(members), tuple(members), starts[members[0]] if contiguous else None))
    return tuple(groups)


@lru_cache(maxsize=1024)
def _index(lengths: tuple[int, ...], length: int, device: torch.device) -> Tensor:
    """`(count * L,)` packed index of every token of the sequences of one length.

    Made outside inference mode, whose tensors autograd could not save when a later step finds
    them here.
    """
    with torch.inference_mode(False):
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
        starts = starts[torch.tensor(lengths) == length]
        return (starts.unsqueeze(1) + torch.arange(length)).flatten().to(device)


@dataclass(frozen=True)
class Layout:
    """Sequences along the packed axis.

    Attributes:
        lengths: tokens of each sequence.
        order: `(S,)` permutation, where sequences run along another axis than the one the tokens
            are stored in (attention across channels): token `order[i]` is the i-th of the
            sequences laid end to end. None: the order they are stored in.
    """

    lengths: tuple[int, ...]
    order: Tensor | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        """The sequences grouped by equal length."""
        return _groups(self.lengths)

    def subset(self, sequences: Sequence[int]) -> tuple[Layout, Tensor]:
        """The layout of some sequences, in rising order, and the `(S',)` index of their tokens.

        Tokens taken by that index lie end to end, so their layout needs no order.
        """
        chosen = torch.zeros(len(self.lengths), dtype=torch.bool)
        chosen[list(sequences)] = True
        index = chosen.repeat_interleave(torch.tensor(self.lengths)).nonzero().squeeze(1)
        if self.order is not None:
            index = self.order[index.to(self.order.device)]
        return Layout(tuple(self.lengths[i] for i in sequences)), index

    def arrange(self, packed: Tensor) -> Tensor:
        """Bring `(S, ...)` into the layout's order."""
        return packed if self.order is None else packed[self.order]

    def restore(self, arranged: Tensor) -> Tensor:
        """Undo `arrange`."""
        if self.order is None:
            return arranged
        return torch.empty_like(arranged).index_copy(0, self.order, arranged)

    def per_length(self, function: Callable[..., Tensor], *packed: Tensor) -> Tensor:
        """Apply `function` to the sequences of each length at once.

        `function` takes `(n, L, ...)` for each of `packed` `(S, ...)` and returns `(n, L, ...)`;
        the result is `(S, ...)`. No padding: measured on CPU against padding with a mask, this is
        2 to 4 times faster on images' crops and on utterances.
        """
        packed = tuple(self.arrange(tensor) for tensor in packed)
        if len(self.groups) == 1:
            group = self.groups[0]
            result = function(*(tensor.unflatten(0, (group.count, group.length)) for tensor in packed))
            return self.restore(result.flatten(0, 1))
        pieces: list[tuple[Group, Tensor]] = []
        for group in self.groups:
            taken = (self._take(tensor, group).unflatten(0, (group.count, group.length)) for tensor in packed)
            pieces.append((group, function(*taken).flatten(0, 1)))
        if all(group.start is not None for group in self.groups):
            pieces.sort(key=lambda piece: piece[0].start or 0)
            return self.restore(torch.cat([piece for _, piece in pieces]))
        index = torch.cat([self._indices(group, packed[0].device) for group, _ in pieces])
        joined = torch.cat([piece for _, piece in pieces])
        return self.restore(torch.empty_like(joined).index_copy(0, index, joined))

    def _indices(self, group: Group, device: torch.device) -> Tensor:
        return _index(self.lengths, group.length, device)

    def _take(self, packed: Tensor, group: Group) -> Tensor:
        if group.start is not None:
            return packed[group.start : group.start + group.count * group.length]
        return packed[self._indices(group, packed.device)]
