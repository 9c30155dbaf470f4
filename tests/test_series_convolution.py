"""Convolutions over all channels: their formula, packing, and missing values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.series_convolution import SeriesConvolutions, differences
from triptych.tokenizers.view import View

N, C, T, D = 5, 3, 37, 12
STEM = ((7, 5, 1), (11, 3, 2))


def tokenizer(**options) -> SeriesConvolutions:
    torch.manual_seed(0)
    made = SeriesConvolutions(STEM, **options)
    made.build(D, {"channels": list(range(C)), "context": T})
    return made


def series(seed: int = 0, steps: int = T) -> torch.Tensor:
    return torch.randn(N, C, steps, generator=torch.Generator().manual_seed(seed))


def test_tokens_are_those_of_the_formula() -> None:
    made = tokenizer().eval()
    x = series()
    size = (x.diff(dim=-1) ** 2).mean(-1, keepdim=True).sqrt()
    y = torch.cat([x, F.pad(x.diff(dim=-1) / size, (1, 0)), torch.ones_like(x)], dim=1)
    for conv, norm in zip(made.layers[::3], made.layers[1::3], strict=True):
        y = F.gelu(F.conv1d(y, conv.weight, stride=conv.stride, padding=conv.padding) / (1 + norm.eps) ** 0.5)
    tokens = made(View("series", x))
    assert tokens.lengths == (19,) * N and made.num_tokens((C, T)) == 19
    expected = y.transpose(1, 2) @ made.project.weight.T + made.project.bias
    torch.testing.assert_close(tokens.values, expected.flatten(0, 1), atol=1e-5, rtol=1e-4)


def test_packed_equals_one_by_one_at_any_lengths() -> None:
    made = tokenizer(positions="sincos", prefix=("class",)).eval()
    entries = [series(i)[0, :, : T - 4 * i] for i in range(3)]
    together = made(View("series", entries))
    alone = [made(View("series", entry.unsqueeze(0))) for entry in entries]
    assert together.lengths == tuple(one.lengths[0] for one in alone)
    torch.testing.assert_close(together.values, torch.cat([one.values for one in alone]))
    (gradient,) = torch.autograd.grad(together.values.square().sum(), made.project.weight)
    (expected,) = torch.autograd.grad(sum(one.values.square().sum() for one in alone), made.project.weight)
    torch.testing.assert_close(gradient, expected)


def test_missing_values_hold_anything_and_change_nothing() -> None:
    made, x = tokenizer().eval(), series()
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    one = made(View("series", torch.where(observed, x, 99.0), observed=observed)).values
    other = made(View("series", torch.where(observed, x, torch.nan))).values
    assert torch.equal(one, other) and torch.isfinite(one).all()
    assert not torch.allclose(one, made(View("series", x)).values)


def test_differences_have_size_one_and_a_still_channel_none() -> None:
    x = torch.stack([torch.tensor([0.0, 3.0, 0.0, 3.0, 0.0]), torch.full((5,), 7.0)]).unsqueeze(0)
    found = differences(x, torch.ones_like(x, dtype=torch.bool))
    assert found.tolist() == [[[0, 1, -1, 1, -1], [0, 0, 0, 0, 0]]]


def test_mistakes_are_told_in_one_sentence() -> None:
    with pytest.raises(UserError, match="kernels of convolutions must be odd, but one is 4"):
        SeriesConvolutions(((8, 4, 1),))
    with pytest.raises(UserError, match="trained on 3 channels, but a series has 2"):
        tokenizer()(View("series", series()[:, :2]))
