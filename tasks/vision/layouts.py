"""Data sets as their authors publish them, told by a file that lies in each: CIFAR, Tiny-ImageNet, Pets ...

Where an author names no validation part, a tenth of the training part becomes it; where labels of the test
part are kept from the public, the published validation part is the one to test on, as papers do.

Shapes: m images, C channels, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from ...tokenizers.errors import UserError
from ..files import files_below
from .read import SUFFIXES
from .sources import Source, assign

#: Bytes of a CIFAR picture: 3 channels of 32 x 32.
CIFAR_PIXELS = 3 * 32 * 32


def cifar10(path: Path) -> Source:
    """CIFAR-10's binary version (Krizhevsky 2009): `data_batch_1.bin` to `5`, `test_batch.bin`."""
    names = _lines(path / "batches.meta.txt")
    return _cifar(sorted(path.glob("data_batch_*.bin")), path / "test_batch.bin", names, labels=1)


def cifar100(path: Path) -> Source:
    """CIFAR-100's binary version with its 100 fine labels: `train.bin`, `test.bin`."""
    return _cifar([path / "train.bin"], path / "test.bin", _lines(path / "fine_label_names.txt"), labels=2)


def _cifar(train: Iterable[Path], test: Path, classes: list[str], labels: int) -> Source:
    """Records of `labels` bytes, the last of them the class, and then the pixels, channels first."""
    names, images, given, found = [], [], [], []
    for split, file in [*(("train", file) for file in train), ("test", test)]:
        content = np.fromfile(file, dtype=np.uint8)
        if not len(content) or len(content) % (labels + CIFAR_PIXELS):
            raise UserError(
                f"{str(file)!r} must hold records of {labels + CIFAR_PIXELS} bytes, but has {len(content)}"
            )
        records = content.reshape(-1, labels + CIFAR_PIXELS)
        pixels = torch.from_numpy(records[:, labels:].reshape(-1, 3, 32, 32))
        names += [f"{file.stem}/{i}" for i in range(len(records))]
        images += list(pixels)
        found += [classes[int(label)] for label in records[:, labels - 1]]
        given += [split] * len(records)
    return Source(names, images, found, assign(names, given))


def tiny_imagenet(path: Path) -> Source:
    """Tiny-ImageNet-200: `train/WNID/images`, and `val` with its annotations, which is tested on."""
    classes = set(_lines(path / "wnids.txt"))
    train = files_below(path / "train", SUFFIXES)
    labels: list[str | None] = [file.relative_to(path / "train").parts[0] for file in train]
    rows = [line.split("\t")[:2] for line in _lines(path / "val" / "val_annotations.txt")]
    test = [path / "val" / "images" / name for name, _ in rows]
    labels += [label for _, label in rows]
    strangers = {label for label in labels if label is not None} - classes
    if strangers:
        raise UserError(f"classes in {str(path)!r} must be in wnids.txt, but {min(strangers)!r} is not")
    return _source(path, [("train", train), ("test", test)], labels)


def pets(path: Path) -> Source:
    """Oxford-IIIT Pets, 37 breeds: `images`, `annotations/trainval.txt` and `test.txt`."""
    parts, labels = [], []
    for split, listing in (("train", "trainval.txt"), ("test", "test.txt")):
        stems = [
            line.split()[0] for line in _lines(path / "annotations" / listing) if not line.startswith("#")
        ]
        parts.append((split, [path / "images" / f"{stem}.jpg" for stem in stems]))
        labels += [stem.rpartition("_")[0] for stem in stems]
    return _source(path, parts, labels)


def flowers(path: Path) -> Source:
    """Oxford Flowers-102: `jpg`, `imagelabels.mat`, and the three parts of `setid.mat`."""
    from scipy.io import loadmat

    label = loadmat(path / "imagelabels.mat")["labels"].ravel()
    numbers = loadmat(path / "setid.mat")
    parts, labels = [], []
    for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        ids = [int(number) for number in numbers[key].ravel()]
        parts.append((split, [path / "jpg" / f"image_{number:05d}.jpg" for number in ids]))
        labels += [str(label[number - 1]) for number in ids]
    return _source(path, parts, labels)


def imagenet_real(path: Path) -> Source:
    """ImageNet's class folders `train` and `val` with `real.json` (Beyer et al. 2020), which is tested on.

    Of each validation picture, by its number in the name, `real.json` lists the classes that are right;
    classes are numbered by the alphabet of the training folders.

    Raises:
        UserError: a picture of `val` lies in no class folder or has no number, or a class has no folder.
    """
    train, test = files_below(path / "train", SUFFIXES), files_below(path / "val", SUFFIXES)
    if loose := [file for file in test if file.parent == path / "val"]:
        raise UserError(
            f"expected class folders in {str(path / 'val')!r}, but {loose[0].name!r} lies in none of them"
        )
    labels = [file.parent.name for file in [*train, *test]]
    classes = sorted(set(labels))
    right = json.loads((path / "real.json").read_text(encoding="utf-8"))
    if (most := max((index for several in right for index in several), default=0)) >= len(classes):
        raise UserError(
            f"expected a class folder in {str(path)!r} for every number of real.json, but it goes to {most} "
            f"and there are {len(classes)}"
        )
    accepted: list[frozenset[str] | None] = [None] * len(train)
    for file in test:
        number = file.stem.rpartition("_")[2]
        if not number.isdecimal() or not 1 <= int(number) <= len(right):
            raise UserError(
                f"pictures beside real.json must be numbered 1 to {len(right)} in their names, "
                f"but one is called {file.name!r}"
            )
        accepted.append(frozenset(classes[index] for index in right[int(number) - 1]))
    return _source(path, [("train", train), ("test", test)], labels, accepted)


#: A file that only this layout has -> its reader.
LAYOUTS: dict[str, Callable[[Path], Source]] = {
    "test_batch.bin": cifar10,
    "fine_label_names.txt": cifar100,
    "wnids.txt": tiny_imagenet,
    "annotations/trainval.txt": pets,
    "setid.mat": flowers,
    "real.json": imagenet_real,
}


def published(path: Path) -> Source | None:
    """The data set in a folder, if it lies there as its authors publish it."""
    return next((read(path) for marker, read in LAYOUTS.items() if (path / marker).is_file()), None)


def _source(
    path: Path,
    parts: list[tuple[str, list[Path]]],
    labels: Sequence[str | None],
    accepted: list[frozenset[str] | None] | None = None,
) -> Source:
    files = [file for _, of_part in parts for file in of_part]
    given = [split for split, of_part in parts for _ in of_part]
    names = [file.relative_to(path).as_posix() for file in files]
    return Source(names, files, labels, assign(names, given), accepted)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"the data set in {str(path.parent)!r} must have {path.name}, but it is missing")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
