"""What several test files share: a tokenizer of a few lines, packs of random tokens, gradients by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from triptych.tokenizers.tokenizer import Embedded, Tokenizer
from triptych.tokenizers.tokens import Pack, Tokens, concat
from triptych.tokenizers.view import View


class Rows(Tokenizer):
    """The smallest tokenizer: each entry `(L_i, P)` is one sequence, each of its rows one token.

    Positions are added as `.1 * time`, so that a test sees whether masking came before or after.
    """

    def setup(self, data: Mapping[str, Any]) -> None:
        self.source_dim = data["values"]
        self.linear = nn.Linear(data["values"], self.width)

    def embed(self, view: View) -> Embedded:
        lengths = tuple(len(rows) for rows in view.data)
        source = torch.cat(list(view.data))
        position = torch.zeros(len(source), 3, dtype=torch.long)
        position[:, 0] = torch.cat([torch.arange(length) for length in lengths])
        count = len(lengths)
        return Embedded(
            self.linear(source), lengths, position, tuple(range(count)), (0,) * count, source=source
        )

    def place(self, embedded: Embedded) -> Tensor:
        return embedded.values + 0.1 * embedded.position[:, :1]

    def num_tokens(self, shape: Sequence[int]) -> int:
        return shape[0]


def random_tokens(lengths: Sequence[int], width: int, prefix: Sequence[str] = ()) -> Tokens:
    """Random values at increasing times, rows and columns; the first tokens are the prefix."""
    position = torch.cat([torch.arange(length) - len(prefix) for length in lengths])
    columns = torch.stack([position, position // 3, position % 3], dim=1)
    return Tokens(
        values=torch.randn(sum(lengths), width),
        lengths=tuple(lengths),
        position=columns.where(position[:, None] >= 0, torch.tensor(-1)),
        sample=tuple(range(len(lengths))),
        channel=(0,) * len(lengths),
        prefix=tuple(prefix),
    )


def random_pack(lengths: Sequence[int], width: int) -> Pack:
    return concat([random_tokens(lengths, width)])


def singles(pack: Pack) -> list[Pack]:
    """Each sequence of a pack in a pack of its own; its values lead gradients back to the pack's."""
    values, position = pack.values.split(pack.lengths), pack.position.split(pack.lengths)
    tokens = [random_tokens([length], pack.values.shape[1]) for length in pack.lengths]
    parts = zip(tokens, values, position, strict=True)
    return [concat([replace(part, values=x, position=where)]) for part, x, where in parts]


def randomise(module: nn.Module, scale: float = 0.3) -> None:
    """Weights for which no part of the module is trivial: all of them random, norms around one."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = 1.0 if ("norm" in name and name.endswith("weight")) or name.endswith("gamma") else 0.0
            parameter.normal_(centre, scale)


def gradients(module: nn.Module, scalar: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The gradient of `scalar()` with respect to each parameter; one that has none is an error."""
    module.zero_grad(set_to_none=True)
    scalar().backward()
    found = {}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad.clone()
    return found


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], **tolerance: float) -> None:
    """Two mappings of tensors hold the same names and numbers."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
