"""Fixed kernels over all channels: their formula, packing, lengths, and missing values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.series_kernels import KERNELS, SeriesKernels, dilations, kernels
from triptych.tokenizers.view import View

N, C, T, D, PARTS, QUANTILES = 5, 3, 37, 12, 4, 2


def tokenizer(**options) -> SeriesKernels:
    """A tokenizer whose thresholds have been settled by a first training batch."""
    torch.manual_seed(0)
    made = SeriesKernels(PARTS, dilations=3, thresholds=QUANTILES, **options)
    made.build(D, {"channels": list(range(C)), "context": T})
    made(View("series", series(9)))
    return made.eval()


def series(seed: int = 0, steps: int = T) -> torch.Tensor:
    return torch.randn(N, C, steps, generator=torch.Generator().manual_seed(seed))


def naive(made: SeriesKernels, x: torch.Tensor) -> torch.Tensor:
    """Features `(L, F)` of one series `(C, T)`, step by step."""
    steps, found = x.shape[1], []
    change = torch.cat([torch.zeros(C, 1), x[:, 1:] - x[:, :-1]], dim=1)
    for bank, weights in enumerate(made.kernels):
        values, reach = (x, change)[bank // 3], made.dilations[bank % 3]
        out = torch.zeros(KERNELS, steps)
        for at in range(steps):
            for tap in range(9):
                place = at + (tap - 4) * reach
                if 0 <= place < steps:
                    out[:, at] += weights[:, :, tap] @ values[:, place]
        ends = [(part * steps // PARTS, -(-(part + 1) * steps // PARTS)) for part in range(PARTS)]
        parts = [out[:, low:high] for low, high in ends]
        for threshold in made.thresholds[bank]:
            found.append(torch.stack([(part > threshold).float().mean(1) for part in parts]))
        found.append(torch.stack([part.amax(1) for part in parts]) / made.size[bank].T)
    return torch.cat(found, dim=1)


def test_tokens_are_those_of_the_formula() -> None:
    made, x = tokenizer(), series()
    tokens = made(View("series", x))
    assert tokens.lengths == (PARTS,) * N and made.num_tokens((C, T)) == PARTS
    features = torch.stack([naive(made, entry) for entry in x])
    norm = made.norm
    scaled = (features - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    expected = made.project(scaled.clamp(-6, 6)) + made.places
    torch.testing.assert_close(tokens.values, expected.flatten(0, 1), atol=1e-4, rtol=1e-3)


def test_packed_equals_one_by_one_at_any_lengths() -> None:
    made = tokenizer(prefix=("class",))
    entries = [series(i)[0, :, : (37, 11, 3)[i]] for i in range(3)]
    together = made(View("series", entries))
    alone = [made(View("series", entry.unsqueeze(0))) for entry in entries]
    assert together.lengths == (PARTS + 1,) * 3
    torch.testing.assert_close(together.values, torch.cat([one.values for one in alone]))
    (gradient,) = torch.autograd.grad(together.values.square().sum(), made.project.weight)
    (expected,) = torch.autograd.grad(sum(one.values.square().sum() for one in alone), made.project.weight)
    torch.testing.assert_close(gradient, expected)


def test_thresholds_split_the_first_training_batch_evenly_and_stay() -> None:
    made = SeriesKernels(PARTS, dilations=1, thresholds=3)
    made.build(D, {"channels": list(range(C)), "context": T})
    x = series(1, 401)
    made.eval()(View("series", x))
    assert not made.settled
    made.train()(View("series", x))
    outputs = F.conv1d(x, made.kernels[0], padding=4)
    below = [(outputs <= threshold).float().mean((0, 2)) for threshold in made.thresholds[0]]
    for share, expected in zip(below, (0.25, 0.5, 0.75), strict=True):
        torch.testing.assert_close(share, torch.full_like(share, expected), atol=1e-3, rtol=0)
    before = made.thresholds.clone()
    made(View("series", 7 * x))
    assert torch.equal(made.thresholds, before)


def test_missing_values_hold_anything_and_change_nothing() -> None:
    made, x = tokenizer(), series()
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    one = made(View("series", torch.where(observed, x, 99.0), observed=observed)).values
    other = made(View("series", torch.where(observed, x, torch.nan))).values
    assert torch.equal(one, other) and torch.isfinite(one).all()
    assert not torch.allclose(one, made(View("series", x)).values)


def test_kernels_are_all_84_without_a_level_over_channels_drawn_once() -> None:
    made = kernels(5, 7)
    assert made.shape == (5, 84, 7, 9) and torch.equal(made, kernels(5, 7))
    assert made.sum(3).abs().max() == 0
    assert len({tuple(row) for row in kernels(1, 1)[0, :, 0].tolist()}) == 84
    used = made.abs().amax(3).bool().sum(2)
    assert used.min() == 1 and used.max() == 7


def test_dilations_rise_to_the_span_of_the_longest_series() -> None:
    assert dilations(24, 8) == [1, 2] and dilations(5, 8) == [1]
    assert dilations(1025, 8) == [1, 2, 4, 8, 16, 32, 64, 128]


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(UserError, match="trained on 3 channels, but a series has 2"):
        tokenizer()(View("series", series()[:, :2]))
