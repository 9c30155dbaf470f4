"""Forecasting: quantiles that cannot cross, losses equal to their formulas, units, packing.

Axes: n = 2 entries, C = 3 channels, T = 31 steps of context, H = 7, Q = 5, D = 8.
"""

from collections.abc import Sequence
from statistics import NormalDist

import pytest
import torch
from torch import Tensor
from triptych.backbones.encoder import Encoder
from triptych.objectives.forecasting import (
    DECILES,
    Forecasting,
    LatestTokens,
    OwnMaps,
    pinball,
    spread,
    squared,
)
from triptych.objectives.objective import Loss, Read, Spec, TokenSpec
from triptych.tasks.model import Model
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.series import SeriesWindows, statistics
from triptych.tokenizers.view import View

N, C, T, H, D = 2, 3, 31, 7, 8
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9)


def forecaster(**options: object) -> Model:
    head = Forecasting(quantiles=LEVELS, **options)  # type: ignore[arg-type]
    model = Model({"series": SeriesWindows(5, 3, prefix=["class"])}, Encoder(D, 2, 2), {"forecast": head})
    model.build({"train": "series"}, {"series": {"context": T, "horizon": H}})
    for parameter in model.objective.parameters():  # the skip starts at zero, which would hide its gradient
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def view(entries: int = N, missing: float = 0.2) -> View:
    data = torch.randn(entries, C, T).cumsum(2) * 3 + 11
    future = torch.randn(entries, C, H)
    return View(
        "series",
        data,
        observed=torch.rand(entries, C, T) >= missing,
        targets={"future": future * 3 + 11, "future_observed": torch.rand(entries, C, H) >= missing},
    )


def naive_pinball(quantiles: Tensor, future: Tensor, observed: Tensor, levels: Sequence[float]) -> Tensor:
    """Koenker and Bassett: q (y - y_q) where y lies above, (1 - q) (y_q - y) where it lies below."""
    total = torch.zeros((), dtype=quantiles.dtype)
    for i, t in observed.nonzero().tolist():
        for k, q in enumerate(levels):
            error = future[i, t] - quantiles[i, t, k]
            total = total + 2 / len(levels) * (q * error if error >= 0 else (1 - q) * -error)
    return total


