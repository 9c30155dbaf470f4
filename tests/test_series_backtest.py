"""`triptych backtest`: every window counted, nothing read after a cut, figures that others compute alike."""

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
from triptych.tasks.run import Run, load, save
from triptych.tasks.series.backtest import Backtest, backtest
from triptych.tasks.series.beside import Given
from triptych.tasks.series.data import Tables
from triptych.tasks.series.frames import models
from triptych.tasks.series.rivals import naive
from triptych.tasks.series.scores import Scales
from triptych.tasks.series.skill import skills
from triptych.tokenizers.errors import UserError
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import coverage, mae, mase, rmsse, scaled_crps, winkler_score

CONTEXT, HORIZON, ROWS = 23, 5, 331
QUANTILES = [0.1, 0.2, 0.5, 0.8, 0.9]


def wide_table(rows: int = ROWS, walk: bool = False) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(rows, 3))
    day = 3 * np.sin(np.arange(rows) * 2 * np.pi / 24)
    stamps = pd.date_range("2023-10-28", periods=rows, freq="h")
    values = {n: noise[:, i].cumsum() if walk else day + noise[:, i] for i, n in enumerate("pqr")}
    frame = pd.DataFrame({"ds": stamps, **values})
    frame.loc[frame.index.isin([40, 41, 320]), "q"] = np.nan
    return frame


