"""Covariates: read by role, scaled by train rows, known ahead only where they may be, of use to a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from triptych.tasks.build import build_model
from triptych.tasks.data import PLAIN
from triptych.tasks.model import Model
from triptych.tasks.series.beside import Given
from triptych.tasks.series.covariates import calendar
from triptych.tasks.series.data import Tables
from triptych.tasks.series.frequency import Step
from triptych.tasks.series.future import predict_future
from triptych.tasks.series.table import Columns, Table, to_table
from triptych.tasks.series.views import SeriesView
from triptych.tokenizers.errors import UserError

CONTEXT, HORIZON, ROWS = 13, 5, 101
ROLES: dict[str, Any] = {"past": ["rain"], "known": ["price", "day"], "static": ["size", "town"]}


def long_table(ahead: int = 7) -> pd.DataFrame:
    """Two series with covariates of every kind; those known ahead go on for `ahead` rows without values."""
    generator = np.random.default_rng(0)
    parts = []
    for name, rows in (("a", ROWS), ("b", ROWS - 30)):
        stamps = pd.date_range("2024-01-01", periods=rows + ahead, freq="D")
        part = pd.DataFrame({"unique_id": name, "ds": stamps})
        part["price"] = generator.normal(size=len(part)) + 10
        part["day"] = np.where(part["ds"].dt.day_of_week < 5, "work", "rest")
        part["rain"] = np.where(np.arange(len(part)) < rows, generator.normal(size=len(part)), np.nan)
        part["size"] = 3.0 if name == "a" else 5.0
        part["town"] = "north" if name == "a" else "south"
        part["y"] = np.where(np.arange(len(part)) < rows, generator.normal(size=len(part)), np.nan)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def columns() -> Columns:
    return Columns(roles=Given(**ROLES).roles())


def module(folder: Path, frame: pd.DataFrame, **settings: Any) -> Tables:
    frame.to_parquet(folder / "table.parquet")
    arguments = {"context": CONTEXT, "horizon": HORIZON, "covariates": Given(**ROLES), **settings}
    data = Tables(str(folder / "table.parquet"), **arguments)
    data.setup()
    return data


def test_covariates_are_read_by_role_and_rows_after_the_values_are_the_future() -> None:
    table = to_table(long_table(), columns())
    assert table.lengths.tolist() == [ROWS, ROWS - 30]
    beside = table.covariates
    assert beside.lengths.tolist() == [ROWS + 7, ROWS - 23]
    assert dict(zip(beside.names, beside.roles, strict=True)) == {
        **{"rain": "past", "price": "known", "day=rest": "known", "day=work": "known"},
        **{"size": "static", "town=north": "static", "town=south": "static"},
    }
    assert beside.levels == {"day": ["rest", "work"], "town": ["north", "south"]}
    work = beside.values[:, beside.names.index("day=work")]
    assert (work[:7] == [1, 1, 1, 1, 1, 0, 0]).all()
    assert (beside.values[ROWS + 7 :, beside.names.index("town=south")] == 1).all()
    written = to_table(table.until(table.lengths), columns())
    np.testing.assert_array_equal(written.covariates.values, table.covariates.laid(table.lengths).values)


def test_a_batch_holds_what_was_known_at_each_origin(tmp_path: Path) -> None:
    data = module(tmp_path, long_table())
    table, windows = data.table, data.samples("train", plain=True)
    assert data.beside is not None
    view = windows.collate([0, 3, len(windows) - 1])[PLAIN]
    assert isinstance(view.data, Tensor) and view.observed is not None
    assert view.data.shape == (3, 8, CONTEXT) and view.targets["future"].shape == (3, 1, HORIZON)
    names, mean, scale = table.covariates.names, data.beside.mean, data.beside.scale
    for entry, item in enumerate([0, 3, len(windows) - 1]):
        origin = int(windows.origins[item])
        series = int(origin >= ROWS)
        first = origin + series * 7  # rows of covariates go on after the values of the first series
        for name, shift in (("rain", 0), ("price", HORIZON), ("day=work", HORIZON), ("town=south", 0)):
            place = names.index(name)
            rows = table.covariates.values[first - CONTEXT + shift : first + shift, place]
            expected = (rows - mean[place]) / scale[place]
            np.testing.assert_allclose(view.data[entry, 1 + place], expected, rtol=1e-5, atol=1e-6)
    train = data.spans["train"].high
    assert mean[names.index("price")] == pytest.approx(
        np.mean([*long_table()["price"][: train[0]], *long_table()["price"][ROWS + 7 :][: train[1]]])
    )


def test_facts_tell_the_covariates(tmp_path: Path) -> None:
    frame = long_table().drop(columns=["rain", "price", "day", "size", "town"])
    given = Given(calendar=True)
    facts = module(tmp_path, frame, covariates=given).facts()["series"]
    assert [(c["name"], c["role"]) for c in facts["covariates"]] == [
        (name, "known") for name in ("week sin", "week cos", "year sin", "year cos")
    ]


@pytest.mark.parametrize(
    ("freq", "names"),
    [
        ("15min", ["day", "week", "year"]),
        ("h", ["day", "week", "year"]),
        ("D", ["week", "year"]),
        ("7D", ["year"]),
        ("MS", ["year"]),
        ("QS-JAN", ["year"]),
        ("YS-JAN", []),
    ],
)
def test_the_calendar_follows_the_frequency(freq: str, names: list[str]) -> None:
    stamps = pd.date_range("2024-01-01", periods=9, freq=freq)
    found, values = calendar(stamps, Step(freq))
    assert found == [f"{name} {wave}" for name in names for wave in ("sin", "cos")]
    np.testing.assert_allclose(np.square(values.reshape(9, -1, 2)).sum(2), 1.0)
    if freq == "h":
        np.testing.assert_allclose(values[6, :2], [1, 0], atol=1e-12)  # six in the morning


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"price": "cost"}, "a column 'price' of covariates in it, but it has none"),
        ({"town": None}, "one value of the static covariate 'town' for the series 'a' in it, but it has 2"),
        ({"day": None}, "at most 64 different values in the covariate 'day' of it"),
    ],
)
def test_mistakes_in_covariates_get_one_sentence(change: dict[str, str | None], words: str) -> None:
    frame = long_table()
    if "price" in change:
        frame = frame.rename(columns={"price": "cost"})
    if "town" in change:
        frame.loc[3, "town"] = "south"
    if "day" in change:
        frame["day"] = frame["ds"].dt.strftime("day %j")
    with pytest.raises(UserError, match=words):
        to_table(frame, columns(), name="it")
    with pytest.raises(UserError, match="one role of the covariate 'x', but got past and known"):
        Given(past=["x"], known=["x"]).roles()


def small_model(data: Tables, axes: tuple[str, ...] = ("along", "across")) -> Model:
    tokenizer, head = "tokenizers.series.SeriesWindows", "objectives.forecasting.Forecasting"
    init = {"patch": 5, "stride": 5, "end": "align"}
    config = {
        "tokenizers": {"series": {"class_path": f"triptych.{tokenizer}", "init_args": init}},
        "encoder": {"width": 24, "depth": 2, "heads": 2, "axes": list(axes)},
        "objectives": {"forecast": {"class_path": f"triptych.{head}", "init_args": {"squared": 1.0}}},
    }
    model = build_model(config)
    model.build(data.views(), data.facts())
    return model


def promotion(ahead: int = 0) -> pd.DataFrame:
    """Values that follow a covariate known ahead and nothing else."""
    generator = np.random.default_rng(1)
    price = generator.normal(size=400 + ahead)
    y = np.where(np.arange(len(price)) < 400, 5 * price + 20, np.nan)
    stamps = pd.date_range("2024-01-01", periods=len(price), freq="D")
    return pd.DataFrame({"unique_id": "a", "ds": stamps, "y": y, "price": price})


def test_attention_across_channels_learns_from_a_covariate_known_ahead(tmp_path: Path) -> None:
    data = module(tmp_path, promotion(), covariates=Given(known=["price"]), context=15, horizon=5)
    torch.manual_seed(0)
    model = small_model(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train = data.samples("train")
    for step in range(120):
        batch = train.collate(torch.randint(len(train), (64,), generator=torch.manual_seed(step)).tolist())
        optimizer.zero_grad()
        model(batch).total.backward()
        optimizer.step()
    model.eval()
    (view,) = data.samples("test", plain=True).collate(range(len(data.samples("test")))).values()
    error = (model.predict(view)[..., 4] - view.targets["future"]).square().mean()
    assert error < 0.3 * view.targets["future"].square().mean()
    quantiles = future(model, promotion(5)).quantiles[0, :, 4]
    truth = 5 * promotion(5)["price"].to_numpy()[400:] + 20
    assert np.square(quantiles - truth).mean() < 0.3 * np.var(truth)


def future(model: Model, frame: pd.DataFrame, horizon: int = 5) -> Any:
    table: Table = to_table(frame, Columns(roles={"price": "known"}))
    return predict_future(model, table, horizon, fill=False)


def test_a_forecast_reads_the_future_that_is_known_and_no_other(tmp_path: Path) -> None:
    data = module(tmp_path, promotion(), covariates=Given(known=["price"]), context=15, horizon=5)
    model = small_model(data).eval()
    frame = promotion(9)
    other = frame.copy()
    other.loc[405:, "price"] = 99.0
    one, same = future(model, frame).quantiles, future(model, other).quantiles
    np.testing.assert_array_equal(one, same)
    other.loc[402, "price"] = 99.0
    assert not np.allclose(one, future(model, other).quantiles)
    assert future(model, frame, 9).quantiles.shape == (1, 9, 9)  # rolled once, by what is known then
    with pytest.raises(
        UserError, match="covariate 'price' in 10 rows after the last value of the series 'a'"
    ):
        future(model, frame, 10)


def test_views_show_covariates_beside_the_values_at_the_same_steps(tmp_path: Path) -> None:
    views = {"train": SeriesView(jitter=0.1), "cut": SeriesView(copies=2, crop=(0.5, 0.8))}
    data = module(tmp_path, long_table(), views=views)
    samples = data.samples("train")
    keys = [(0, index) for index in (0, 3, len(samples) - 1)]
    plain = data.samples("train", plain=True).collate([index for _, index in keys])[PLAIN]
    batch = samples.collate(keys)
    assert batch["train"].data.shape == plain.data.shape == (3, 8, CONTEXT)
    still = [1 + data.table.covariates.names.index(name) for name in ("size", "town=south")]
    assert torch.equal(batch["train"].data[:, still], plain.data[:, still])  # noise scales with what moves
    assert not torch.equal(batch["train"].data[:, 0], plain.data[:, 0])
    for entry, crop in enumerate(batch["cut"].data):
        whole = plain.data[entry % 3].unfold(1, crop.shape[1], 1).transpose(0, 1)  # every place it may have
        whole = torch.where(
            plain.observed[entry % 3].unfold(1, crop.shape[1], 1).transpose(0, 1), whole, torch.nan
        )
        assert any(torch.equal(place.nan_to_num(9.0), crop.nan_to_num(9.0)) for place in whole)
    data.attach({"series": small_model(data).tokenizers["series"]})  # type: ignore[dict-item]
    loss = small_model(data)({"train": data.samples("train").collate(keys)["train"]})
    loss.total.backward()
    assert torch.isfinite(loss.total)


def test_masked_windows_of_covariates_are_told_from_the_values(tmp_path: Path) -> None:
    data = module(
        tmp_path, promotion(), covariates=Given(known=["price"]), views={"masked": SeriesView(mask=0.4)}
    )
    config = {
        "tokenizers": {
            "series": {
                "class_path": "triptych.tokenizers.series.SeriesWindows",
                "init_args": {"patch": 3, "stride": 3, "end": "align"},
            }
        },
        "encoder": {"width": 12, "depth": 2, "heads": 2, "axes": ["along", "across"]},
        "objectives": {
            "masked": {
                "class_path": "triptych.objectives.reconstruction.Reconstruction",
                "init_args": {"view": "masked"},
            }
        },
    }
    model = build_model(config)
    data.attach(dict(model.tokenizers.items()))  # type: ignore[arg-type]
    model.build(data.views(), data.facts())
    batch = data.samples("train").collate([(0, index) for index in range(5)])
    masked = batch["masked"].masked
    assert masked is not None and masked.view(5, 2, 4).sum(2).tolist() == [[2, 2]] * 5
    loss = model(batch)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    role = model.tokenizers["series"].role  # type: ignore[union-attr]
    assert role.grad is not None and bool(role.grad.abs().sum() > 0)
