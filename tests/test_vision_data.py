"""Images on disk, as they lie: found, split, read rightly, and refused in one sentence."""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from triptych.tasks.data import PLAIN
from triptych.tasks.files import files_below
from triptych.tasks.vision.data import Images
from triptych.tasks.vision.pixels import Pixels
from triptych.tasks.vision.read import SUFFIXES, read_image
from triptych.tasks.vision.shards import _split
from triptych.tasks.vision.sources import assign, table
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches


def images(path: Path | str, **settings: object) -> Images:
    made = Images(str(path), **{"size": 6, "batch_size": 4, **settings})  # type: ignore[arg-type]
    made.setup()
    return made


def save(path: Path, value: int = 128, size: tuple[int, int] = (5, 7), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(path)


def class_folders(root: Path, per_class: int = 20) -> Path:
    for number, name in enumerate(("cat", "dog")):
        for i in range(per_class):
            save(root / name / f"{i}.png", 10 * i + number)
    return root


# Where they come from.


def test_digits_are_cut_into_five_stratified_folds() -> None:
    seen: list[str] = []
    for fold in range(5):
        data = images("digits", fold=fold, size=None)
        assert data.facts()["image"] == {
            "channels": 1,
            "size": [8, 8],
            "classes": [str(i) for i in range(10)],
            "pixels": asdict(Pixels()),
        }
        parts = [set(data.names(split)) for split in ("train", "val", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 1797
        labels = torch.tensor(data.samples("test").labels)
        assert labels.bincount().min() >= 34 and labels.bincount().max() <= 38
        seen += parts[2]
    assert len(seen) == len(set(seen)) == 1797


def test_digits_keep_their_pixels() -> None:
    from sklearn.datasets import load_digits

    data = images("digits", size=None, pixels=Pixels(0.0, 1.0))
    (batch, *_) = data.plain("test")
    first = load_digits().images[int(data.names("test")[0])] / 16
    torch.testing.assert_close(batch[PLAIN].data[0, 0], torch.tensor(first, dtype=torch.float32))


def test_class_folders_are_split_by_a_hash_of_each_name(tmp_path: Path) -> None:
    before = images(class_folders(tmp_path))
    assert before.facts()["image"]["classes"] == ["cat", "dog"]
    parts = {split: set(before.names(split)) for split in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 40 and all(parts.values())
    for i in range(20, 30):
        save(tmp_path / "cat" / f"{i}.png")
    after = images(tmp_path)
    for split, names in parts.items():
        assert names <= set(after.names(split))  # nothing moves when images are added
    labels = dict(zip(before.names("train"), before.samples("train").labels, strict=True))
    assert all(label == (0 if name.startswith("cat/") else 1) for name, label in labels.items())


def test_split_folders_are_kept(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        class_folders(tmp_path / split, per_class=3)
    data = images(tmp_path)
    for split in ("train", "val", "test"):
        assert {name.split("/")[0] for name in data.names(split)} == {split}
        assert sorted(data.samples(split).labels) == [0, 0, 0, 1, 1, 1]


def test_without_a_val_folder_a_tenth_of_train_becomes_it() -> None:
    names = [f"train/{i}" for i in range(500)] + ["test/1"]
    parts = assign(names, ["train"] * 500 + ["test"])
    assert parts[-1] == "test" and set(parts[:-1]) == {"train", "val"}
    assert 25 < parts.count("val") < 80


def test_where_val_is_the_only_other_part_it_is_tested_on() -> None:
    parts = assign([f"{i}" for i in range(550)], ["train"] * 500 + ["val"] * 50)
    assert parts[-50:] == ["test"] * 50 and set(parts[:500]) == {"train", "val"}
    assert set(assign([f"{i}" for i in range(500)], ["train"] * 500)) == {"train", "val", "test"}


def test_parts_by_other_names_and_hidden_folders(tmp_path: Path) -> None:
    for split in ("Training", "valid", "test"):
        class_folders(tmp_path / split, per_class=3)
        class_folders(tmp_path / split / ".ipynb_checkpoints", per_class=3)
    data = images(tmp_path)
    assert list(data.classes) == ["cat", "dog"]
    for split, folder in (("train", "Training"), ("val", "valid"), ("test", "test")):
        assert {name.split("/")[0] for name in data.names(split)} == {folder}
        assert len(data.names(split)) == 6


def test_linked_class_folders_are_read_and_links_that_lead_back_are_not(tmp_path: Path) -> None:
    class_folders(tmp_path / "all", per_class=5)
    (tmp_path / "some" / "own").mkdir(parents=True)
    (tmp_path / "some" / "cat").symlink_to(tmp_path / "all" / "cat")
    (tmp_path / "some" / "own" / "back").symlink_to(tmp_path / "some")
    found = files_below(tmp_path / "some", SUFFIXES)
    assert [file.parent for file in found] == [tmp_path / "some" / "cat"] * 5


def test_a_class_may_be_called_na(tmp_path: Path) -> None:
    class_folders(tmp_path, per_class=2)
    rows = [
        f"{file.relative_to(tmp_path)},{'NA' if 'cat' in str(file) else ''}" for file in tmp_path.rglob("*.*")
    ]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows))
    assert sorted(map(str, table(tmp_path / "table.csv").labels)) == ["NA", "NA", "None", "None"]


@pytest.mark.parametrize(
    ("name", "part"),
    [("train-0.tar", "train"), ("imagenet-validation-000.tar", "val"), ("dev_3.tar", "val"), ("9.tar", None)],
)
def test_the_part_of_a_shard_is_in_its_name(name: str, part: str | None) -> None:
    assert _split(Path(name)) == part


def test_a_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    for i in range(8):
        save(tmp_path / f"{i}.jpg")
    data = images(tmp_path)
    assert data.facts()["image"]["classes"] == []
    view = data.samples("train").collate([data.samples("train")[0, 0]])["train"]
    assert view.targets == {}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_paths(tmp_path: Path, kind: str) -> None:
    import pandas as pd

    for i in range(6):
        save(tmp_path / "pictures" / f"{i}.png")
    frame = pd.DataFrame(
        {
            "path": [f"pictures/{i}.png" for i in range(6)],
            "label": ["7", "10", None, "7", "10", "7"],
            "split": ["train", "train", "train", "val", "test", "test"],
        }
    )
    table = tmp_path / f"table.{kind}"
    frame.to_csv(table, index=False) if kind == "csv" else frame.to_parquet(table)
    data = images(table)
    assert data.facts()["image"]["classes"] == ["7", "10"]  # numbers by size
    assert data.samples("train").labels == [0, 1, -1]
    assert data.names("test") == ["pictures/4.png", "pictures/5.png"]


@pytest.mark.parametrize(
    ("dtype", "white", "shape"), [("uint8", 255, ()), ("uint16", 65535, ()), ("float32", 1.0, (3,))]
)
def test_arrays(tmp_path: Path, dtype: str, white: float, shape: tuple[int, ...]) -> None:
    values = np.zeros((30, 5, 7, *shape), dtype)
    values[:, 2, 4] = white
    np.savez(
        tmp_path / "a.npz", train_x=values, train_y=np.arange(30) % 3, test_x=values[:4], test_y=[0, 1, 2, 0]
    )
    data = images(tmp_path / "a.npz", size=None, pixels=Pixels(0.0, 1.0))
    assert data.facts()["image"] == {
        "channels": 3 if shape else 1,
        "size": [5, 7],
        "classes": ["0", "1", "2"],
        "pixels": asdict(Pixels(0.0, 1.0)),
    }
    (batch,) = data.plain("test")
    assert batch[PLAIN].data.shape == (4, 3 if shape else 1, 5, 7)
    assert batch[PLAIN].data.sum((2, 3)).eq(1).all() and batch[PLAIN].data[:, :, 2, 4].eq(1).all()
    assert len(data.names("train")) + len(data.names("val")) == 30


# What is wrong with them.


def test_unreadable_files_are_set_aside_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class_folders(tmp_path)
    (tmp_path / "cat" / "bad.png").write_bytes(b"no image")
    whole = (tmp_path / "cat" / "3.png").read_bytes()
    (tmp_path / "dog" / "short.png").write_bytes(whole[: len(whole) - 30])
    save(tmp_path / "whole.jpg")
    (tmp_path / "dog" / "short.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-100])
    (tmp_path / "whole.jpg").unlink()
    (tmp_path / "dog" / "empty.png").touch()
    with caplog.at_level(logging.WARNING, "triptych"):
        data = images(tmp_path)
    assert "set aside 4 of 44 images" in caplog.text
    assert all(
        name in caplog.text for name in ("cat/bad.png", "dog/short.png", "dog/short.jpg", "dog/empty.png")
    )
    assert sum(len(data.names(split)) for split in ("train", "val", "test")) == 40


def test_too_many_unreadable_files_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, per_class=4)
    (tmp_path / "cat" / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of the 9 images .* more than the 10% allowed .* cat/bad.png"):
        images(tmp_path)


def test_a_file_that_breaks_later_is_stood_in_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = images(class_folders(tmp_path)).samples("train")
    assert isinstance(samples.images[0], Path)
    samples.images[0].unlink()
    with caplog.at_level(logging.WARNING, "triptych"):
        picture, again = samples[0, 0], samples[1, 0]
    assert torch.equal(picture.pixels, samples[0, 1].pixels) and picture.label == samples.labels[1]
    assert torch.equal(picture.pixels, again.pixels)
    assert caplog.text.count("stands in") == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", "no folder or file of images at .*nowhere"),
        (lambda root: root, "no images in"),
        (
            lambda root: _write(root / "table.csv", "file,label\na.png,1\n"),
            "needs a column 'path', but .* has file, label",
        ),
        (lambda root: _write(root / "table.csv", "path\n"), "no rows"),
        (
            lambda root: _write(root / "table.csv", ""),
            "expected images at .*table.csv', but it cannot be read: No columns",
        ),
        (
            lambda root: _write(root / "broken.npz", "PK"),
            "expected images at .*broken.npz', but it cannot be read: ",
        ),
        (
            lambda root: _write(root / "table.csv", "path,split\na.png,later\n"),
            "train, val or test, but is 'later' in row 1",
        ),
        (lambda root: _write(root / "notes.txt", "hello"), "must be a folder, .* but path is .*notes.txt"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        images(make(tmp_path))


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    for arrays, message in (
        ({"x": np.zeros(3)}, "needs the array train_x, but .* has x"),
        ({"train_x": np.zeros((4, 5))}, "must be .images, height, width.*but is .4, 5."),
        ({"train_x": np.full((4, 5, 5), 16.0)}, "between 0 and 1, but span 16 to 16"),
        (
            {"train_x": np.zeros((4, 5, 5)), "train_y": np.zeros(3)},
            "train_x has 4 images, but train_y has 3 labels",
        ),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(UserError, match=message):
            images(tmp_path / "a.npz")


def test_pictures_of_several_sizes_need_one_given(tmp_path: Path) -> None:
    class_folders(tmp_path)
    assert images(tmp_path, size=None).facts()["image"]["size"] == [7, 5]
    save(tmp_path / "cat" / "wide.png", size=(9, 7))
    with pytest.raises(UserError, match=r"several sizes \(7x5 and 7x9 pixels\) .* such as --data.size 64"):
        images(tmp_path, size=None)


def test_many_tokens_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = Images(str(class_folders(tmp_path)), size=80)
    data.attach({"image": ImagePatches(2)})
    with caplog.at_level(logging.WARNING, "triptych"):
        data.setup()
    assert "80x80 pixels give 1600 tokens each" in caplog.text


def test_data_for_a_finished_model_are_read_as_it_reads_them(tmp_path: Path) -> None:
    """A class that is missing must not move the others, and a new one comes last."""
    for name in ("ant", "dog"):
        save(tmp_path / "test" / name / "1.png", size=(9, 9))
    data = Images(str(tmp_path))
    own = {"channels": 1, "size": [6, 4], "pixels": asdict(Pixels(mean=[0.25], interpolation="bilinear"))}
    data.follow({"image": own | {"classes": ["bee", "cat", "dog"]}})
    data.setup()
    assert data.facts()["image"] == own | {"classes": ["bee", "cat", "dog", "ant"]}
    assert data.samples("test").labels == [3, 2]
    (batch,) = data.plain("test")
    assert batch[PLAIN].data.shape == (2, 1, 6, 4)


# How a file becomes pixels.


def test_sixteen_bits_keep_their_depth(tmp_path: Path) -> None:
    values = np.array([[0, 300], [40_000, 65_535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    expected = torch.tensor(values / 65_535, dtype=torch.float32)
    torch.testing.assert_close(read_image(tmp_path / "deep.png", 1), expected[None])
    assert read_image(tmp_path / "deep.png", 3).shape == (3, 2, 2)


def test_palette_cmyk_transparency_and_grey(tmp_path: Path) -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    red.quantize(4).save(tmp_path / "palette.png")
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (2, 2), 51).save(tmp_path / "grey.png")
    pure = torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 2, 2)
    torch.testing.assert_close(read_image(tmp_path / "palette.png", 3), pure)
    torch.testing.assert_close(read_image(tmp_path / "cmyk.jpg", 3), pure, atol=0.03, rtol=0)
    assert read_image(tmp_path / "clear.png", 3).max() == 0
    torch.testing.assert_close(read_image(tmp_path / "grey.png", 3), torch.full((3, 2, 2), 0.2))


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    image = Image.new("L", (3, 2), 0)
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    found = read_image(tmp_path / "turned.png", 1)
    assert found.shape == (1, 3, 2) and found[0, 0, 1] == 1


def test_grey_pictures_have_one_channel_unless_told(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.png", mode="L")
    assert images(tmp_path).facts()["image"]["channels"] == 1
    assert images(tmp_path, channels=3).facts()["image"]["channels"] == 3
    save(tmp_path / "colour.png")
    assert images(tmp_path).facts()["image"]["channels"] == 3


def test_training_from_weights_normalises_as_they_expect_unless_told(tmp_path: Path) -> None:
    """The size and the classes are the data's own."""
    save(tmp_path / "ant" / "1.png", size=(9, 9))
    facts = {
        "image": {"channels": 3, "size": [6, 4], "classes": ["bee"], "pixels": asdict(Pixels(0.25, 2.0))}
    }
    told, untold = Images(str(tmp_path), pixels=Pixels(0.0)), Images(str(tmp_path))
    for data in (told, untold):
        data.inherit(facts)
        data.setup()
    own = {"channels": 3, "size": [9, 9], "classes": ["ant"]}
    assert untold.facts()["image"] == own | {"pixels": asdict(Pixels(0.25, 2.0))}
    assert told.facts()["image"] == own | {"pixels": asdict(Pixels(0.0))}
