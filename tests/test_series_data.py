"""Tables of series: reading, frequency, gaps, splits, windows, baselines."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from triptych.tasks.series.baselines import fit_ridge, naive, seasonal_naive
from triptych.tasks.series.data import Tables, fill_forward
from triptych.tasks.series.table import Columns, read_table, to_table
from triptych.tasks.series.windows import Windows, split_spans, window_origins
from triptych.tokenizers.errors import UserError

HOURS = pd.date_range("2024-02-27", periods=97, freq="h")


def long_table(lengths: dict[str, int], freq: str = "h") -> pd.DataFrame:
    parts = []
    for number, (name, length) in enumerate(lengths.items()):
        stamps = pd.date_range(f"2024-01-0{number + 1}", periods=length, freq=freq)
        parts.append(
            pd.DataFrame({"unique_id": name, "ds": stamps, "y": np.arange(length) + 1000.0 * number})
        )
    return pd.concat(parts, ignore_index=True)


def saved(frame: pd.DataFrame, folder: Path, name: str = "table.csv") -> str:
    path = folder / name
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_long_and_wide_tables_are_read_from_every_format(tmp_path: Path, name: str) -> None:
    long = read_table(saved(long_table({"b": 13, "a": 7}), tmp_path, name))
    assert (long.ids, long.channels, long.names) == (("b", "a"), ("y",), ("b", "a"))
    assert long.lengths.tolist() == [13, 7] and long.first.tolist() == [0, 24]
    wide = pd.DataFrame({"ds": HOURS, "p": np.arange(97.0), "q": 3.0})
    table = read_table(saved(wide, tmp_path, name))
    assert (table.ids, table.channels, table.names) == (("",), ("p", "q"), ("p", "q"))
    assert table.values.shape == (97, 2)


def test_unordered_rows_are_sorted_and_gaps_become_missing_rows() -> None:
    frame = pd.DataFrame({"ds": HOURS, "p": np.arange(97.0), "q": np.arange(97.0) * 2})
    holes = [3, 4, 5, 50]
    table = to_table(frame.drop(index=holes).sample(frac=1, random_state=0))
    assert table.values.shape == (97, 2)
    assert np.isnan(table.values[holes]).all()
    kept = np.setdiff1d(np.arange(97), holes)
    assert np.array_equal(table.values[kept, 1], 2.0 * kept)


@pytest.mark.parametrize(
    ("freq", "name", "season"),
    [
        ("h", "h", 24),
        ("15min", "15min", 96),
        ("30s", "30s", 2880),
        ("D", "D", 7),
        ("B", "B", 5),
        ("W-MON", "7D", 52),
        ("MS", "MS", 12),
        ("ME", "ME", 12),
        ("QS", "QS-JAN", 4),
        ("YS", "YS-JAN", 1),
    ],
)
def test_the_frequency_is_inferred_despite_gaps(freq: str, name: str, season: int) -> None:
    stamps = pd.date_range("2010-01-04" if freq in ("B", "W-MON") else "2010-01-01", periods=41, freq=freq)
    kept = np.setdiff1d(np.arange(41), [4, 5, 17])
    table = to_table(pd.DataFrame({"ds": stamps[kept], "y": kept}))
    assert (table.step.name, table.step.season, len(table.values)) == (name, season, 41)
    expected = pd.date_range(stamps[-1], periods=4, freq=freq)[1:]
    assert list(table.future(3)[0]) == list(expected)


def test_stamps_with_a_time_zone_are_read_as_utc() -> None:
    stamps = ["2024-03-31T00:00:00+01:00", "2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00"]
    table = to_table(pd.DataFrame({"ds": stamps, "y": [1, 2, 3]}))
    assert table.grid[-1] == pd.Timestamp("2024-03-31T01:00:00Z") and len(table.grid) == 3


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame({"when": HOURS, "y": 1.0}), "time column 'ds' in table, but its columns are when, y"),
        (pd.DataFrame({"ds": HOURS[[0, 1, 1]], "y": 1.0}), "2024-02-27 01:00:00 is in table more than once"),
        (
            pd.DataFrame({"unique_id": ["a", "b", "b"], "ds": HOURS[[0, 0, 0]], "y": 1.0}),
            "2024-02-27 00:00:00 of the series 'b' is in table more than once",
        ),
        (pd.DataFrame({"ds": HOURS[[0, 2, 5]], "y": 1.0}), "regular stamps .* give --data.freq"),
        (pd.DataFrame({"ds": HOURS[:1], "y": 1.0}), "two rows or more .* give --data.freq"),
        (pd.DataFrame({"ds": [1, 2, 3], "y": 1.0}), "dates in the column 'ds' .* numbers such as 1"),
        (pd.DataFrame({"ds": ["2024-01-01", "soon"], "y": 1.0}), "row 2 holds 'soon'"),
        (
            pd.DataFrame({"ds": HOURS[:2], "y": ["1", "one"]}),
            "numbers in 'y' of table, but row 2 holds 'one'",
        ),
        (pd.DataFrame({"unique_id": "a", "ds": HOURS, "z": 1.0}), "a column 'y' in the long table"),
        (pd.DataFrame({"ds": HOURS}), "at least one column of values beside 'ds'"),
        (pd.DataFrame({"ds": [], "y": []}), "only column names"),
    ],
)
def test_mistakes_in_a_table_get_one_sentence(frame: pd.DataFrame, words: str) -> None:
    with pytest.raises(UserError, match=words):
        to_table(frame)


def test_mistakes_in_a_path_or_frequency_get_one_sentence(tmp_path: Path) -> None:
    frame = pd.DataFrame({"ds": HOURS, "y": 1.0})
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    for path, words in (
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "no.csv"), "does not exist"),
        (saved(frame, tmp_path, "table.txt"), "in .csv .* or .parquet"),
        (str(tmp_path / "broken.parquet"), "cannot be read"),
    ):
        with pytest.raises(UserError, match=words):
            read_table(path)
    with pytest.raises(UserError, match=r"a frequency such as h, .* but got 'hourly-ish'"):
        to_table(frame, freq="hourly-ish")
    with pytest.raises(UserError, match="'2h' apart in table, but 2024-02-27 01:00:00 is not"):
        to_table(frame, freq="2h")
    with pytest.raises(UserError, match="rows span"):
        to_table(frame, freq="s")


def test_other_names_of_columns_can_be_given(tmp_path: Path) -> None:
    frame = long_table({"a": 5}).rename(columns={"unique_id": "shop", "ds": "day", "y": "sales"})
    table = read_table(saved(frame, tmp_path), Columns("day", "shop", "sales"))
    assert table.ids == ("a",) and table.values.ravel().tolist() == [0, 1, 2, 3, 4]


def test_filling_forward_stays_inside_each_series() -> None:
    nan = np.nan
    values = np.array([[nan, 1], [2, nan], [nan, nan], [nan, 4], [5, nan]])
    filled, known = fill_forward(values, np.array([0, 3]), np.array([3, 2]))
    expected = np.array([[nan, 1], [2, 1], [2, 1], [nan, 4], [5, 4]])
    assert np.array_equal(filled, expected, equal_nan=True)
    assert np.array_equal(known, ~np.isnan(expected))


def test_windows_are_those_of_a_loop() -> None:
    lengths = np.array([40, 9, 23, 31])
    starts = np.cumsum(lengths) - lengths
    for stride in (1, 3):
        for split, span in split_spans(lengths).items():
            expected = [
                start + origin
                for start, length, low, high in zip(starts, lengths, span.low, span.high, strict=True)
                for origin in range(max(low, 6), length, 1)
                if origin + 4 <= high and (origin - max(low, 6)) % stride == 0
            ]
            found = window_origins(span, starts, 6, 4, stride)
            assert found.tolist() == expected, (split, stride)


def test_the_packaged_sample_has_every_window(weather: Tables) -> None:
    rows, channels = (
        8730,
        15,
    )  # hours from 2013-01-01 06:00 to 2013-12-30 23:00, the 16 missing ones among them
    train, test = int(0.7 * rows), int(0.2 * rows)
    assert weather.table.values.shape == (rows, channels)
    assert np.isnan(weather.table.values).all(1).sum() == 16
    assert weather.facts()["series"]["season"] == 24
    expected = {
        "train": train - 168 - 24 + 1,
        "val": rows - test - train - 24 + 1,
        "test": test - 24 + 1,
    }
    for split, windows in expected.items():
        assert len(weather.samples(split)) == windows * channels, split
        loader = {"val": weather.val_dataloader, "test": weather.test_dataloader}.get(split)
        if loader is not None:
            assert sum(batch["train"].samples for batch in loader()) == windows * channels


@pytest.fixture(scope="module")
def weather() -> Tables:
    data = Tables(gaps="forward", batch_size=4096)
    data.setup()
    return data


def test_scaling_knows_only_the_train_rows(weather: Tables) -> None:
    train = weather.values[: weather.spans["train"].high[0]]
    torch.testing.assert_close(train.mean(0), torch.zeros(15), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.var(0, unbiased=False), torch.ones(15), atol=1e-4, rtol=0)
    assert weather.values[weather.spans["test"].low[0] :].mean(0).abs().max() > 0.3


@pytest.mark.parametrize("together", [True, False])
def test_a_batch_holds_the_rows_before_and_after_each_origin(together: bool, tmp_path: Path) -> None:
    frame = pd.DataFrame({"ds": HOURS, "p": np.arange(97.0), "q": 5 - 2 * np.arange(97.0)})
    frame.loc[11, "p"] = np.nan
    data = Tables(saved(frame, tmp_path), context=6, horizon=4, together=together)
    data.setup()
    windows = data.samples("train")
    count = 67 - 6 - 4 + 1
    assert len(windows) == count * (1 if together else 2)
    names = data.names("train")
    assert len(names) == len(windows)
    assert names[2] == ("2024-02-27 08:00:00" if together else "p 2024-02-27 07:00:00")
    items = [0, 2, 5]
    (view,) = windows.collate(items).values()
    scaled = data.values
    for entry, item in enumerate(items):
        origin = 6 + (item if together else item // 2)
        channels = [0, 1] if together else [item % 2]
        assert isinstance(view.data, Tensor) and view.observed is not None
        assert torch.equal(view.data[entry], scaled[origin - 6 : origin, channels].T)
        assert torch.equal(view.targets["future"][entry], scaled[origin : origin + 4, channels].T)
        assert torch.equal(view.observed[entry], data.observed[origin - 6 : origin, channels].T)
    assert not data.observed[11, 0] and data.observed[11, 1]


def test_a_gap_is_filled_forward_or_masked(tmp_path: Path) -> None:
    frame = pd.DataFrame({"ds": HOURS, "y": np.arange(97.0)}).drop(index=[20, 21])
    path = saved(frame, tmp_path)
    filled, masked = (Tables(path, context=6, horizon=4, gaps=gaps) for gaps in ("forward", "mask"))
    for data in (filled, masked):
        data.setup()
        assert (data.values[20:22] == data.values[19]).all()
    assert filled.observed.all()
    assert (~masked.observed).nonzero()[:, 0].tolist() == [20, 21]


def test_series_of_unequal_lengths_and_too_short_ones(tmp_path: Path) -> None:
    data = Tables(saved(long_table({"a": 60, "tiny": 5, "b": 80}), tmp_path), context=6, horizon=4)
    data.setup()
    spans = data.spans["test"]
    assert len(data.samples("test")) == (60 - spans.low[0] - 3) + (80 - spans.low[2] - 3)
    batch = data.samples("test").collate(range(len(data.samples("test"))))["train"]
    assert isinstance(batch.data, Tensor) and not batch.data.isnan().any()
    alone = Tables(saved(long_table({"b": 80}), tmp_path, "b.csv"), context=6, horizon=4)
    alone.setup()
    (own,) = alone.samples("test").collate(range(len(alone.samples("test")))).values()
    torch.testing.assert_close(batch.data[-len(own) :], own.data)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"context": 90, "horizon": 8}, "too short for a context of 90 and a horizon of 8 rows: .* has 97"),
        ({"context": 6, "horizon": 15}, "no val window fits"),
        ({"horizon": 0}, "expected data.horizon to be at least 1, but got 0"),
        ({"context": -1}, "expected data.context to be at least 1, but got -1"),
    ],
)
def test_a_horizon_longer_than_the_data_gets_one_sentence(
    settings: dict[str, int], words: str, tmp_path: Path
) -> None:
    path = saved(pd.DataFrame({"ds": HOURS, "y": np.arange(97.0)}), tmp_path)
    with pytest.raises(UserError, match=words):
        Tables(path, **settings).setup()  # type: ignore[arg-type]


def test_naive_forecasts_repeat_what_was() -> None:
    context = np.arange(14.0).reshape(1, 2, 7)
    assert naive(context, 3).tolist() == [[[6, 6, 6], [13, 13, 13]]]
    assert seasonal_naive(context, 5, 3).tolist() == [[[4, 5, 6, 4, 5], [11, 12, 13, 11, 12]]]
    assert seasonal_naive(context[..., -2:], 3, 24)[0, 0].tolist() == [5, 6, 5]


def test_ridge_equals_scikit_learn_and_picks_its_strength_on_validation() -> None:
    from sklearn.linear_model import Ridge as Reference

    rows = torch.randn(300, 3).cumsum(0)
    observed = torch.ones(300, 3, dtype=torch.bool)
    train, val = (Windows(rows, observed, np.arange(low, high), 6, 4) for low, high in ((6, 200), (206, 290)))
    ridge = fit_ridge(train, val)

    def arrays(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
        (view,) = windows.collate(range(len(windows))).values()
        data = view.data[:, 0].double().numpy()  # type: ignore[call-overload]
        last = data[:, -1:]
        return data - last, view.targets["future"][:, 0].double().numpy() - last

    x, y = arrays(train)
    alpha = ridge.strength * np.trace(x.T @ x) / 6
    reference = Reference(alpha, fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(ridge.weight, reference.coef_.T, rtol=1e-4, atol=1e-6)
    vx, vy = arrays(val)
    ours = np.square(vx @ ridge.weight - vy).mean()
    for strength in (1e-6, 1e-3, 1e-1, 1e2):
        other = Reference(strength * np.trace(x.T @ x) / 6, fit_intercept=False).fit(x, y)
        assert ours <= np.square(vx @ other.coef_.T - vy).mean() * (1 + 1e-6)


def test_thousands_of_short_series_need_no_loop_over_them(tmp_path: Path) -> None:
    """5,000 series of 60 rows: an epoch's windows in seconds of the processor, not in minutes."""
    series, rows = 5000, 60
    stamps = pd.date_range("2019-01-01", periods=rows, freq="MS")
    ids, values = np.repeat(np.arange(series), rows), np.random.default_rng(0).normal(size=series * rows)
    frame = pd.DataFrame({"unique_id": ids, "ds": np.tile(stamps, series), "y": values})
    began = time.process_time()
    data = Tables(
        saved(frame, tmp_path, "t.parquet"), context=24, horizon=6, split=(48, 6, 6), batch_size=512
    )
    data.setup()
    seen = sum(batch["train"].samples for batch in data.train_dataloader())
    seconds = time.process_time() - began
    print(f"{seconds:.1f} s")
    assert len(data.samples("train")) == series * (48 - 24 - 6 + 1) and len(data.samples("test")) == series
    assert seen == len(data.samples("train")) // 512 * 512
    assert seconds < 20