def test_pinball_loss_and_gradient_equal_the_naive_twin() -> None:
    torch.manual_seed(3)
    quantiles = torch.randn(4, H, len(LEVELS), dtype=torch.float64, requires_grad=True)
    future, observed = torch.randn(4, H, dtype=torch.float64), torch.rand(4, H) < 0.7
    ours = pinball(quantiles, future, observed, torch.tensor(LEVELS, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(ours, quantiles)
    twin = naive_pinball(quantiles, future, observed, LEVELS)
    (expected,) = torch.autograd.grad(twin, quantiles)
    torch.testing.assert_close(ours, twin)
    torch.testing.assert_close(gradient, expected)


def test_pinball_loss_of_the_median_alone_is_the_absolute_error() -> None:
    point, future = torch.randn(3, H), torch.randn(3, H)
    everything = torch.ones(3, H, dtype=torch.bool)
    loss = pinball(point.unsqueeze(-1), future, everything, torch.tensor([0.5]))
    torch.testing.assert_close(loss, (future - point).abs().sum())


def test_pinball_loss_is_least_at_the_quantile() -> None:
    sample = torch.arange(101.0)
    everything = torch.ones(101, 1, dtype=torch.bool)
    guesses = torch.arange(0.0, 101.0)
    losses = [
        pinball(guess.expand(101, 1, 1), sample.unsqueeze(1), everything, torch.tensor([0.9]))
        for guess in guesses
    ]
    assert guesses[torch.stack(losses).argmin()] == 90


def test_outputs_of_zero_are_a_normal_distribution() -> None:
    head = Forecasting(quantiles=DECILES)
    head.build(Spec(D, 1, {"train": TokenSpec("series", 5, None, (), 4)}, {"series": {"horizon": H}}))
    quantiles = spread(torch.zeros(2, H), torch.zeros(2, H, 9), head.spacing, head.middle)
    normal = torch.tensor([NormalDist().inv_cdf(level) for level in DECILES])
    torch.testing.assert_close(quantiles, normal.expand(2, H, 9))


def test_quantiles_never_cross() -> None:
    outputs = torch.randn(50, H, 5) * 100
    assert (spread(outputs[..., 2], outputs, torch.randn(4), 2).diff(dim=-1) >= 0).all()
    model = forecaster()
    assert (model.predict(view(20)).diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("skip", [True, False])
def test_loss_equals_its_formula_over_the_observed_future(skip: bool) -> None:
    model, batch = forecaster(skip=skip, squared=0.3), view()
    loss = model({"train": batch})
    targets = batch.targets
    tokens = model.embed(batch)
    quantiles = model.predict(batch).flatten(0, 1)
    assert tokens.stats is not None
    unit = (quantiles - tokens.stats.mean.unsqueeze(-1)) / tokens.stats.scale.unsqueeze(-1)
    future = (targets["future"].flatten(0, 1) - tokens.stats.mean) / tokens.stats.scale
    observed = targets["future_observed"].flatten(0, 1)
    twin = naive_pinball(unit, future, observed, LEVELS)
    error = ((future - unit[..., 2])[observed] ** 2).sum()
    count = observed.sum()
    torch.testing.assert_close(loss.total, (twin + 0.3 * error) / count, rtol=1e-4, atol=1e-5)
    inside = (unit[..., 0] <= future) & (future <= unit[..., -1])
    torch.testing.assert_close(loss.metrics["forecast/coverage"], inside[observed].float().mean())


def test_a_missing_future_never_enters_the_loss() -> None:
    model, batch = forecaster(), view(missing=0.4)
    expected = model({"train": batch}).total
    hole = torch.where(batch.targets["future_observed"], batch.targets["future"], torch.nan)
    batch.targets["future"] = hole
    total = model({"train": batch}).total
    assert torch.equal(total, expected)
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_batch_without_any_future_has_no_loss() -> None:
    model, batch = forecaster(), view()
    batch.targets["future_observed"][:] = False
    loss: Loss = model({"train": batch})
    assert loss.total == 0
    assert "forecast/coverage" not in loss.metrics


def test_forecasts_follow_the_units_of_the_series() -> None:
    model, batch = forecaster().double(), view()
    data = batch.data.double()  # type: ignore[union-attr]
    metric = model.predict(View("series", data, observed=batch.observed))
    imperial = model.predict(View("series", data * 1.8 + 32, observed=batch.observed))
    assert metric.shape == (N, C, H, len(LEVELS))
    torch.testing.assert_close(imperial, metric * 1.8 + 32)


def test_forecasts_do_not_depend_on_what_else_is_in_the_batch() -> None:
    model, batch = forecaster(), view(5)
    together = model.predict(batch)
    assert batch.observed is not None and isinstance(batch.data, Tensor)
    for i in range(5):
        alone = model.predict(View("series", batch.data[i : i + 1], observed=batch.observed[i : i + 1]))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)
    one = model.predict(View("series", batch.data[:1, 1:2], observed=batch.observed[:1, 1:2]))
    torch.testing.assert_close(one[0, 0], together[0, 1], rtol=1e-5, atol=1e-5)


def test_unequal_contexts_packed_equal_one_by_one() -> None:
    model = forecaster()
    series = [torch.randn(C, length) for length in (T, 13, T + 9, 13)]
    targets = view(4).targets

    def summed(views: list[View]) -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        terms = [term.sum for each in views for term in model({"train": each}).terms.values()]
        torch.stack(terms).sum().backward()
        return torch.stack(terms).sum(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    together = summed([View("series", series, targets=targets)])
    apart = summed(
        [
            View("series", entry[None], targets={key: value[i : i + 1] for key, value in targets.items()})
            for i, entry in enumerate(series)
        ]
    )
    torch.testing.assert_close(together[0], apart[0], rtol=1e-5, atol=1e-4)
    for one, other in zip(together[1], apart[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_the_head_weighs_tokens_by_their_place_from_the_end() -> None:
    head = LatestTokens(4, 3, 5)
    torch.nn.init.normal_(head.bias)
    lengths = (2, 4, 7)
    values = torch.randn(sum(lengths), 3)
    weight = head.weight.view(5, 4, 3)
    for row, tokens in zip(head(values, lengths), values.split(lengths), strict=True):
        expected = head.bias.clone()
        for age in range(min(4, len(tokens))):
            expected = expected + weight[:, 3 - age] @ tokens[-1 - age]
        torch.testing.assert_close(row, expected)
    full = torch.randn(8, 3)
    torch.testing.assert_close(head(full, (4, 4)), full.view(2, 12) @ head.weight.T + head.bias)


def test_squared_error_counts_what_is_observed() -> None:
    point, future = torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 4.0]])
    assert squared(point, future, torch.tensor([[True, False, True]])) == 17


@pytest.mark.parametrize("levels", [[0.1, 0.9], [0.5, 0.4], [0.5, 0.5], [0.0, 0.5], [0.5, 1.0], []])
def test_wrong_quantiles_are_refused(levels: list[float]) -> None:
    with pytest.raises(UserError, match=r"with 0\.5 among them"):
        Forecasting(quantiles=levels)


def test_other_modalities_are_refused() -> None:
    spec = Spec(D, 1, {"train": TokenSpec("image", 5, None, ())}, {"image": {}})
    with pytest.raises(UserError, match="needs series with a horizon, but the view 'train' has none"):
        Forecasting().build(spec)


def test_it_reads_one_view() -> None:
    assert Forecasting(view="plain").reads() == (Read("plain"),)


def test_own_maps_equal_their_formula_in_the_units_of_the_data() -> None:
    """`W x + a mean + b` where x is the look-back less its mean; nothing for a series without a name."""
    maps, data = OwnMaps(C, T, H), torch.randn(N * C, T) * 2 + 1
    torch.nn.init.normal_(maps.weight, std=0.1)
    stats = statistics(data, torch.ones_like(data, dtype=torch.bool))
    name = torch.tensor([2, 0, -1, 1, 1, 0])
    added = maps((data - stats.mean) / stats.scale, stats, name) * stats.scale
    for i, place in enumerate(name.tolist()):
        weight = maps.weight[place]
        twin = weight[:, :T] @ (data[i] - stats.mean[i]) + weight[:, T] * stats.mean[i] + weight[:, T + 1]
        torch.testing.assert_close(added[i], twin if place >= 0 else torch.zeros(H))


def test_own_maps_make_a_forecast_depend_on_the_name_alone() -> None:
    head = Forecasting(quantiles=LEVELS, own=True)
    model = Model({"series": SeriesWindows(5, 3)}, Encoder(D, 2, 2), {"forecast": head})
    model.build({"train": "series"}, {"series": {"context": T, "horizon": H, "names": ["a", "b", "c"]}})
    torch.nn.init.normal_(head.maps.weight, std=0.1)
    model.eval()
    data = torch.randn(1, 1, T).expand(2, 1, T)

    def forecast(*names: int) -> Tensor:
        targets = {"name": torch.tensor(names).unsqueeze(1)}
        return model.predict(View("series", data, targets=targets))

    same, apart = forecast(1, 1), forecast(1, 2)
    torch.testing.assert_close(same[0], same[1])
    assert (apart[0] - apart[1]).abs().max() > 1e-3
    torch.testing.assert_close(apart[0], same[0])
