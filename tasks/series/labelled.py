"""Labelled series as they lie on disk: `.ts`, `.npz`, a long table with a label column, the packaged weather.

Shapes: B samples, C channels, T steps (unequal where the files say so).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...tokenizers.errors import UserError
from ..data import SPLITS, seed_of
from .table import NYC_CHANNELS, NYC_WEATHER, numbers, read_frame, read_table

#: Hours of one sample of the packaged weather, whose class is the airport.
NYC_HOURS = 48


@dataclass(frozen=True)
class Labelled:
    """B labelled series.

    Attributes:
        names: of the samples.
        values: `(C, T)` float32 each, NaN where a value is missing.
        labels: class names, None where unknown.
        splits: `train`, `val` or `test` each.
        channels: names of the C channels.
    """

    names: list[str]
    values: list[np.ndarray]
    labels: list[str | None]
    splits: list[str]
    channels: tuple[str, ...]


def read_labelled(path: str, val: float = 0.1) -> Labelled:
    """Read labelled series: a `.ts` file or a folder of a pair of them, `.npz`, or a long table.

    Where no part is called `val`, a share `val` of the train part validates; where nothing is said
    of parts, a fifth tests besides. Both by a hash of the sample's name.

    Raises:
        UserError: nothing is there, or it is not as expected.
    """
    if path == NYC_WEATHER:
        return nyc_airports()
    file = Path(path).expanduser()
    if file.is_dir() or file.suffix.lower() == ".ts":
        found = _ts_parts(file)
    elif file.suffix.lower() == ".npz":
        found = _npz(file)
    elif file.suffix.lower() in (".csv", ".gz", ".parquet", ".pq"):
        found = _long_table(file)
    else:
        raise UserError(f"expected labelled series in .ts, .npz, .csv or .parquet, but got {path!r}")
    counts = {len(values) for values in found.values}
    if len(counts) > 1:
        raise UserError(f"expected the same channels in every series of {path!r}, but found {sorted(counts)}")
    splits = assign(found.names, found.splits, val)
    return Labelled(found.names, found.values, found.labels, splits, found.channels)


def assign(names: Sequence[str], given: Sequence[str], val: float) -> list[str]:
    """The part of each sample: as given (`""` where it is not), else by a hash of its name."""
    places = [seed_of("split", name) / 2**63 for name in names]
    whole, carve = not any(given), "val" not in given
    parts = ["test" if whole and u >= 0.8 else part or "train" for part, u in zip(given, places, strict=True)]
    return [
        "val" if carve and part == "train" and u < val else part
        for part, u in zip(parts, places, strict=True)
    ]


def nyc_airports() -> Labelled:
    """Two days of weather at one of New York's three airports; the class is the airport.

    Windows do not overlap; the first 70 % in time train, the last 20 % test.
    """
    table = read_table(NYC_WEATHER)
    airports = list(dict.fromkeys(name.split(" ")[0] for name in table.channels))
    blocks = len(table.values) // NYC_HOURS
    names, values, labels, splits = [], [], [], []
    for block in range(blocks):
        split = "train" if block < 0.7 * blocks else "val" if block < 0.8 * blocks else "test"
        rows = table.values[block * NYC_HOURS : (block + 1) * NYC_HOURS]
        for airport in airports:
            own = [table.channels.index(f"{airport} {channel}") for channel in NYC_CHANNELS]
            names.append(f"{airport} {table.grid[block * NYC_HOURS]}")
            values.append(rows[:, own].T.astype(np.float32))
            labels.append(airport)
            splits.append(split)
    return Labelled(names, values, [*labels], splits, NYC_CHANNELS)


def _ts_parts(path: Path) -> Labelled:
    """`NAME_TRAIN.ts` and `NAME_TEST.ts`: a folder that holds the pair, either of them, or one file alone."""
    files = sorted(path.glob("*.ts")) if path.is_dir() else [path]
    stem = path.stem.removesuffix("_TRAIN").removesuffix("_TEST")
    if not path.is_dir() and stem != path.stem:
        files = [path.with_name(f"{stem}_{part}.ts") for part in ("TRAIN", "TEST")]
    for file in files:
        if not file.is_file():
            raise UserError(f"expected labelled series in {str(file)!r}, but it does not exist")
    if not files:
        raise UserError(f"expected a pair NAME_TRAIN.ts and NAME_TEST.ts in the folder {str(path)!r}")
    names, values, labels, splits = [], [], [], []
    for file in files:
        found, classes = read_ts(file)
        part = "train" if file.stem.endswith("_TRAIN") else "test" if file.stem.endswith("_TEST") else ""
        names += [f"{file.stem}/{row}" for row in range(len(found))]
        values += found
        labels += classes
        splits += [part] * len(found)
    return Labelled(names, values, [*labels], splits, _numbered(values))


def read_ts(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Series `(C, T)` and labels of a `.ts` file: a line a sample, channels parted by `:`, the label last.

    Raises:
        UserError: a line cannot be read.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    begins = [number for number, line in enumerate(lines) if line.strip().lower() == "@data"]
    if not begins:
        raise UserError(f"expected a line @data in {str(path)!r}, but it has none")
    values, labels = [], []
    for number, line in enumerate(lines[begins[0] + 1 :], start=begins[0] + 2):
        if not line.strip() or line.startswith("#"):
            continue
        *channels, label = line.strip().split(":")
        try:
            rows = [np.array(channel.replace("?", "nan").split(","), np.float32) for channel in channels]
        except ValueError as error:
            raise UserError(f"line {number} of {str(path)!r} must hold numbers, but: {error}") from error
        if not rows:
            raise UserError(f"line {number} of {str(path)!r} must end in ':' and a label, but has neither")
        values.append(_padded(rows))
        labels.append(label)
    return values, labels


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Channels of one sample `(C, T)`; those that end early are missing after their end."""
    values = np.full((len(rows), max(map(len, rows))), np.nan, np.float32)
    for channel, row in zip(values, rows, strict=True):
        channel[: len(row)] = row
    return values


