"""Windows of series: instance normalisation, missing values, positions, packing.

Axes: n = 2 entries, C = 3 channels, T = 29 steps, P = 5, D = 11 (or 12 with sincos).
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from triptych.backbones.encoder import Encoder
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.series import SeriesWindows, invert, latest, normalise, statistics
from triptych.tokenizers.tokens import concat
from triptych.tokenizers.view import View

C, T, P, D = 3, 29, 5, 12


def built(context: int = T, names: Sequence[str] = (), **options: object) -> SeriesWindows:
    tokenizer = SeriesWindows(**({"patch": P, "stride": 2} | options))  # type: ignore[arg-type]
    tokenizer.build(D, {"context": context, "names": names})
    return tokenizer


def naive_windows(series: Tensor, patch: int, stride: int, end: str) -> list[Tensor]:
    """PatchTST, section 3.1: windows of a sequence padded by copies of its last value, or cut at its end."""
    values = series.tolist()
    if end == "repeat":
        values = values + [values[-1]] * stride
        starts = range(0, len(values) - patch + 1, stride)
    else:
        starts = range((len(values) - patch) % stride, len(values) - patch + 1, stride)
    return [torch.tensor(values[start : start + patch]) for start in starts]


@pytest.mark.parametrize("end", ["repeat", "align"])
@pytest.mark.parametrize(("patch", "stride"), [(5, 2), (5, 5), (7, 3)])
def test_windows_are_those_of_the_naive_twin(end: str, patch: int, stride: int) -> None:
    tokenizer = built(patch=patch, stride=stride, end=end)
    data = torch.randn(2, C, T) * 3 + 7
    embedded = tokenizer.embed(View("series", data))
    expected = []
    for sequence in data.flatten(0, 1):
        unit = (sequence - sequence.mean()) / sequence.var(unbiased=False).sqrt()
        expected += naive_windows(unit, patch, stride, end)
    assert embedded.source is not None
    torch.testing.assert_close(embedded.source, torch.stack(expected))
    assert sum(embedded.lengths) == len(expected) == 2 * tokenizer.num_tokens((C, T))
    assert embedded.sample == (0, 0, 0, 1, 1, 1)
    assert embedded.channel == (0, 1, 2, 0, 1, 2)


@pytest.mark.parametrize(("context", "windows"), [(336, 42), (512, 64)])
def test_patchtst_counts_as_many_windows_as_its_name_says(context: int, windows: int) -> None:
    assert SeriesWindows(16, 8).num_tokens((1, context)) == windows
    assert SeriesWindows(16, 8).num_tokens((C, context)) == C * windows


def test_inverting_the_normalisation_gives_the_series_back() -> None:
    series = torch.randn(7, T, dtype=torch.float64) * torch.logspace(-3, 3, 7).unsqueeze(1).double() + 40
    stats = statistics(series, torch.ones_like(series, dtype=torch.bool))
    unit = normalise(series, stats)
    torch.testing.assert_close(unit.mean(1), torch.zeros(7, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(invert(unit, stats), series, rtol=1e-12, atol=1e-12)
    quantiles = torch.stack([unit, unit + 1], dim=-1)
    torch.testing.assert_close(invert(quantiles, stats)[..., 0], series, rtol=1e-12, atol=1e-12)


def test_constant_and_unobserved_series_stay_finite() -> None:
    series = torch.tensor([[1013.25] * T, [0.0] * T, [3e7] * T, [5.0] * T])
    observed = torch.ones(4, T, dtype=torch.bool)
    observed[3] = False
    stats = statistics(series, observed)
    torch.testing.assert_close(stats.scale, torch.ones(4, 1))
    assert normalise(series, stats)[:3].abs().max() < 10
    assert stats.mean[3] == 0


def test_statistics_and_tokens_ignore_what_is_missing() -> None:
    tokenizer = built()
    data = torch.randn(2, C, T)
    observed = torch.rand(2, C, T) < 0.7
    stats = statistics(data.flatten(0, 1), observed.flatten(0, 1))
    for index in range(2 * C):
        seen = data.flatten(0, 1)[index][observed.flatten(0, 1)[index]]
        torch.testing.assert_close(stats.mean[index, 0], seen.mean())
        torch.testing.assert_close(stats.scale[index, 0], seen.var(unbiased=False).sqrt())
    expected = tokenizer(View("series", data, observed=observed))
    for nonsense in (torch.nan, 1e30, -torch.inf):
        tokens = tokenizer(View("series", torch.where(observed, data, nonsense), observed=observed))
        assert torch.equal(tokens.values, expected.values)
        assert torch.equal(tokens.source, expected.source)  # type: ignore[arg-type]
    by_nan = tokenizer(View("series", torch.where(observed, data, torch.nan)))
    assert torch.equal(by_nan.values, expected.values)
    assert torch.equal(by_nan.observed, expected.observed)  # type: ignore[arg-type]


def test_the_mask_tells_a_missing_value_from_one_at_the_mean() -> None:
    tokenizer = built(normalise="none")
    data = torch.zeros(1, 1, T)
    observed = torch.ones(1, 1, T, dtype=torch.bool)
    observed[..., 3] = False
    assert not torch.equal(
        tokenizer(View("series", data)).values, tokenizer(View("series", data, observed=observed)).values
    )


def test_source_is_clean_and_in_the_units_of_the_corrupted_series() -> None:
    tokenizer = built()
    clean = torch.randn(2, C, T)
    noisy = clean + torch.randn(2, C, T)
    tokens = tokenizer(View("series", noisy, clean=clean))
    assert tokens.stats is not None
    torch.testing.assert_close(tokens.stats.mean.view(2, C), noisy.mean(2))
    whole = invert(tokens.source.view(2 * C, -1, P)[:, 0], tokens.stats)  # type: ignore[union-attr]
    torch.testing.assert_close(whole, clean.flatten(0, 1)[:, :P])


@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
@pytest.mark.parametrize("end", ["repeat", "align"])
def test_unequal_lengths_packed_equal_one_by_one(positions: str, end: str) -> None:
    tokenizer = built(positions=positions, end=end, prefix=["class"])
    encoder = Encoder(D, 2, 2)
    series = [torch.randn(C, length) for length in (T, 17, 23, 17)]
    series[1][0, 4] = torch.nan

    def gradients(views: list[View]) -> tuple[Tensor, list[Tensor]]:
        tokenizer.zero_grad()
        encoder.zero_grad()
        values = torch.cat([encoder(concat([tokenizer(view)])).layers[-1][0].values for view in views])
        values.square().sum().backward()
        parameters = [*tokenizer.parameters(), *encoder.parameters()]
        return values.detach(), [p.grad.clone() for p in parameters if p.grad is not None]

    together = gradients([View("series", series)])
    apart = gradients([View("series", entry.unsqueeze(0)) for entry in series])
    torch.testing.assert_close(together[0], apart[0])
    for one, other in zip(together[1], apart[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_positions_count_back_from_the_end(positions: str) -> None:
    tokenizer = built(positions=positions, stride=5, end="align")

    def added(length: int) -> Tensor:
        embedded = tokenizer.embed(View("series", torch.randn(1, 1, length)))
        return tokenizer.place(embedded) - embedded.values

    full, short, long = added(T), added(14), added(T + 10)
    torch.testing.assert_close(short, full[-len(short) :])
    torch.testing.assert_close(long[-len(full) :], full)
    if positions == "learned":
        torch.testing.assert_close(long[:2], full[:1].expand(2, -1))


def test_masked_windows_become_the_mask_token_and_hidden_ones_are_dropped() -> None:
    tokenizer = built(prefix=["class"], positions="none")
    data = torch.randn(2, C, T)
    count = 2 * tokenizer.num_tokens((C, T))
    masked, hidden = torch.rand(count) < 0.4, torch.rand(count) < 0.3
    tokens = tokenizer(View("series", data, masked=masked, hidden=hidden))
    content = tokens.content()
    assert content.masked is not None
    assert torch.equal(content.masked, masked[~hidden])
    torch.testing.assert_close(
        content.values[content.masked], tokenizer.mask_token.expand(int(content.masked.sum()), -1)
    )


def test_short_series_and_wrong_strides_are_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match="at least one window of 5 steps long, but is 4"):
        built()(View("series", torch.randn(1, 1, 4)))
    with pytest.raises(UserError, match="between 1 and their length 5, but is 6"):
        SeriesWindows(5, 6)


def test_taking_the_last_observed_value_away_gives_the_series_back() -> None:
    data, observed = torch.randn(3, T), torch.rand(3, T) < 0.5
    observed[:, 0] = True
    observed[2] = False
    stats = latest(data, observed)
    for row in range(2):
        assert stats.mean[row, 0] == data[row][observed[row]][-1]
    assert stats.mean[2, 0] == 0 and (stats.scale == 1).all()
    torch.testing.assert_close(invert(normalise(data, stats), stats), data)


@pytest.mark.parametrize("how", ["instance", "last"])
def test_only_with_level_do_tokens_tell_series_apart_that_differ_by_it(how: str) -> None:
    data = torch.randn(1, C, T)
    for level in (False, True):
        tokenizer = built(normalise=how, level=level)
        one, other = (tokenizer(View("series", data + shift)).values for shift in (0.0, 3.0))
        assert torch.allclose(one, other, atol=1e-5) is not level


def test_known_series_add_their_vector_and_others_none() -> None:
    tokenizer = built(known=True, names=["a", "b", "c"])
    data = torch.randn(1, 2, T)
    plain = tokenizer(View("series", data)).values
    view = View("series", data, targets={"name": torch.tensor([[2, -1]])})
    first, second = tokenizer(view).values.sub(plain).chunk(2)
    torch.testing.assert_close(first, tokenizer.names[2].expand_as(first))
    assert (second == 0).all()
    masked = replace(view, masked=torch.ones(len(plain), dtype=torch.bool))
    assert not torch.equal(*tokenizer(masked).values.chunk(2))  # a masked window still says whose it is
