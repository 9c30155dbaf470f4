"""Images as people keep them: the bundled digits, an `.npz` file, a table of paths, or a folder.

Shapes: m images, C channels, H x W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from ..data import SPLITS
from ..files import files_below
from .read import SUFFIXES, File

#: What else people call them.
ALIASES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True)
class Source:
    """All images of a data set, unread or in memory, with what is known of each.

    Attributes:
        names: what each is called: a path relative to the data, or a number.
        images: `(C, H, W)` tensors, fractions between 0 and 1 or whole numbers to 255, or files.
        labels: name of each one's class, or None.
        splits: which part each belongs to.
        accepted: names of all classes that are right for each, where several may be (ReaL labels), or None.
    """

    names: list[str]
    images: Sequence[Tensor | File]
    labels: Sequence[str | None]
    splits: list[str]
    accepted: Sequence[frozenset[str] | None] | None = None

    @property
    def classes(self) -> list[str]:
        """Names of all classes: numbers by size, anything else by alphabet."""
        found = {label for label in self.labels if label is not None}
        return sorted(
            found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
        )

    def without(self, indices: set[int]) -> Source:
        """The same without some of its images."""
        keep = [i for i in range(len(self.names)) if i not in indices]

        def kept(column: Sequence[Any]) -> list[Any]:
            return [column[i] for i in keep]

        accepted = None if self.accepted is None else kept(self.accepted)
        return Source(kept(self.names), kept(self.images), kept(self.labels), kept(self.splits), accepted)


def digits(fold: int) -> Source:
    """scikit-learn's 1,797 digits of 8 x 8 pixels; `fold` 0 to 4 is the stratified fifth to test on.

    A stratified tenth of the rest is the validation part. The folds never change.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold

    if not 0 <= fold < 5:
        raise UserError(f"the fold must lie between 0 and 4, but is {fold}")
    values, label = load_digits(return_X_y=True)
    rest, test = list(StratifiedKFold(5, shuffle=True, random_state=0).split(values, label))[fold]
    _, val = next(StratifiedKFold(10, shuffle=True, random_state=0).split(values[rest], label[rest]))
    splits = ["train"] * len(label)
    for part, indices in (("val", rest[val]), ("test", test)):
        for index in indices.tolist():
            splits[index] = part
    images = torch.from_numpy(values).float().view(-1, 1, 8, 8) / 16
    return Source(
        [str(i) for i in range(len(label))], list(images), [str(name) for name in label.tolist()], splits
    )


def folder(path: Path) -> Source:
    """A folder of class folders, or of images; split by folders `train`, `val`, `test`, else by hash.

    Hidden files and folders are left out.
    """
    files = files_below(path, SUFFIXES)
    parents = {file: file.relative_to(path).parts[:-1] for file in files}
    if not files:
        raise UserError(f"no images in {str(path)!r} (looked for {', '.join(sorted(SUFFIXES))})")
    tops = {file: split_of(parents[file][0]) if parents[file] else None for file in files}
    named = {parents[file][0] for file in files if parents[file]}
    in_splits = "train" in tops.values() or (bool(named) and all(map(split_of, named)))
    if in_splits:
        files = [file for file in files if tops[file]]
    depth = 1 if in_splits else 0
    labels = [parents[file][depth] if len(parents[file]) > depth else None for file in files]
    names = [file.relative_to(path).as_posix() for file in files]
    given = [tops[file] if in_splits else None for file in files]
    return Source(names, files, labels, assign(names, given))


def split_of(name: str) -> str | None:
    """The part that a folder or a split is called by, whatever its case; None if it is none."""
    low = name.lower()
    return low if low in SPLITS else ALIASES.get(low)


def table(path: Path) -> Source:
    """A CSV or Parquet table with the column `path`, relative to the table, and maybe `label` and `split`."""
    import pandas as pd

    if path.suffix.lower() == ".csv":
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])  # NA may be a class
    else:
        frame = pd.read_parquet(path)
    if "path" not in frame:
        raise UserError(
            f"a table of images needs a column 'path', but {str(path)!r} has {', '.join(frame.columns)}"
        )
    if frame.empty:
        raise UserError(f"no rows in the table {str(path)!r}")
    names = frame["path"].astype(str).tolist()
    empty = pd.Series([None] * len(frame), dtype=object)
    columns = [
        frame[key].astype(object).where(frame[key].notna(), None) if key in frame else empty
        for key in ("label", "split")
    ]
    labels, given = ([None if value is None else str(value) for value in column] for column in columns)
    for row, split in enumerate(given):
        if split is not None and split_of(split) is None:
            raise UserError(
                f"a split must be train, val or test, but is {split!r} in row {row + 1} of {str(path)!r}"
            )
        given[row] = None if split is None else split_of(split)
    return Source(names, [path.parent / name for name in names], labels, assign(names, given))


def arrays(path: Path) -> Source:
    """An `.npz` with `train_x` `(m, H, W)` or `(m, H, W, C)`, and maybe `train_y`, `test_x`, `val_x` ...

    Whole numbers are taken as 8 or 16 bits a pixel, fractions as they are: between 0 and 1.
    """
    with np.load(path, allow_pickle=False) as file:
        if "train_x" not in file:
            raise UserError(
                f"an .npz of images needs the array train_x, but {str(path)!r} has {', '.join(file)}"
            )
        names, images, labels, given = [], [], [], []
        for split in SPLITS:
            if f"{split}_x" not in file:
                continue
            values = _between_0_and_1(file[f"{split}_x"], f"{split}_x")
            classes = file[f"{split}_y"].tolist() if f"{split}_y" in file else [None] * len(values)
            if len(classes) != len(values):
                raise UserError(
                    f"{split}_x has {len(values)} images, but {split}_y has {len(classes)} labels"
                )
            names += [f"{split}/{i}" for i in range(len(values))]
            images += list(values)
            labels += [None if name is None else str(name) for name in classes]
            given += [split] * len(values)
    return Source(names, images, labels, assign(names, given))


def _between_0_and_1(values: np.ndarray, name: str) -> Tensor:
    if values.ndim not in (3, 4) or (values.ndim == 4 and values.shape[3] > min(values.shape[1:3])):
        raise UserError(
            f"{name} must be (images, height, width) or with the channels last, but is {values.shape}"
        )
    if values.dtype.kind in "iub":
        white = (
            1
            if values.dtype.kind == "b"
            else 255
            if values.dtype.itemsize == 1 or values.max() < 256
            else 65535
        )
        values = values / np.float32(white)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise UserError(
            f"fractions in {name} must lie between 0 and 1, but span {values.min():g} to {values.max():g}"
        )
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()


def assign(names: Sequence[str], given: Sequence[str | None]) -> list[str]:
    """The part each image belongs to: as given, else by a hash of its name, which never changes.

    Where nothing but `train` is given: 80 % train, 10 % val, 10 % test. Where `val` is the only other part,
    it is the one to test on, as papers do with labels that are kept from the public. Where other parts are
    given but none is `val`, a tenth of train becomes it.
    """
    shares = [
        int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()) / 2**32 for name in names
    ]
    parts = [split or "train" for split in given]
    if set(parts) == {"train"}:
        return ["test" if share < 0.1 else "val" if share < 0.2 else "train" for share in shares]
    if set(parts) == {"train", "val"}:
        parts = ["test" if part == "val" else part for part in parts]
    carve = "val" not in parts
    return [
        "val" if carve and part == "train" and u < 0.1 else part
        for part, u in zip(parts, shares, strict=True)
    ]
