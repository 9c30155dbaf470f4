"""Data sets as published, and WebDataset shards: small generated copies of each are read rightly."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from triptych.tasks.vision.data import Images
from triptych.tokenizers.errors import UserError

from .test_vision_data import save


def images(path: Path) -> Images:
    made = Images(str(path), size=6)
    made.setup()
    return made


def named(data: Images) -> dict[str, list[str]]:
    """Class of each sample of each part, in order."""
    samples = {split: data.samples(split) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    return {split: [data.classes[label] for label in part.labels] for split, part in samples.items()}


def cifar(path: Path, rows: int, seed: int, labels: int) -> np.ndarray:
    """Records of `labels` bytes and 3 x 32 x 32 pixels; the last label byte is the class."""
    records = np.random.default_rng(seed).integers(0, 256, (rows, labels + 3072), dtype=np.uint8)
    records[:, labels - 1] = np.arange(rows) % 3
    path.write_bytes(records.tobytes())
    return records


def test_cifar_10(tmp_path: Path) -> None:
    for number in (1, 2):
        cifar(tmp_path / f"data_batch_{number}.bin", 20, number, 1)
    records = cifar(tmp_path / "test_batch.bin", 5, 0, 1)
    (tmp_path / "batches.meta.txt").write_text("airplane\nbird\ncat\n\n")
    data = Images(str(tmp_path))
    data.setup()
    assert data.facts()["image"]["size"] == [32, 32] and data.facts()["image"]["channels"] == 3
    found = named(data)
    assert found["test"] == ["airplane", "bird", "cat", "airplane", "bird"]
    assert len(found["train"]) + len(found["val"]) == 40 and found["val"]
    first = data.samples("test")[0, 0].pixels
    assert torch.equal(first[1], torch.from_numpy(records[0, 1 + 1024 : 1 + 2048].reshape(32, 32)) / 255)


def test_cifar_100_has_its_fine_labels(tmp_path: Path) -> None:
    cifar(tmp_path / "train.bin", 20, 1, 2)
    cifar(tmp_path / "test.bin", 4, 0, 2)
    (tmp_path / "fine_label_names.txt").write_text("apple\nbeaver\nclock\n")
    assert named(images(tmp_path))["test"] == ["apple", "beaver", "clock", "apple"]


def test_cifar_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(b"123")
    (tmp_path / "batches.meta.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"records of 3073 bytes, but has 3"):
        images(tmp_path)


def test_tiny_imagenet_is_tested_on_its_validation_part(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "wnids.txt").write_text("n01\nn02\n")
    for name in ("n01", "n02"):
        for number in range(12):
            save(tmp_path / "train" / name / "images" / f"{name}_{number}.JPEG")
    for number in range(3):
        save(tmp_path / "val" / "images" / f"val_{number}.JPEG")
    save(tmp_path / "test" / "images" / "test_0.JPEG")
    rows = [f"val_{number}.JPEG\tn0{1 + number % 2}\t0\t0\t62\t62" for number in range(3)]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(rows))
    data = images(tmp_path)
    assert named(data)["test"] == ["n01", "n02", "n01"] and data.classes == ["n01", "n02"]
    assert len(data.names("train")) + len(data.names("val")) == 24


def test_pets_are_named_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for part, numbers in (("trainval", range(10)), ("test", range(10, 13))):
        stems = [f"{breed}_{n}" for n in numbers for breed in ("american_bulldog", "Bengal")]
        lines = ["#Image CLASS-ID SPECIES BREED ID", *(f"{stem} 1 1 1" for stem in stems)]
        (tmp_path / "annotations" / f"{part}.txt").write_text("\n".join(lines))
        for stem in stems:
            save(tmp_path / "images" / f"{stem}.jpg")
    data = images(tmp_path)
    assert data.classes == ["Bengal", "american_bulldog"]
    assert named(data)["test"] == ["american_bulldog", "Bengal"] * 3


def test_flowers_have_three_parts(tmp_path: Path) -> None:
    for number in range(1, 9):
        save(tmp_path / "jpg" / f"image_{number:05d}.jpg")
    savemat(tmp_path / "imagelabels.mat", {"labels": [[1, 2, 3, 1, 2, 3, 1, 2]]})
    savemat(tmp_path / "setid.mat", {"trnid": [[1, 2, 3]], "valid": [[5, 4]], "tstid": [[8, 7, 6]]})
    assert named(images(tmp_path)) == {"train": ["1", "2", "3"], "val": ["2", "1"], "test": ["2", "1", "3"]}


def test_imagenet_with_real_labels(tmp_path: Path) -> None:
    for name in ("n01", "n02", "n03"):
        for number in range(12):
            save(tmp_path / "train" / name / f"{name}_{number}.JPEG")
    for number, name in enumerate(("n02", "n01", "n03"), start=1):
        save(tmp_path / "val" / name / f"ILSVRC2012_val_{number:08d}.JPEG")
    (tmp_path / "real.json").write_text(json.dumps([[1, 2], [], [0]]))
    data = images(tmp_path)
    accepted = dict(zip(data.source.names, data.source.accepted, strict=True))
    assert named(data)["test"] == ["n01", "n02", "n03"]
    assert accepted["val/n02/ILSVRC2012_val_00000001.JPEG"] == {"n02", "n03"}
    assert accepted["val/n01/ILSVRC2012_val_00000002.JPEG"] == set()
    assert accepted["val/n03/ILSVRC2012_val_00000003.JPEG"] == {"n01"}
    save(tmp_path / "val" / "n03" / "stranger.JPEG")
    with pytest.raises(
        UserError, match=r"numbered 1 to 3 in their names, but one is called 'stranger\.JPEG'"
    ):
        images(tmp_path)
    (tmp_path / "real.json").write_text(json.dumps([[1, 3], [], [0]]))
    with pytest.raises(UserError, match=r"every number of real\.json, but it goes to 3 and there are 3"):
        images(tmp_path)
    save(tmp_path / "val" / "loose_1.JPEG")
    with pytest.raises(UserError, match=r"class folders in .*val', but 'loose_1\.JPEG' lies in none"):
        images(tmp_path)


def encoded(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 6), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_shards_are_read_in_any_order(tmp_path: Path) -> None:
    for number in (0, 1):
        members = {}
        for i in range(10):
            key = f"a/{number}{i}.left"  # a key ends at the first dot
            members[f"{key}.png"] = encoded(20 * i + number)
            members |= {f"a/{number}{i}.cls": str(i % 2).encode()} if i % 3 else {}
        shard(tmp_path / f"train-{number:03d}.tar", members)
    shard(tmp_path / "test-000.tar", {"x.png": encoded(7), "x.json": b'{"label": "1"}', "y.jpg": b"broken"})
    data = Images(str(tmp_path), unreadable=0.2)
    data.setup()
    assert data.classes == ["0", "1"] and named(data)["test"] == ["1"]
    names = data.names("train")
    at = names.index("train-001.tar/a/17.left.png")
    assert data.samples("train")[0, at].pixels[0, 0, 0].item() == pytest.approx(141 / 255)
    assert len(names) + len(data.names("val")) == 20


def test_one_shard_alone_is_split_by_hash(tmp_path: Path) -> None:
    shard(tmp_path / "all.tar", {f"{i}.png": encoded(i) for i in range(40)})
    data = images(tmp_path / "all.tar")
    sizes = [len(data.names(split)) for split in ("train", "val", "test")]
    assert sum(sizes) == 40 and all(sizes)


@pytest.mark.parametrize(("content", "message"), [(b"no tar", "cannot be read"), (None, "no images in")])
def test_a_shard_that_is_none_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is None:
        shard(tmp_path / "a.tar", {"a.txt": b"text"})
    else:
        (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match=message):
        images(tmp_path / "a.tar")


def test_arrays_of_many_channels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 7, 6, 5), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", train_x=values, test_x=values[:2])
    data = Images(str(tmp_path / "many.npz"))
    data.setup()
    assert data.facts()["image"]["channels"] == 5 and data.facts()["image"]["size"] == [7, 6]
    pixels = data.samples("test")[0, 1].pixels
    torch.testing.assert_close(pixels, torch.from_numpy(values[1]).permute(2, 0, 1) / 255)
