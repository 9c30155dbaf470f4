"""Attention of narrow heads: what plain products give is what the formula gives, gradients too.

Shapes: n sequences, L tokens of each, Lq of them that ask, H heads, K head width.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from triptych.backbones import narrow
from triptych.backbones.attention import attend
from triptych.backbones.layout import Layout
from triptych.backbones.narrow import attend_narrow, is_narrow

HEADS, WIDTH, LENGTH = 3, 5, 13


def drawn(count: int, length: int = LENGTH, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(count, length, HEADS, WIDTH)).requires_grad_()


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own kernel."""
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def with_gradients(attended: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of an uneven sum of it."""
    weights = torch.linspace(-1, 1, attended.numel()).view_as(attended)
    return [attended, *torch.autograd.grad((attended * weights).sum(), inputs)]


@pytest.mark.parametrize("block", [1, 2 * LENGTH**2, narrow.BLOCK], ids=["one by one", "by two", "at once"])
@pytest.mark.parametrize("asking", [1, 11, LENGTH])
def test_it_equals_the_fused_kernel(block: int, asking: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "BLOCK", block)
    inputs = [drawn(7, asking), drawn(7), drawn(7)]
    found = with_gradients(attend_narrow(*inputs), inputs)
    torch.testing.assert_close(found, with_gradients(fused(*inputs), inputs))


def test_scores_whose_exponentials_overflow_are_taken_from_the_largest() -> None:
    inputs = [drawn(2, scale=20), drawn(2, scale=20), drawn(2)]
    scores = torch.einsum("nihk,njhk->nhij", inputs[0], inputs[1]) / WIDTH**0.5
    assert scores.max() > 100 and scores.exp().isinf().any()
    found = with_gradients(attend_narrow(*inputs), inputs)
    torch.testing.assert_close(found, with_gradients(fused(*inputs), inputs), rtol=1e-4, atol=1e-4)


def test_scores_whose_exponentials_all_vanish_are_taken_from_the_largest() -> None:
    inputs = [torch.full((2, LENGTH, HEADS, WIDTH), value).requires_grad_() for value in (-20.0, 20.0)]
    inputs.append(drawn(2))
    scores = torch.einsum("nihk,njhk->nhij", inputs[0], inputs[1]) / WIDTH**0.5
    assert (scores.exp() == 0).all()
    found = with_gradients(attend_narrow(*inputs), inputs)
    torch.testing.assert_close(found, with_gradients(fused(*inputs), inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lengths", [(13, 13, 13), (13, 17, 13, 2, 17)], ids=["equal", "unequal"])
def test_packed_sequences_go_through_it_and_equal_the_formula(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        "triptych.backbones.attention.attend_narrow", lambda *qkv: calls.append(1) or attend_narrow(*qkv)
    )
    inputs = [torch.randn(sum(lengths), HEADS, WIDTH, requires_grad=True) for _ in range(3)]
    found, expected = (
        with_gradients(attend(*inputs, Layout(lengths), backend=backend), inputs)
        for backend in ("sdpa", "naive")
    )
    assert len(calls) == len({length for length in lengths if length >= narrow.SHORTEST})
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((2, 42, 4, 4), torch.float32, True),
        ((2, 42, 4, 16), torch.float32, False),
        ((2, 5, 4, 4), torch.float32, False),
        ((2, 400, 4, 4), torch.float32, False),
        ((2, 42, 4, 4), torch.bfloat16, False),
    ],
)
def test_where_it_is_the_faster_way(shape: tuple[int, ...], dtype: torch.dtype, expected: bool) -> None:
    q = torch.zeros(shape, dtype=dtype)
    assert is_narrow(q, q) is expected
