"""Feed-forward of narrow tokens in blocks: what the plain layers give, gradients too.

Shapes: S tokens, D width, M hidden width.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from triptych.backbones import thin
from triptych.backbones.layers import Mlp
from triptych.backbones.thin import feed_thin, is_thin

WIDTH, HIDDEN, TOKENS = 5, 17, 29


def with_gradients(fed: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of an uneven sum of it."""
    weights = torch.linspace(-1, 1, fed.numel()).view_as(fed)
    return [fed, *torch.autograd.grad((fed * weights).sum(), inputs)]


@pytest.mark.parametrize("block", [1, 7 * HIDDEN, thin.BLOCK], ids=["one by one", "by seven", "at once"])
def test_it_equals_the_plain_layers(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "BLOCK", block)
    shapes = [(TOKENS, WIDTH), (HIDDEN, WIDTH), (HIDDEN,), (WIDTH, HIDDEN), (WIDTH,)]
    x, w1, b1, w2, b2 = inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    found = with_gradients(feed_thin(*inputs), inputs)
    expected = with_gradients(F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2), inputs)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("dropout", "training", "used"), [(0, True, 1), (0.5, True, 0), (0.5, False, 1)])
def test_a_feed_forward_of_many_narrow_tokens_goes_through_it_unless_it_drops_some(
    dropout: float, training: bool, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(thin, "FEWEST", TOKENS * HIDDEN)
    monkeypatch.setattr(
        "triptych.backbones.layers.feed_thin", lambda *own: calls.append(1) or feed_thin(*own)
    )
    layer, x = Mlp(WIDTH, HIDDEN, dropout).train(training), torch.randn(TOKENS, WIDTH)
    found = layer(x)
    assert len(calls) == used
    if used:
        torch.testing.assert_close(found, layer.fc2(F.gelu(layer.fc1(x))))
    assert layer(x[1:]).shape == (TOKENS - 1, WIDTH) and len(calls) == used


@pytest.mark.parametrize(
    ("tokens", "width", "dtype", "expected"),
    [
        (2**15, 16, torch.float32, True),
        (2**15, 17, torch.float32, False),
        (2**14, 16, torch.float32, False),
        (2**15, 16, torch.float64, False),
    ],
)
def test_where_it_is_the_faster_way(tokens: int, width: int, dtype: torch.dtype, expected: bool) -> None:
    x = torch.zeros(tokens, width, dtype=dtype)
    assert is_thin(x, 128) is expected
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_thin(x, 128)
