"""`triptych forecast` and the panel of series, on a small untrained run: what they say, not how well."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from triptych.cli import main
from triptych.tasks.build import build_model
from triptych.tasks.data import PLAIN
from triptych.tasks.panel import Row
from triptych.tasks.run import Run, load, save
from triptych.tasks.series import windows
from triptych.tasks.series.data import Tables
from triptych.tasks.series.forecast import forecast, forecast_command
from triptych.tasks.series.panel import measure, picture
from triptych.tasks.series.table import to_table
from triptych.tokenizers.errors import UserError

CONTEXT, HORIZON, ROWS = 23, 5, 211
QUANTILES = [0.1, 0.3, 0.5, 0.9]
STAMPS = pd.date_range("2023-10-28", periods=ROWS, freq="h")


def wide_table(rows: int = ROWS) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(rows, 3)).cumsum(0)
    day = 3 * np.sin(np.arange(rows) * 2 * np.pi / 24)
    values = {name: day + noise[:, i] + 50 * i for i, name in enumerate(("p", "q", "r"))}
    frame = pd.DataFrame({"ds": pd.date_range(STAMPS[0], periods=rows, freq="h"), **values})
    frame.loc[frame.index.isin([40, 41, 190]), "q"] = np.nan
    return frame


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run directory as `fit` leaves it, its weights drawn at random."""
    folder = tmp_path_factory.mktemp("run")
    wide_table().to_csv(folder / "table.csv", index=False)
    arguments = {"path": str(folder / "table.csv"), "context": CONTEXT, "horizon": HORIZON, "batch_size": 64}
    tokenizer, head = "tokenizers.series.SeriesWindows", "objectives.forecasting.Forecasting"
    config: dict[str, Any] = {
        "model": {
            "tokenizers": {
                "series": {"class_path": f"triptych.{tokenizer}", "init_args": {"patch": 6, "stride": 4}}
            },
            "encoder": {"width": 12, "depth": 1, "heads": 2},
            "objectives": {
                "forecast": {"class_path": f"triptych.{head}", "init_args": {"quantiles": QUANTILES}}
            },
        },
        "data": {"class_path": "triptych.tasks.series.data.Tables", "init_args": arguments},
    }
    torch.manual_seed(0)
    model = build_model(config["model"])
    data = Tables(**arguments)
    data.setup()
    model.build(data.views(), data.facts())
    save(model, config, folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return load(folder)


def test_a_wide_table_is_forecast_beyond_its_last_row(run: Run) -> None:
    frame = forecast(run, wide_table())
    assert list(frame.columns) == ["unique_id", "ds", "median", "q0.1", "q0.3", "q0.5", "q0.9"]
    assert list(frame["unique_id"]) == ["p"] * HORIZON + ["q"] * HORIZON + ["r"] * HORIZON
    expected = pd.date_range(STAMPS[-1] + pd.Timedelta(hours=1), periods=HORIZON, freq="h")
    assert list(frame["ds"]) == list(expected) * 3
    assert (frame["median"] == frame["q0.5"]).all()
    assert (frame[["q0.1", "q0.3", "q0.5", "q0.9"]].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)


def test_a_long_table_of_new_series_is_forecast_alike(run: Run) -> None:
    wide = wide_table()
    long = wide.melt("ds", var_name="unique_id", value_name="y").dropna()
    shorter = long[(long["unique_id"] != "r") | (long["ds"] < STAMPS[150])]
    shorter = shorter.assign(unique_id="new " + shorter["unique_id"]).sample(frac=1, random_state=0)
    frame = forecast(run, shorter).set_index("unique_id")
    same = forecast(run, wide).set_index("unique_id")
    for name in ("p", "q"):
        np.testing.assert_allclose(frame.loc[f"new {name}", "q0.9"], same.loc[name, "q0.9"], rtol=1e-5)
    cut = forecast(run, wide[["ds", "r"]].iloc[:150]).set_index("unique_id")
    np.testing.assert_allclose(frame.loc["new r", "median"], cut.loc["r", "median"], rtol=1e-5)
    assert frame.loc["new r", "ds"].iloc[0] == STAMPS[150]


def test_forecasts_follow_the_units_of_the_table_however_large(run: Run) -> None:
    frame = wide_table()
    there = forecast(run, frame.assign(p=frame["p"] * 1e-3 + 1e6))
    here = forecast(run, frame)
    own = here["unique_id"] == "p"
    quantiles = ["q0.1", "median", "q0.9"]
    np.testing.assert_allclose((there[quantiles][own] - 1e6) * 1e3, here[quantiles][own], rtol=1e-3)
    np.testing.assert_array_equal(there[quantiles][~own], here[quantiles][~own])


def test_longer_horizons_roll_forward_and_grow_less_sure(run: Run) -> None:
    short, long = forecast(run, wide_table()), forecast(run, wide_table(), 3 * HORIZON + 1)
    for name in ("p", "q", "r"):
        one, other = (frame[frame["unique_id"] == name] for frame in (short, long))
        assert len(other) == 3 * HORIZON + 1
        np.testing.assert_array_equal(one["q0.3"], other["q0.3"][:HORIZON])
        assert (other[["q0.1", "q0.3", "q0.5", "q0.9"]].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert len(forecast(run, wide_table(), 2)) == 6


def test_what_comes_after_the_cut_off_changes_no_bit(run: Run, tmp_path: Path) -> None:
    data = run.data()
    assert isinstance(data, Tables)
    test = data.samples("test", plain=True)
    item = 3 * 7
    origin = int(test.origins[7])
    frame = wide_table()
    frame.loc[origin:, ["p", "q", "r"]] = 1e4 * np.random.default_rng(1).normal(size=(ROWS - origin, 3))
    frame.to_csv(tmp_path / "other.csv", index=False)
    other = run.data({"data.path": str(tmp_path / "other.csv")}).samples("test", plain=True)
    ours, theirs = (run.model.predict(samples.collate([item])[PLAIN]) for samples in (test, other))
    assert torch.equal(ours, theirs)
    assert not torch.equal(
        test.collate([item])[PLAIN].targets["future"], other.collate([item])[PLAIN].targets["future"]
    )


@pytest.mark.parametrize(
    ("table", "horizon", "words"),
    [
        (wide_table(), 0, "a horizon of at least 1 row, but got 0"),
        (wide_table(), -3, "a horizon of at least 1 row, but got -3"),
        (wide_table(4), None, "'p' to have at least 6 rows, one window of the model, but it has 4"),
        (wide_table().assign(q=np.nan), None, "'q' to have values in the last 23 rows"),
        (
            wide_table().rename(columns={"ds": "when"}),
            None,
            "a time column 'ds' .* columns are when, p, q, r",
        ),
    ],
)
def test_what_cannot_be_forecast_gets_one_sentence(
    run: Run, table: pd.DataFrame, horizon: int | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        forecast(run, table, horizon)


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "deep/f.parquet"])
def test_the_command_writes_a_table_a_picture_and_figures(
    run: Run, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = str(run.directory / "table.csv"), tmp_path / name
    plot, figures = tmp_path / "plots" / "fan.png", tmp_path / "figures.json"
    forecast_command(str(run.directory), source, None, 12, "model", str(output), str(plot), str(figures))
    written = pd.read_parquet(output) if name.endswith("parquet") else pd.read_csv(output, parse_dates=["ds"])
    pd.testing.assert_frame_equal(written, forecast(run, source, 12), check_dtype=False)
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = json.loads(figures.read_text())
    assert (found["series"], found["horizon"], found["step"], found["blocks"]) == (3, 12, "h", 3)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 series, 12 rows of h ahead" in said
    assert "it was applied 3 times" in said


def test_a_table_may_name_its_columns_otherwise(run: Run, tmp_path: Path) -> None:
    names = {"ds": "when", "variable": "shop", "value": "sold"}
    wide_table().melt("ds").rename(columns=names).to_csv(tmp_path / "sold.csv", index=False)
    options = [
        f"--data.{key}={name}" for key, name in zip(("time", "series", "value"), names.values(), strict=True)
    ]
    path, output = str(tmp_path / "sold.csv"), str(tmp_path / "f.csv")
    command = ["forecast", "--run", str(run.directory), "--data.path", path, "--output", output]
    assert main([*command, *options]) == 0
    told = pd.read_csv(output, parse_dates=["when"])
    expected = forecast(run, wide_table()).rename(columns={"unique_id": "shop", "ds": "when"})
    pd.testing.assert_frame_equal(told, expected, check_dtype=False)


def test_series_that_the_model_cannot_read_are_left_out_by_name(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    long = wide_table().melt("ds", var_name="unique_id", value_name="y")
    short = pd.DataFrame({"unique_id": "short", "ds": STAMPS[:5], "y": np.arange(5.0)})
    empty = pd.DataFrame({"unique_id": "empty", "ds": STAMPS, "y": np.nan})
    told = forecast(run, pd.concat([short, long, empty]))
    pd.testing.assert_frame_equal(told, forecast(run, long))
    assert "the series 'short', which has 5 values in 5 rows" in caplog.text and "and 1 more" in caplog.text


def test_counts_are_not_forecast_below_zero(run: Run) -> None:
    table = wide_table()
    spells = np.where(np.arange(len(table)) % 7 == 0, 3.0, 0.0)  # intermittent demand
    table["p"], table["q"] = spells, spells - 1  # q also falls below 0: no counts
    told = forecast(run, table, 3 * HORIZON).set_index("unique_id").drop(columns="ds")
    assert (told.loc["p"] >= 0).all(axis=None) and (told.loc["q"] < 0).any(axis=None)
    table["p"] += 0.5
    assert (forecast(run, table, 3 * HORIZON).set_index("unique_id").loc["p", "q0.1"] < 0).any()


def test_a_channel_holds_counts_until_it_does_not() -> None:
    values = {"a": [0, 2, np.nan, 1, 3], "b": [1, 0.5, 2, 3, 4], "c": [4, 3, 2, 1, -1]}
    stamps = pd.date_range("2026-01-01", periods=5, freq="D")
    wide = pd.DataFrame({"ds": stamps, **values})
    expected = [[True] * 5, [True] + [False] * 4, [True] * 4 + [False]]
    assert to_table(wide).counts.T.tolist() == expected
    long = wide.melt("ds", var_name="unique_id", value_name="y")
    assert to_table(long).counts.reshape(3, 5).tolist() == expected


def test_without_a_path_the_run_s_own_table_is_forecast(run: Run, tmp_path: Path) -> None:
    told = str(tmp_path / "told.csv")
    assert main(["forecast", "--run", str(run.directory), "--output", told]) == 0
    expected = forecast(run, run.directory / "table.csv")
    pd.testing.assert_frame_equal(pd.read_csv(told, parse_dates=["ds"]), expected, check_dtype=False)


def test_mistakes_on_the_command_line_end_with_status_2(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide_table().rename(columns={"ds": "when"}).to_csv(tmp_path / "when.csv", index=False)
    command = ["forecast", "--run", str(run.directory), "--data.path"]
    good = str(run.directory / "table.csv")
    for rest, words in (
        ([str(tmp_path / "when.csv")], "its columns are when, p, q, r"),
        ([str(tmp_path / "no.csv")], "does not exist"),
        ([good, "--horizon", "0"], "--horizon"),
        ([good, "--intervals", "wide"], "--intervals to be model, split or online, but got 'wide'"),
        ([good, "--data.context", "7"], "--data.freq alone, but got --data.context"),
        ([good, "--horizon", "212"], "at most the table's 211 rows, but got 212"),
        ([good, "--output", str(tmp_path / "f.txt")], "to end in .csv or .parquet"),
        ([good, "--plot", str(tmp_path / "f.xyz")], "--plot to end in .png, .pdf, .svg, but got"),
    ):
        assert main([*command, *rest]) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith("triptych: error: ") and words in said and len(said.splitlines()) == 1


def test_figures_are_means_over_every_window_whatever_the_batches(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measure(run)
    figures = {(row.system, row.metric): row for row in rows}
    data = run.data()
    assert isinstance(data, Tables)
    test = data.samples("test", plain=True)
    assert len(test) == 3 * (int(0.2 * ROWS) - HORIZON + 1)
    view = test.collate(range(len(test)))[PLAIN]
    observed, future = view.targets["future_observed"], view.targets["future"]
    assert not observed.all()
    quantiles = run.model.predict(view)
    error = (quantiles[..., 2] - future)[observed]
    last = (view.data[..., -1:] - future)[observed]  # type: ignore[call-overload]
    inside = ((quantiles[..., 0] <= future) & (future <= quantiles[..., -1]))[observed].float()
    for system, metric, value in (
        ("this run", "MSE (z units)", error.square().mean()),
        ("this run", "MAE (z units)", error.abs().mean()),
        ("naive", "MSE (z units)", last.square().mean()),
        ("this run", "coverage of the 80 % interval", inside.mean()),
    ):
        row = figures[system, metric]
        assert row.value == pytest.approx(float(value), rel=1e-5)
        assert row.low is not None and row.high is not None and row.low <= row.value <= row.high
        assert row.baseline == (system != "this run")
    assert {row.system for row in rows} == {"this run", "ridge", "naive", "seasonal naive"}
    monkeypatch.setattr(windows, "BLOCK", 7)
    for row, other in zip(rows, measure(run), strict=True):
        assert isinstance(other, Row)
        assert other.value == pytest.approx(row.value, rel=1e-4)


def test_the_picture_says_what_it_shows(run: Run, tmp_path: Path) -> None:
    caption = picture(run, tmp_path / "panel.png")
    assert (tmp_path / "panel.png").read_bytes().startswith(b"\x89PNG")
    assert "of 15 true values lie in the 80 % interval" in caption
