"""Time stamps as they come out of spreadsheets and databases: read, or refused in one sentence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from triptych.tasks.series.table import read_table, to_table
from triptych.tokenizers.errors import UserError


def sales(*values: str) -> np.ndarray:
    """What a column of numbers as text is read as."""
    stamps = pd.date_range("2023-01-01", periods=len(values))
    return to_table(pd.DataFrame({"ds": stamps, "y": values}), name="it").values[:, 0]


def days(*stamps: object) -> pd.DatetimeIndex:
    return to_table(pd.DataFrame({"ds": pd.Series(stamps), "y": 1.0}), name="it").grid


@pytest.mark.parametrize(
    "stamps",
    [
        ("2023-12-31", "2024-01-01", "2024-01-02"),
        ("31.12.2023", "01.01.2024", "02.01.2024"),
        ("31/12/23", "1/1/24", "2/1/24"),
        ("12/31/2023", "01/01/2024", "01/02/2024"),
        (" 31.12.2023 00:00", "01.01.2024 00:00", "02.01.2024 00:00"),
        ("20231231", "20240101", "20240102"),
        ("Dec 31, 2023", "Jan 1, 2024", "Jan 2, 2024"),
    ],
)
def test_days_are_read_as_they_are_written(stamps: tuple[str, ...]) -> None:
    assert list(days(*stamps)) == list(pd.date_range("2023-12-31", periods=3))


def test_the_order_of_day_and_month_is_the_one_that_is_even() -> None:
    assert list(days("01.02.2024", "02.02.2024", "03.02.2024")) == list(
        pd.date_range("2024-02-01", periods=3)
    )
    for either in (("1/2/2024", "1/3/2024", "1/4/2024"), ("1/2/2024", "2/2/2024")):  # days or months
        with pytest.raises(UserError, match=r"read in one way, such as 2024-12-31, but '1/2/2024' and the"):
            days(*either)


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%y"])
@pytest.mark.parametrize("freq", ["MS", "QS", "ME"])
def test_local_dates_of_months_are_months(form: str, freq: str) -> None:
    written = pd.date_range("2019-01-01", periods=15, freq=freq)
    assert list(days(*written.strftime(form))) == list(written)


def test_a_local_table_of_hours_keeps_its_clock() -> None:
    hours = days("01.02.2024 22:00", "01.02.2024 23:00", "02.02.2024 00:00")
    assert list(hours) == list(pd.date_range("2024-02-01 22:00", periods=3, freq="h"))


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("start", ["2024-03-30", "2024-10-26"])
def test_days_of_a_time_zone_stay_days_across_daylight_saving(start: str, as_text: bool) -> None:
    stamps = pd.date_range(start, periods=5, freq="D", tz="Europe/Berlin")
    table = to_table(pd.DataFrame({"ds": stamps.astype(str) if as_text else stamps, "y": np.arange(5.0)}))
    assert list(table.grid) == list(pd.date_range(start, periods=5)) and table.step.name == "D"


@pytest.mark.parametrize("as_text", [False, True])
def test_hours_of_a_time_zone_are_all_there_across_daylight_saving(as_text: bool) -> None:
    for start in ("2024-03-31", "2024-10-27"):
        stamps = pd.date_range(start, periods=30, freq="h", tz="Europe/Berlin")
        table = to_table(
            pd.DataFrame({"ds": stamps.astype(str) if as_text else stamps, "y": np.arange(30.0)})
        )
        assert table.values.ravel().tolist() == list(range(30)) and str(table.grid.tz) == "UTC"


def test_an_hour_that_comes_twice_without_its_offset_gets_one_sentence() -> None:
    clock = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"]
    with pytest.raises(UserError, match=r"02:00:00 is in it more than once .*needs its offset from UTC"):
        days(*clock)


def test_an_hour_that_never_came_is_a_gap() -> None:
    clock = ["2024-03-31 00:00", "2024-03-31 01:00", "2024-03-31 03:00", "2024-03-31 04:00"]
    table = to_table(pd.DataFrame({"ds": clock, "y": [0.0, 1, 3, 4]}))
    np.testing.assert_array_equal(table.values.ravel(), [0, 1, np.nan, 3, 4])


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_a_spreadsheet_of_another_country_is_read(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "umsatz.csv"
    rows = [["ds", "Umsatz", "Süd"], ["31.12.2023", "1,5", "2"], ["01.01.2024", "-2,25", ""]]
    rows = [[f'"{cell}"' if separator == "," else cell for cell in row] for row in rows]
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n", encoding="utf-8-sig")
    table = read_table(str(path))
    assert table.channels == ("Umsatz", "Süd")
    np.testing.assert_array_equal(table.values, [[1.5, 2], [-2.25, np.nan]])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (("3,5", "-12,25", "7"), (3.5, -12.25, 7)),
        (("1.501,89", "12,5", "2.000", "1.234.567,0"), (1501.89, 12.5, 2000, 1234567)),
        (("1,501", "0,250", "3,125"), (1.501, 0.25, 3.125)),
        (("1.501", "12.5"), (1.501, 12.5)),
    ],
)
def test_numbers_are_read_as_spreadsheets_of_other_countries_write_them(
    written: tuple[str, ...], meant: tuple[float, ...]
) -> None:
    np.testing.assert_allclose(sales(*written), meant)


def test_a_number_that_may_be_either_is_refused() -> None:
    with pytest.raises(UserError, match=r"'1,501' may be 1501 or 1.501: write one of these"):
        sales("1,501", "12,250", "999")


def test_a_file_that_a_spreadsheet_saved_in_another_encoding_gets_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "umsatz.csv"
    path.write_bytes("unique_id;ds;y\nSüd;01.02.2023;3,5\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"UTF-8 in .* byte 16 is not: save it as CSV UTF-8"):
        read_table(str(path))


def test_other_names_of_columns_are_asked_for_by_option() -> None:
    with pytest.raises(UserError, match=r"columns are Filiale, Datum, Umsatz: name it with --data.time"):
        to_table(pd.DataFrame({"Filiale": ["a"], "Datum": ["01.02.2023"], "Umsatz": [1.0]}), name="it")
