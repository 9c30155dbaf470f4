"""A forecaster that starts from ridge is that ridge, whatever its normalisation, until it learns more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from triptych.tasks.build import build_model
from triptych.tasks.model import Model
from triptych.tasks.series.baselines import arrays, fit_ridge
from triptych.tasks.series.data import Tables
from triptych.tokenizers.errors import UserError

ROWS, CONTEXT, HORIZON, PATCH = 307, 23, 5, 7


def module(folder: Path) -> Tables:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(ROWS, 2)).cumsum(0) * [1.0, 30.0] + [5.0, -100.0]
    frame = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=ROWS, freq="h"), "p": values[:, 0]})
    frame.assign(q=values[:, 1]).to_csv(folder / "table.csv", index=False)
    data = Tables(str(folder / "table.csv"), context=CONTEXT, horizon=HORIZON)
    data.setup()
    return data


def model_of(data: Tables, head: dict[str, Any], **tokenizer: Any) -> Model:
    windows = {"patch": PATCH, "stride": PATCH, "end": "align", **tokenizer}
    model = build_model(
        {
            "tokenizers": {
                "series": {"class_path": "triptych.tokenizers.series.SeriesWindows", "init_args": windows}
            },
            "encoder": {"width": 12, "depth": 1, "heads": 2},
            "objectives": {
                "forecast": {
                    "class_path": "triptych.objectives.forecasting.Forecasting",
                    "init_args": {"start": "ridge", **head},
                }
            },
        }
    )
    model.build(data.views(), data.facts())
    return model


@pytest.mark.parametrize("normalise", ["instance", "last", "none"])
def test_it_begins_as_ridge_in_any_units(normalise: str, tmp_path: Path) -> None:
    data = module(tmp_path)
    data.context = PATCH * (CONTEXT // PATCH)  # whole windows, so that both read the same rows
    model = model_of(data, {}, normalise=normalise)
    data.begin(model)
    ridge = fit_ridge(data.windows("train"), data.windows("val"))
    model.eval()
    for _, view in data.windows("test").in_order():
        own = model.predict(view)[..., 4].numpy()
        np.testing.assert_allclose(own, ridge(arrays(view)[0]), rtol=1e-3, atol=1e-3)


def test_it_learns_on_from_there(tmp_path: Path) -> None:
    data = module(tmp_path)
    model = model_of(data, {})
    data.begin(model)
    (view,) = data.samples("train").collate(range(11)).values()
    model({"train": view}).total.backward()
    head: Any = model.objective["forecast"]
    assert head.head.weight.grad.abs().sum() > 0 and head.linear.weight.grad.abs().sum() > 0


def test_without_a_wish_nothing_is_fitted(tmp_path: Path) -> None:
    data = module(tmp_path)
    model = model_of(data, {"start": "zero"})
    data.begin(model)
    head: Any = model.objective["forecast"]
    assert not head.linear.weight.any() and head.head.weight.any()


def test_what_cannot_start_from_ridge_is_refused(tmp_path: Path) -> None:
    data = module(tmp_path)
    with pytest.raises(UserError, match="needs `skip: true`, but it is false"):
        model_of(data, {"skip": False})
    with pytest.raises(UserError, match="needs windows side by side"):
        data.begin(model_of(data, {}, stride=2))