def _npz(path: Path) -> Labelled:
    """Arrays `train_x` `(B, C, T)` or `(B, T)`, `train_y`, and perhaps the same of `val` and `test`."""
    if not path.is_file():
        raise UserError(f"expected labelled series in {str(path)!r}, but it does not exist")
    names, values, labels, splits = [], [], [], []
    with np.load(path, allow_pickle=False) as file:
        if "train_x" not in file or "train_y" not in file:
            raise UserError(
                f"an .npz of series needs train_x and train_y, but {str(path)!r} has {', '.join(file)}"
            )
        for split in SPLITS:
            if f"{split}_x" not in file:
                continue
            x = file[f"{split}_x"].astype(np.float32)
            if x.ndim not in (2, 3):
                raise UserError(f"{split}_x must be (samples, channels, steps), but its shape is {x.shape}")
            names += [f"{split}/{row}" for row in range(len(x))]
            values += list(x if x.ndim == 3 else x[:, None])
            labels += [str(label) for label in file[f"{split}_y"].tolist()]
            splits += [split] * len(x)
    if len(labels) != len(values):
        raise UserError(f"{str(path)!r} has {len(values)} series, but {len(labels)} labels")
    return Labelled(names, values, [*labels], [*splits], _numbered(values))


def _long_table(path: Path) -> Labelled:
    """Columns `unique_id`, `ds`, `label`, perhaps `split`; every other one is a channel."""
    frame = read_frame(str(path))
    known = ("unique_id", "ds", "label")
    missing = [column for column in known if column not in frame]
    if missing:
        columns = ", ".join(map(str, frame))
        raise UserError(f"expected a column {missing[0]!r} in {str(path)!r}, but its columns are {columns}")
    channels = tuple(str(column) for column in frame if column not in (*known, "split"))
    frame = frame.assign(**{channel: numbers(frame[channel], str(path)) for channel in channels})
    names, values, labels, splits = [], [], [], []
    for name, rows in frame.groupby("unique_id", sort=False):
        if rows["label"].nunique(dropna=False) > 1:
            raise UserError(f"the series {str(name)!r} of {str(path)!r} must have one label, but has several")
        names.append(str(name))
        values.append(rows.sort_values("ds")[list(channels)].to_numpy(np.float32).T)
        label = rows["label"].iloc[0]
        labels.append(None if pd.isna(label) else str(label))
        splits.append(str(rows["split"].iloc[0]) if "split" in rows else "")
    wrong = set(splits) - {*SPLITS, ""}
    if wrong:
        raise UserError(f"a split must be train, val or test, but is {min(wrong)!r} in {str(path)!r}")
    return Labelled(names, values, labels, splits, channels)


def _numbered(values: Sequence[np.ndarray]) -> tuple[str, ...]:
    return tuple(str(channel) for channel in range(len(values[0]) if values else 0))
