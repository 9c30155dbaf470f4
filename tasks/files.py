"""The files of a folder that are of a kind, and what parts the columns of a table."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files at any depth whose suffix, in lower case, is one of `suffixes`; sorted.

    Linked folders are looked into, but for those that lead back up; hidden files and folders are not.
    """
    found: list[Path] = []
    for top, folders, names in os.walk(folder, followlinks=True):
        here = Path(top)
        folders[:] = [name for name in folders if name[0] != "." and not _leads_back(here / name)]
        files = (here / name for name in names if name[0] != ".")
        found += [file for file in files if file.suffix.lower() in suffixes]
    return sorted(found)


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def separator_of(file: Path) -> str:
    """What stands between the columns of a CSV: a comma, or what spreadsheets of other countries write."""
    import pandas as pd

    (head, *more) = pd.read_csv(file, nrows=0, encoding="utf-8-sig").columns
    return "," if more else max(",;\t", key=str(head).count)
