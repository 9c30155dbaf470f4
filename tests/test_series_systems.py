"""Whole systems of series: channels that read each other, and objectives of vision on crops in time.

Axes: n = 3 samples, C = 5 channels, T = 26 steps, H = 7.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from triptych.backbones.encoder import Encoder
from triptych.backbones.teacher import Teacher
from triptych.objectives.contrastive import Contrastive
from triptych.objectives.forecasting import Forecasting
from triptych.objectives.objective import Objective
from triptych.objectives.reconstruction import Reconstruction
from triptych.objectives.self_distillation import SelfDistillation
from triptych.tasks.model import Model
from triptych.tasks.series.data import Tables
from triptych.tasks.series.future import predict_future
from triptych.tasks.series.table import to_table
from triptych.tasks.series.views import SeriesView
from triptych.tokenizers.series import SeriesWindows
from triptych.tokenizers.view import View

N, C, T, H = 3, 5, 26, 7
FACTS = {"series": {"context": T, "horizon": H, "names": [f"c{i}" for i in range(C)]}}


def forecaster(axes: list[str], patch: int = 8, **tokenizer: object) -> Model:
    torch.manual_seed(0)
    model = Model(
        {"series": SeriesWindows(patch, patch, "align", **tokenizer)},  # type: ignore[arg-type]
        Encoder(16, 2, 2, axes=axes),  # type: ignore[arg-type]
        {"forecast": Forecasting(own=True)},
    )
    model.build({"train": "series"}, FACTS)
    return model.eval()


def view(data: torch.Tensor, names: torch.Tensor) -> View:
    return View("series", data, targets={"name": names.expand(len(data), -1)})


@pytest.mark.parametrize(("axes", "reads"), [(["along", "across"], True), (["along"], False)])
def test_only_attention_across_lets_one_channel_change_the_forecast_of_another(axes, reads) -> None:
    model, data, names = forecaster(axes), torch.randn(N, C, T), torch.arange(C)
    changed = data.clone()
    changed[:, 3] += torch.randn(N, T)
    before, after = model.predict(view(data, names)), model.predict(view(changed, names))
    assert torch.equal(before[:, :3], after[:, :3]) is not reads


@pytest.mark.parametrize("patch", [8, T])  # windows along and across, or one token a channel
def test_forecasts_do_not_depend_on_the_other_samples_of_the_batch(patch: int) -> None:
    axes = ["across"] if patch == T else ["along", "across"]
    model, data, names = (
        forecaster(axes, patch, normalise="none", known=True),
        torch.randn(N, C, T),
        torch.arange(C),
    )
    together = model.predict(view(data, names))
    alone = torch.cat([model.predict(view(data[i : i + 1], names)) for i in range(N)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together.diff(dim=-1) > 0).all()


def test_unknown_channels_are_told_apart_by_their_values_alone() -> None:
    model, data = forecaster(["along", "across"], level=True, known=True), torch.randn(N, C, T)
    order, unknown = torch.tensor([4, 2, 0, 1, 3]), torch.full((C,), -1)
    plain, shuffled = model.predict(view(data, unknown)), model.predict(view(data[:, order], unknown))
    torch.testing.assert_close(plain[:, order], shuffled, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain, model.predict(view(data, torch.arange(C))), atol=1e-3)


def test_levels_come_back_in_the_units_of_the_data() -> None:
    for normalise in ("instance", "last"):
        model, data = forecaster(["along"], normalise=normalise), torch.randn(N, C, T)
        names = torch.full((C,), -1)
        plain, shifted = model.predict(view(data, names)), model.predict(view(data + 5.0, names))
        torch.testing.assert_close(plain + 5.0, shifted, rtol=1e-3, atol=1e-3)


def test_any_horizon_is_reached_by_rolling_all_channels_on_together() -> None:
    model = forecaster(["along", "across"], normalise="none", known=True)
    assert model.spec is not None
    model.spec.data["series"].update(mean=[0.0] * C, scale=[1.0] * C, together=True)
    values = np.random.default_rng(1).normal(size=(40, C))
    stamps = pd.date_range("2024-01-01", periods=40, freq="h")
    rows = to_table(pd.DataFrame({"ds": stamps, **{f"c{i}": values[:, i] for i in range(C)}}))
    far, near = (predict_future(model, rows, steps, fill=True).quantiles for steps in (2 * H + 1, H))
    assert far.shape[:2] == (C, 2 * H + 1) and np.isfinite(far).all()
    np.testing.assert_allclose(far[:, :H], near, rtol=1e-5, atol=1e-6)
    assert (np.diff(far, axis=-1) >= 0).all()


def table(folder: Path) -> str:
    rows = 160
    noise = np.random.default_rng(0).normal(size=(rows, 3)).cumsum(0)
    stamps = pd.date_range("2024-01-01", periods=rows, freq="h")
    frame = pd.DataFrame({"ds": stamps, **{f"c{i}": noise[:, i] for i in range(3)}})
    frame.loc[30:33, "c1"] = np.nan
    frame.to_csv(folder / "table.csv", index=False)
    return str(folder / "table.csv")


def crops(**options: object) -> SeriesView:
    return SeriesView(crop=(0.5, 0.9), jitter=0.1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "views"),
    [
        (Reconstruction("masked"), {"masked": SeriesView(mask=0.4)}),
        (Contrastive("two", pool="mean", projection=8), {"two": crops(copies=2)}),
        (
            SelfDistillation(prototypes=8, hidden=8, bottleneck=4, pool="mean"),
            {"global": crops(copies=2, steps=24), "local": crops(copies=3, steps=16)},
        ),
    ],
)
def test_objectives_of_vision_train_on_crops_and_masks_of_a_table(
    objective: Objective, views: dict[str, SeriesView], tmp_path: Path
) -> None:
    data = Tables(table(tmp_path), context=24, horizon=3, views=views, batch_size=6)
    tokenizer = SeriesWindows(6, 6, "align")
    data.attach({"series": tokenizer})
    data.setup()
    model = Model({"series": tokenizer}, Encoder(16, 1, 2), {"it": objective}, teacher=Teacher(0.9))
    model.build(data.views(), data.facts())
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == set(views)
    loss = model(batch).total
    loss.backward()
    moved = tokenizer.project.weight.grad
    assert torch.isfinite(loss) and moved is not None and moved.abs().sum() > 0
    (plain,) = next(iter(data.plain("test"))).values()
    assert "future" in plain.targets and plain.data.shape[2] == 24
