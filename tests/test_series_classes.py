"""Labelled series: every way they lie on disk, any length, any channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from triptych.tasks.series.classes import LabelledSeries
from triptych.tasks.series.labelled import assign, read_labelled, read_ts
from triptych.tasks.series.views import SeriesView
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.series import SeriesWindows

RNG = np.random.default_rng(0)
C, T = 2, 11


def ts_pair(folder: Path, name: str = "Toy") -> Path:
    for part, count in (("TRAIN", 6), ("TEST", 4)):
        rows = [
            ":".join(
                [*(",".join(f"{v:g}" for v in RNG.normal(size=T - row % 3)) for _ in range(C)), "ab"[row % 2]]
            )
            for row in range(count)
        ]
        head = ["# made up", f"@problemName {name}", "@classLabel true a b", "@data"]
        (folder / f"{name}_{part}.ts").write_text("\n".join([*head, *rows]) + "\n")
    return folder


def npz(folder: Path) -> Path:
    arrays = {}
    for part, count in (("train", 20), ("test", 7)):
        arrays[f"{part}_x"] = RNG.normal(size=(count, C, T))
        arrays[f"{part}_y"] = np.arange(count) % 3
    np.savez(folder / "toy.npz", **arrays)
    return folder / "toy.npz"


def long_table(folder: Path) -> Path:
    frames = [
        pd.DataFrame(
            {
                "unique_id": f"s{index}",
                "ds": pd.date_range("2024-01-01", periods=T + index)[::-1],
                "label": "xy"[index % 2],
                "split": ("train", "train", "val", "test")[index % 4],
                "speed": np.arange(T + index),
                "load": 1.0,
            }
        )
        for index in range(8)
    ]
    pd.concat(frames).to_csv(folder / "toy.csv", index=False)
    return folder / "toy.csv"


@pytest.mark.parametrize("make", [ts_pair, npz, long_table])
def test_every_format_gives_batches_that_a_tokenizer_reads(make, tmp_path: Path) -> None:
    data = LabelledSeries(str(make(tmp_path)), val=0.3, batch_size=3)
    tokenizer = SeriesWindows(4, 2, "align", prefix=("class",))
    data.attach({"series": tokenizer})
    data.setup()
    tokenizer.build(8, data.facts()["series"])
    assert {split: len(data.samples(split)) > 0 for split in ("train", "test")} == {
        "train": True,
        "test": True,
    }
    for split in ("train", "test"):
        (view,) = data.samples(split).collate([(0, index) for index in range(2)]).values()
        tokens = tokenizer(view)
        assert len(tokens) == 2 * C and torch.isfinite(tokens.values).all()
        assert view.targets["label"].shape == (2,)


def test_rows_of_a_long_table_are_put_in_order_of_time(tmp_path: Path) -> None:
    found = read_labelled(str(long_table(tmp_path)))
    assert found.channels == ("speed", "load") and found.values[2].shape == (2, T + 2)
    assert (np.diff(found.values[2][0]) == -1).all()  # written latest first
    assert found.splits == ["train", "train", "val", "test"] * 2


def test_ts_reads_missing_values_and_names_the_bad_line(tmp_path: Path) -> None:
    file = tmp_path / "one.ts"
    file.write_text("@data\n1,?,3:4,5,6:yes\n")
    (values,), labels = read_ts(file)
    assert labels == ["yes"] and np.isnan(values[0, 1]) and values[1].tolist() == [4, 5, 6]
    file.write_text("@data\n1,2:yes\n1,oops:no\n")
    with pytest.raises(UserError, match=r"line 3 of .*one\.ts"):
        read_ts(file)


def test_scaling_sees_the_train_part_alone(tmp_path: Path) -> None:
    x = RNG.normal(3.0, 2.0, size=(30, 1, T)).astype(np.float32)
    np.savez(tmp_path / "a.npz", train_x=x, train_y=np.arange(30) % 2, test_x=x[:4], test_y=[0, 1, 0, 1])
    np.savez(tmp_path / "b.npz", train_x=x, train_y=np.arange(30) % 2, test_x=9 * x[:4], test_y=[0, 1, 0, 1])
    facts = []
    for name in "ab":
        data = LabelledSeries(str(tmp_path / f"{name}.npz"))
        data.setup()
        facts.append(data.facts()["series"])
    assert facts[0] == facts[1]


def test_parts_are_as_given_else_by_hash() -> None:
    names = [f"n{i}" for i in range(2000)]
    parts = assign(names, [""] * 2000, 0.1)
    shares = {part: parts.count(part) / 2000 for part in ("train", "val", "test")}
    assert abs(shares["test"] - 0.2) < 0.03 and abs(shares["val"] - 0.1) < 0.02
    assert assign(names, ["test"] * 2000, 0.1) == ["test"] * 2000
    assert assign(["a", "b"], ["train", "val"], 0.9) == ["train", "val"]


def test_series_are_stretched_to_the_steps_that_are_asked_for(tmp_path: Path) -> None:
    data = LabelledSeries(str(long_table(tmp_path)), steps=(T + 2, T + 4))
    data.setup()
    assert [values.shape[1] for values in data.values] == [T + 2] * 3 + [T + 3] + [T + 4] * 4
    with pytest.raises(UserError, match=r"data\.steps to be two rising numbers from 2, but got \[5, 4\]"):
        LabelledSeries(steps=(5, 4))


def test_a_model_keeps_its_classes_and_scaling(tmp_path: Path) -> None:
    data = LabelledSeries(str(npz(tmp_path)))
    data.follow({"series": {"classes": ["2", "0", "1"], "mean": [5.0, 5.0], "scale": [2.0, 2.0]}})
    data.setup()
    assert data.classes == ["2", "0", "1"] and data.facts()["series"]["mean"] == [5.0, 5.0]


def test_views_outside_training_are_bare_unless_copies_are_compared(tmp_path: Path) -> None:
    views = {"train": SeriesView(crop=(0.5, 0.5)), "two": SeriesView(copies=2, crop=(0.5, 0.5))}
    data = LabelledSeries(str(npz(tmp_path)), views)
    data.setup()
    batch = data.samples("test").collate([(0, 1), (0, 2)])
    assert batch["train"].data.shape[2] == T and batch["two"].data.shape[2] < T


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.npz", "does not exist"),
        ("none.ts", "does not exist"),
        ("none.txt", "expected labelled series in"),
    ],
)
def test_what_is_not_there_is_told_in_one_sentence(name, says, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        read_labelled(str(tmp_path / name))
