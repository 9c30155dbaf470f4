"""WebDataset shards: tar files in which `KEY.jpg`, `KEY.cls` or `KEY.json` belong together.

Shards are indexed once and read in any order, so that order and splits are those of any other data.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...tokenizers.errors import UserError
from .read import SUFFIXES, Packed
from .sources import Source, assign, split_of


def shards(path: Path) -> Source:
    """The samples of one `.tar`, or of all in a folder; `train-000.tar` and the like name the split.

    A sample's class is the content of `KEY.cls` or `KEY.cls.txt`, or `label` in `KEY.json`.

    Raises:
        UserError: a shard cannot be read, or holds no images.
    """
    files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    with ThreadPoolExecutor() as pool:
        samples = [sample for of_shard in pool.map(_index, files) for sample in of_shard]
    if not samples:
        raise UserError(
            f"no images in the shards of {str(path)!r} (looked for {', '.join(sorted(SUFFIXES))})"
        )
    names = [str(image) for image, _ in samples]
    given = [_split(image.archive) for image, _ in samples]
    return Source(
        names, [image for image, _ in samples], [label for _, label in samples], assign(names, given)
    )


def _index(shard: Path) -> list[tuple[Packed, str | None]]:
    """Every image of a shard with its class."""
    try:
        with tarfile.open(shard) as archive:
            members = [member for member in archive if member.isfile()]
            labels = dict(_labels(archive, members))
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"the shard {str(shard)!r} cannot be read: {error}") from error
    images = [member for member in members if Path(member.name).suffix.lower() in SUFFIXES]
    return [
        (Packed(shard, member.name, member.offset_data, member.size), labels.get(_key(member.name)))
        for member in images
    ]


def _labels(archive: tarfile.TarFile, members: list[tarfile.TarInfo]) -> Iterator[tuple[str, str]]:
    for member in members:
        kind = member.name[len(_key(member.name)) :]
        if kind not in (".cls", ".cls.txt", ".json"):
            continue
        file = archive.extractfile(member)
        assert file is not None
        label = _label(file.read(), kind, member.name)
        if label is not None:
            yield _key(member.name), str(label)


def _label(content: bytes, kind: str, name: str) -> object:
    """What one member says of its sample's class; None if it does not."""
    try:
        text = content.decode()
        return json.loads(text).get("label") if kind == ".json" else text.strip()
    except (ValueError, AttributeError) as error:
        expected = "a JSON object" if kind == ".json" else "the name of a class in UTF-8"
        raise UserError(
            f"expected {expected} in {name!r} of a shard, but it cannot be read: {error}"
        ) from error


def _key(name: str) -> str:
    """All of a member's name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _split(shard: Path) -> str | None:
    """Of `train-000.tar`, `imagenet-validation-000.tar` and the like."""
    return next(filter(None, map(split_of, re.split(r"[^A-Za-z]+", shard.name))), None)
