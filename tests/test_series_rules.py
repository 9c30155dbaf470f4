"""The rules of honest evaluation, kept: windows counted, scales of the past, batches of no consequence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from triptych.tasks.data import PLAIN
from triptych.tasks.run import Run, load
from triptych.tasks.series.data import Tables
from triptych.tasks.series.forecast import forecast
from triptych.tasks.series.windows import split_spans
from triptych.tokenizers.errors import UserError

from .test_series_backtest import HORIZON, untrained, wide_table

MONTH = 30 * 24
ETT = (12 * MONTH, 4 * MONTH, 4 * MONTH)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return untrained(tmp_path_factory.mktemp("run"), wide_table())


@pytest.mark.parametrize(("horizon", "windows"), [(96, 2785), (192, 2689), (336, 2545), (720, 2161)])
def test_the_published_split_of_ett_has_its_windows(horizon: int, windows: int, tmp_path: Path) -> None:
    """A table of ETTh1's shape: 17,420 hours, of which those after 20 months are left out."""
    rows = 17_420
    stamps = pd.date_range("2016-07-01", periods=rows, freq="h")
    values = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    frame = pd.DataFrame({"date": stamps, "HUFL": values[:, 0], "OT": values[:, 1]})
    frame.to_parquet(tmp_path / "ett.parquet")
    data = Tables(str(tmp_path / "ett.parquet"), 336, horizon, time="date", split=ETT, together=True)
    data.setup()
    test = data.samples("test", plain=True)
    assert len(test) == windows
    first, last = int(test.origins[0]), int(test.origins[-1]) + horizon
    assert (first, last) == (16 * MONTH, 20 * MONTH)
    train = data.values[: 12 * MONTH]
    torch.testing.assert_close(train.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert len(data.samples("train")) == 12 * MONTH - 336 - horizon + 1
    assert len(data.samples("val")) == 4 * MONTH - horizon + 1


@pytest.mark.parametrize("split", [(0.7, 0.1), (0.5, 0.2, 0.2), (-0.1, 0.6, 0.5), (3.5, 2, 2), (1, 1, 1)])
def test_a_split_that_is_none_gets_one_sentence(split: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"data.split to be three shares that sum to 1, or three numbers"):
        split_spans(np.array([100]), split)


def test_a_forecast_does_not_depend_on_the_other_series(run: Run) -> None:
    together = forecast(run, wide_table()).set_index("unique_id")
    for name in "pqr":
        alone = forecast(run, wide_table()[["ds", name]]).set_index("unique_id")
        np.testing.assert_allclose(
            alone.loc[name, ["median", "q0.1", "q0.9"]],
            together.loc[name, ["median", "q0.1", "q0.9"]],
            rtol=1e-4,
        )


def test_a_saved_and_loaded_model_forecasts_the_same(run: Run) -> None:
    first, second = (forecast(load(run.directory), wide_table(), 2 * HORIZON) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(first, forecast(run, wide_table(), 2 * HORIZON))


def test_the_scaling_and_the_ridge_see_no_row_of_the_test_part(tmp_path: Path) -> None:
    """Nothing is chosen on the test part: other values there change neither scale nor baseline."""
    from triptych.tasks.series.baselines import fit_ridge

    fitted = []
    for value in (0.0, 1e3):
        table = wide_table()
        table.loc[len(table) - int(0.2 * len(table)) :, ["p", "q", "r"]] = value
        path = tmp_path / f"{value}.csv"
        table.to_csv(path, index=False)
        data = Tables(str(path), 23, HORIZON)
        data.setup()
        ridge = fit_ridge(data.samples("train", plain=True), data.samples("val", plain=True))
        fitted.append((data.mean, data.scale, ridge.weight, ridge.strength))
    for one, other in zip(*fitted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_predictions_of_the_test_part_are_in_the_units_of_the_table(run: Run) -> None:
    data = run.data()
    assert isinstance(data, Tables)
    windows = data.samples("test", plain=True)
    prediction = torch.cat([run.model.predict(batch[PLAIN]) for batch in data.plain("test")])
    frame = data.predicted(prediction, run.model)
    assert frame is not None and len(frame) == len(windows) * HORIZON
    assert list(frame.columns) == [
        *("unique_id", "ds", "cutoff", "median"),
        *("q0.1", "q0.2", "q0.5", "q0.8", "q0.9"),
    ]
    table = wide_table()
    cut = int(windows.origins[-1])
    expected = forecast(run, table.iloc[:cut]).set_index(["unique_id", "ds"])
    found = frame[frame["cutoff"] == table["ds"][cut - 1]].set_index(["unique_id", "ds"])
    for quantile in ("median", "q0.1", "q0.9"):
        np.testing.assert_allclose(
            found[quantile].sort_index(), expected[quantile].sort_index(), rtol=1e-3, atol=1e-3
        )
