"""Parameter names of another project and ours, carried both ways by one table.

In a name, `*` stands for one dotted part: a layer's number, `weight`, `bias`. Where several of their tensors
make one of ours (queries, keys and values), they are laid end to end along the first axis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from ...tokenizers.errors import UserError

State: TypeAlias = dict[str, Tensor]
#: Their name, or the names of the parts of one tensor, and ours.
Table: TypeAlias = Mapping[str | tuple[str, ...], str]


def carry(state: Mapping[str, Tensor], table: Table) -> tuple[State, State]:
    """Their weights under our names, and those that the table does not know under their own.

    A part whose fellows are missing counts as unknown.
    """
    ours: State = {}
    rest = dict(state)
    for theirs, name in _patterns(table):
        for found in [match for key in state if (match := _regex(theirs[0]).fullmatch(key))]:
            parts = [_fill(part, found.groups()) for part in theirs]
            if all(part in rest for part in parts):
                tensors = [rest.pop(part) for part in parts]
                ours[_fill(name, found.groups())] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    return ours, rest


def restore(ours: Mapping[str, Tensor], table: Table) -> tuple[State, State]:
    """Undo `carry`: our weights under their names, and those that the table does not know under our own."""
    state: State = {}
    rest = dict(ours)
    for theirs, name in _patterns(table):
        for found in [match for key in ours if (match := _regex(name).fullmatch(key))]:
            if found[0] in rest:
                whole = rest.pop(found[0])
                parts = whole.chunk(len(theirs)) if len(theirs) > 1 else (whole,)
                for part, tensor in zip(theirs, parts, strict=True):
                    state[_fill(part, found.groups())] = tensor
    return state, rest


def beneath(state: Mapping[str, Tensor], anchor: str) -> tuple[State, State]:
    """The weights of the part of a model that holds `anchor`, named from there, and all others.

    A wrapper's prefix (`module.backbone.`, `vit.`) is whatever stands before the shortest name that ends in
    the anchor.

    Raises:
        UserError: no name ends so.
    """
    found = sorted((name for name in state if f".{name}".endswith(f".{anchor}")), key=len)
    if not found:
        raise UserError(f"the weights must hold {anchor!r}, but have {', '.join(list(state)[:3])}, …")
    stem = found[0].removesuffix(anchor)
    inside = {name.removeprefix(stem): tensor for name, tensor in state.items() if name.startswith(stem)}
    return inside, {name: tensor for name, tensor in state.items() if not name.startswith(stem)}


def count(names: Mapping[str, Tensor], pattern: str) -> int:
    """How many names fit a pattern."""
    return sum(_regex(pattern).fullmatch(name) is not None for name in names)


def aside(state: Mapping[str, Tensor], known: tuple[str, ...]) -> tuple[State, State]:
    """The weights whose names begin with one of `known`, and all others."""
    chosen = {name: tensor for name, tensor in state.items() if name.startswith(known)}
    return chosen, {name: tensor for name, tensor in state.items() if name not in chosen}


def with_stem(state: Mapping[str, Tensor], stem: str) -> State:
    """The same weights, every name behind `stem`."""
    return {stem + name: tensor for name, tensor in state.items()}


def _patterns(table: Table) -> list[tuple[tuple[str, ...], str]]:
    return [((theirs,) if isinstance(theirs, str) else theirs, name) for theirs, name in table.items()]


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", r"([^.]+)"))


def _fill(pattern: str, parts: tuple[str, ...]) -> str:
    for part in parts:
        pattern = pattern.replace("*", part, 1)
    return pattern