def test_a_row_without_the_name_of_its_series_is_refused() -> None:
    table = pd.DataFrame({"unique_id": ["a", None], "ds": ["2024-01-01", "2024-01-01"], "y": 1.0})
    with pytest.raises(UserError, match="every row of 'unique_id' in it, but row 2 has none"):
        to_table(table, name="it")


def test_a_table_without_a_value_is_refused() -> None:
    table = pd.DataFrame({"ds": ["2024-01-01", "2024-01-02"], "a": [None, None], "b": np.nan})
    with pytest.raises(UserError, match="expected values in it, but there is none under 'a', 'b'"):
        to_table(table, name="it")


def test_a_table_too_short_is_told_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "short.csv"
    pd.DataFrame({"ds": pd.date_range("2021-01-01", periods=36, freq="MS"), "y": range(36)}).to_csv(path)
    with pytest.raises(UserError, match=r"--data\.context 21 --data\.horizon 4 fit, .* stride of 21 at most"):
        Tables(str(path), context=168, horizon=24).setup()
    Tables(str(path), context=21, horizon=4).setup()


def test_an_index_that_was_saved_is_no_series(tmp_path: Path) -> None:
    frame = pd.DataFrame({"ds": pd.date_range("2026-01-01", periods=5, freq="D"), "p": np.arange(5.0)})
    frame.to_csv(tmp_path / "t.csv")
    assert read_table(str(tmp_path / "t.csv")).channels == ("p",)
    frame.rename(columns={"p": "Unnamed: 0"}).to_csv(tmp_path / "t.csv", index=False)
    assert read_table(str(tmp_path / "t.csv")).channels == ("Unnamed: 0",)