def untrained(folder: Path, table: pd.DataFrame, covariates: dict[str, Any] | None = None) -> Run:
    """A run directory as `fit` leaves it, its weights drawn at random."""
    table.to_csv(folder / "table.csv", index=False)
    arguments = {"path": str(folder / "table.csv"), "context": CONTEXT, "horizon": HORIZON, "batch_size": 64}
    tokenizer, head = "tokenizers.series.SeriesWindows", "objectives.forecasting.Forecasting"
    axes = ["along"] if covariates is None else ["across"]
    config: dict[str, Any] = {
        "model": {
            "tokenizers": {
                "series": {"class_path": f"triptych.{tokenizer}", "init_args": {"patch": 6, "stride": 4}}
            },
            "encoder": {"width": 12, "depth": 1, "heads": 2, "axes": axes},
            "objectives": {
                "forecast": {"class_path": f"triptych.{head}", "init_args": {"quantiles": QUANTILES}}
            },
        },
        "data": {
            "class_path": "triptych.tasks.series.data.Tables",
            "init_args": arguments | {"covariates": covariates},
        },
        "trainer": {"max_steps": 2, "enable_progress_bar": False},
    }
    torch.manual_seed(0)
    model = build_model(config["model"])
    data = Tables(**arguments, covariates=None if covariates is None else Given(**covariates))  # type: ignore[arg-type]
    data.setup()
    model.build(data.views(), data.facts())
    save(model, config, folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return load(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return untrained(tmp_path_factory.mktemp("run"), wide_table())


@pytest.fixture(scope="module")
def found(run: Run) -> Backtest:
    return backtest(run, wide_table(), windows=7)


def test_every_window_is_counted_once_with_its_truth(found: Backtest) -> None:
    frame, table = found.frames, wide_table().set_index("ds")
    assert list(frame.columns[:4]) == ["unique_id", "ds", "cutoff", "y"]
    assert frame.groupby("unique_id")["cutoff"].nunique().tolist() == [7, 7, 7]
    assert frame["cutoff"].nunique() == 7
    assert len(frame) == 3 * 7 * HORIZON - 1  # less the value of q that is missing
    last = table.index[-1]
    assert frame["ds"].max() == last and frame["cutoff"].max() == last - pd.Timedelta(hours=HORIZON)
    expected = [table.at[stamp, name] for name, stamp in zip(frame["unique_id"], frame["ds"], strict=True)]
    np.testing.assert_array_equal(frame["y"], expected)
    ahead = (frame["ds"] - frame["cutoff"]) / pd.Timedelta(hours=1)
    assert sorted(ahead.unique()) == list(range(1, HORIZON + 1))


def test_baselines_are_those_of_a_loop(found: Backtest) -> None:
    table = wide_table().set_index("ds").ffill()
    for row in found.frames.iloc[::11].itertuples():
        past = table.loc[: row.cutoff, row.unique_id].to_numpy()
        step = int((row.ds - row.cutoff) / pd.Timedelta(hours=1))
        assert row.Naive == pytest.approx(past[-1])
        assert row.SeasonalNaive24 == pytest.approx(past[len(past) - 24 + step - 1])
        assert row.SeasonalNaive168 == pytest.approx(past[len(past) - 168 + step - 1])
        assert row.Drift == pytest.approx(past[-1] + step * (past[-1] - past[0]) / (len(past) - 1))
    assert models(found.frames) == [
        *("triptych", "triptych_split", "triptych_online"),
        *("Naive", "SeasonalNaive24", "SeasonalNaive168", "Drift", "Ridge"),
    ]


def test_figures_are_utilsforecasts_on_the_frames_as_they_are(found: Backtest) -> None:
    whole = found.frames.drop(columns="cutoff")
    names = models(found.frames)
    first = found.frames["cutoff"].min()
    long = wide_table().melt("ds", var_name="unique_id", value_name="y")
    train = long[long["ds"] <= first][["unique_id", "ds", "y"]]
    for metric, ours in (
        (mase(whole, names, 24, train), "MASE"),
        (rmsse(whole, names, 24, train), "RMSSE"),
        (coverage(whole, names, 80), "coverage 80 %"),
    ):
        for name in names:
            assert found.value(ours, name) == pytest.approx(metric[name].mean()), (ours, name)
    columns = {n: [f"{n}-lo-80", f"{n}-lo-60", n, f"{n}-hi-60", f"{n}-hi-80"] for n in ("triptych", "Naive")}
    weighted = scaled_crps(whole, columns, np.array(QUANTILES))
    assert found.value("WQL") == pytest.approx(weighted["triptych"].mean())
    third = whole[(found.frames["ds"] - found.frames["cutoff"]) == pd.Timedelta(hours=3)]
    by_step = coverage(third, names, 80)
    assert found.value("coverage 80 %", "Ridge", 3) == pytest.approx(by_step["Ridge"].mean())
    evaluated = evaluate(found.frames, [mae, winkler_score], level=[80])
    assert set(evaluated.columns) == {"unique_id", "cutoff", "metric", *names}
    assert np.isfinite(evaluated[names].to_numpy()).all()


def test_figures_do_not_depend_on_the_batch_size(
    run: Run, found: Backtest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triptych.tasks.series import roll, windows

    monkeypatch.setattr(roll, "BATCH", 7)
    monkeypatch.setattr(windows, "BLOCK", 5)
    other = backtest(run, wide_table(), windows=7)
    np.testing.assert_allclose(other.scores["value"], found.scores["value"], rtol=1e-4)


def test_what_comes_after_a_cut_changes_no_forecast_made_at_it(run: Run, found: Backtest) -> None:
    """Changing the truth of the last window changes no bit of any forecast, calibrated or not."""
    table = wide_table()
    table.loc[len(table) - HORIZON :, ["p", "q", "r"]] = 1e3 * np.random.default_rng(1).normal(
        size=(HORIZON, 3)
    )
    other = backtest(run, table, windows=7).frames
    forecasts = [name for name in other.columns if name != "y"]
    same = found.frames.merge(other[["unique_id", "ds"]])
    pd.testing.assert_frame_equal(same[forecasts], other.merge(same[["unique_id", "ds"]])[forecasts])
    assert not other["y"].equals(found.frames["y"])


def test_quantiles_do_not_cross(found: Backtest) -> None:
    for name in models(found.frames):
        bounds = [f"{name}-lo-80", f"{name}-lo-60", f"{name}-hi-60", f"{name}-hi-80"]
        assert (found.frames[bounds].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None), name


def test_unequal_series_give_the_windows_they_can(run: Run) -> None:
    wide = wide_table()
    long = wide.melt("ds", var_name="unique_id", value_name="y").dropna()
    long["unique_id"] = "new " + long["unique_id"]
    short = long["unique_id"] == "new q"
    table = long[
        (~short | (long["ds"] < wide["ds"][19]))
        & ((long["unique_id"] != "new r") | (long["ds"] > wide["ds"][327]))
    ]
    found = backtest(run, table, windows=4)
    counts = found.frames.groupby("unique_id")["cutoff"].nunique()
    assert counts.to_dict() == {
        "new p": 4,
        "new q": 2,
    }  # 19 rows: cuts after 14 and 9, at least 6 before each
    assert "Left out: 1 series too short for a window." in found.notes


def test_a_short_series_takes_no_season_from_the_others(run: Run) -> None:
    long = wide_table().melt("ds", var_name="unique_id", value_name="y")
    long["unique_id"] = "new " + long["unique_id"]
    stamps = long["ds"].unique()
    short = pd.DataFrame({"unique_id": "short", "ds": stamps[-19:], "y": np.arange(19.0)})
    gap = long[long["unique_id"] == "new p"].assign(unique_id="gap")
    gap.loc[gap["ds"] > stamps[150], "y"] = np.nan
    found = backtest(run, pd.concat([long, short, gap]), windows=2)
    frame = found.frames.set_index("unique_id")
    assert frame.loc["short", "SeasonalNaive24"].tolist() == frame.loc["short", "Naive"].tolist()
    full = frame.loc["new p"]
    assert (full["SeasonalNaive24"] != full["Naive"]).any()
    assert full["SeasonalNaive24"].iloc[0] == wide_table()["p"].iloc[ROWS - 2 * HORIZON - 24]
    assert "gap" not in frame.index
    assert "Left out: 1 series without a value in the rows before a window." in found.notes


@pytest.mark.parametrize("kind", ["split", "online"])
def test_calibrated_forecasts_are_those_that_a_backtest_reports(run: Run, kind: Any) -> None:
    """Cut at its last window, the table's forecast has the quantiles that the backtest had there."""
    table = wide_table()
    reported = backtest(run, table, windows=1).frames
    told = run.forecast(table.iloc[:-HORIZON], HORIZON, kind)
    assert not np.allclose(told["q0.1"], run.forecast(table.iloc[:-HORIZON], HORIZON)["q0.1"])
    known = wide_table().iloc[-HORIZON:][["p", "q", "r"]].notna().T.to_numpy().ravel()
    name = f"triptych_{kind}"
    for quantile, column in (("q0.1", f"{name}-lo-80"), ("median", name), ("q0.8", f"{name}-hi-60")):
        np.testing.assert_allclose(told[quantile][known], reported[column], rtol=1e-6)


def test_too_few_rows_calibrate_nothing(run: Run) -> None:
    with pytest.raises(
        UserError, match=r"no past to calibrate intervals on \(`model` needs none\): .* 13 rows"
    ):
        run.forecast(wide_table(7).rename(columns={"p": "a", "q": "b", "r": "c"}), 7, "split")


def test_rows_that_the_run_has_seen_are_refused_and_the_refit_allows_them(run: Run) -> None:
    fits = (ROWS - (ROWS - int(0.2 * ROWS))) // HORIZON
    assert len(backtest(run, wide_table(), windows=fits).frames)
    with pytest.raises(UserError, match=f"{fits + 1} windows 5 rows apart only {fits} are: --windows"):
        backtest(run, wide_table(), windows=fits + 1)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"horizon": 0}, "horizon to be at least 1, but got 0"),
        ({"windows": 0}, "windows to be at least 1, but got 0"),
        ({"horizon": 400}, "a series of at least 406 rows for a window of 400, but the longest has 331"),
    ],
)
def test_what_cannot_be_tested_gets_one_sentence(run: Run, how: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        backtest(run, wide_table(), **how)


def test_a_random_walk_is_no_better_than_naive(tmp_path: Path) -> None:
    """Nor is the ridge, which was fitted on the walk's past: nothing can be."""
    walk = wide_table(walk=True)
    found = untrained(tmp_path, walk).backtest(walk, windows=13)
    assert found.verdict == "no better than naive"
    verdicts = {skill.system: skill.verdict for skill in found.skill}
    assert verdicts["Ridge"] == verdicts["Drift"] == "no better than naive"


def test_the_interval_of_skill_counts_windows_not_rows(found: Backtest) -> None:
    from triptych.tasks.series.scores import scales

    frame = found.frames.copy()
    scale = scales(found.table, found.plan)
    cut = found.table.grid.get_indexer(pd.DatetimeIndex(frame["cutoff"]))
    better = frame.assign(good=frame["y"] + 0.5 * (frame["Naive"] - frame["y"]))
    skill = {skill.system: skill for skill in skills(better, scale, cut // HORIZON)}
    assert skill["good"].value == pytest.approx(0.5)
    assert skill["good"].low == pytest.approx(0.5) and skill["good"].verdict == "better than naive"
    assert skill["Naive"].value == 0 and skill["Naive"].verdict == "no better than naive"
    one = better[(better["unique_id"] == "p") & (better["cutoff"] == better["cutoff"].max())]
    alone = skills(one, scale, np.zeros(len(one)))
    assert alone[0].low is None and alone[0].verdict == "not told from naive by so few windows"


def test_few_windows_of_a_random_walk_are_not_better_than_naive() -> None:
    """Of 400 systems as good as naive, cut six times, at most one in 20 is told to be better."""
    generator, told = np.random.default_rng(0), 0
    for _ in range(400):
        errors = np.abs(generator.standard_normal((6, 2)))  # of naive and of another as good
        frame = pd.DataFrame({"unique_id": "a", "y": 0.0, "Naive": errors[:, 0], "other": errors[:, 1]})
        frame["cutoff"] = frame["ds"] = pd.date_range("2024-01-01", periods=6)
        one = pd.Series({"a": 1.0})
        found = {skill.system: skill for skill in skills(frame, Scales(one, one, 1), np.arange(6))}
        told += found["other"].verdict == "better than naive"
        few = skills(frame[:5], Scales(one, one, 1), np.arange(5))
        assert {skill.verdict for skill in few} == {"not told from naive by so few windows"}
    assert told <= 20


def test_where_naive_makes_no_error_nothing_is_better() -> None:
    still = pd.DataFrame({"unique_id": "a", "y": 5.0, "Naive": 5.0, "other": 5.5}, index=range(7))
    still["cutoff"] = still["ds"] = pd.date_range("2024-01-01", periods=7)
    one = pd.Series({"a": 1.0})
    found = skills(still, Scales(one, one, 1), np.arange(7))
    assert {skill.verdict for skill in found} == {"no better than naive, which makes no error"}


def test_a_series_of_zeros_has_no_say_in_wql_and_counts_stay_counts(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 3, (90, 2)).astype(float)
    counts[:, 1] = 0
    counts[:30, 1] = 1
    table = pd.DataFrame(counts, columns=["p", "q"])
    table.insert(0, "ds", pd.date_range("2024-01-01", periods=90, freq="h"))
    found = untrained(tmp_path, table).backtest(table, windows=3)
    assert found.value("WQL") < 10
    bounds = found.frames.filter(regex="-lo-|-hi-|^triptych|^Ridge")
    assert bounds.min().min() >= 0


def test_the_command_prints_writes_and_draws(
    run: Run, found: Backtest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, plot, figures = (str(tmp_path / name) for name in ("f.parquet", "b.png", "b.json"))
    words = ["backtest", "--run", str(run.directory), "--data.path", str(run.directory / "table.csv")]
    assert main([*words, "--windows", "7", "--output", output, "--plot", plot, "--json", figures]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "21 windows of 5 rows, 3 series" in said and f"The run is {found.verdict}." in said
    pd.testing.assert_frame_equal(pd.read_parquet(output), found.frames)
    for name in ("b.png", "b-steps.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    written = json.loads(Path(figures).read_text())
    assert written["pooled"]["MASE"]["triptych"] == pytest.approx(found.value("MASE"), abs=1e-5)
    assert len(written["by_step"]["coverage 80 %"]["triptych_online"]) == HORIZON
    assert main([*words, "--output", "f.txt"]) == 2


def test_covariates_of_the_run_are_read_beside_the_values(tmp_path: Path) -> None:
    table = wide_table().rename(columns={"r": "price"})
    run = untrained(tmp_path, table, {"known": ["price"], "calendar": True})
    found = backtest(run, table, windows=3)
    assert found.frames["unique_id"].unique().tolist() == ["p", "q"]
    stamps = pd.date_range("2023-10-28", periods=ROWS + HORIZON, freq="h")
    longer = table.set_index("ds").reindex(stamps).rename_axis("ds").reset_index()
    longer.loc[ROWS:, "price"] = 7.0
    frame = run.forecast(longer)
    assert frame["ds"].min() == stamps[ROWS] and len(frame) == 2 * HORIZON
    with pytest.raises(
        UserError, match="known covariate 'price' in 5 rows after the last value, but it is in 0"
    ):
        run.forecast(table)


def test_peers_stand_beside_where_they_are_installed(run: Run) -> None:
    pytest.importorskip("lightgbm")
    found = backtest(run, wide_table(), windows=2)
    assert np.isfinite(found.value("MASE", "LightGBM")) and np.isfinite(found.value("WQL", "LightGBM"))


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        (set(), ["statsforecast is not installed", "LightGBM is not shown: it is not installed"]),
        ({"lightgbm"}, ["statsforecast is not installed"]),
    ],
)
def test_peers_that_are_not_there_are_named(run: Run, monkeypatch, installed, says) -> None:
    find = lambda name: name if name in installed else None  # noqa: E731
    monkeypatch.setattr("triptych.tasks.series.peers.find_spec", find)
    monkeypatch.setattr(
        "triptych.tasks.series.peers.lightgbm", lambda past, where: naive(past, where.origins, HORIZON)
    )
    notes = backtest(run, wide_table(), windows=2).notes
    assert len(notes) == len(says) and all(part in note for part, note in zip(says, notes, strict=True))


@pytest.mark.slow
def test_refitting_trains_on_nothing_after_each_cut(run: Run, tmp_path: Path) -> None:
    table = wide_table()
    one = backtest(run, table, windows=2, refit=True).frames
    table.loc[len(table) - HORIZON :, ["p", "q", "r"]] = 77.0
    other = backtest(run, table, windows=2, refit=True).frames
    kept = one["ds"].isin(other["ds"]) & (one["unique_id"] != "q")
    same = other["unique_id"] != "q"
    np.testing.assert_array_equal(one.loc[kept, "triptych"], other.loc[same, "triptych"])
