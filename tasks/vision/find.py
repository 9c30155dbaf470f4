"""Where images come from: which reader a path is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

from ...tokenizers.errors import UserError
from .layouts import published
from .shards import shards
from .sources import Source, arrays, digits, folder, table

#: The name the bundled data set goes by instead of a path.
DIGITS = "digits"

FILES: dict[str, Callable[[Path], Source]] = {
    ".npz": arrays,
    ".csv": table,
    ".parquet": table,
    ".tar": shards,
}
"""Ending of a file's name -> its reader."""


def find(path: str, fold: int) -> Source:
    """The images at `path`: `digits`, a folder of any layout, a table, arrays, or a shard.

    Args:
        path: as in the config.
        fold: which fifth of the digits is the test part.

    Raises:
        UserError: there is nothing there, or it cannot be read as images.
    """
    if path == DIGITS:
        return digits(fold)
    where = Path(path).expanduser()
    if not where.exists():
        raise UserError(f"no folder or file of images at {path!r}")
    if not where.is_dir() and where.suffix.lower() not in FILES:
        known = ", ".join(FILES)
        raise UserError(f"images must be a folder, a file ({known}), or 'digits', but path is {path!r}")
    try:
        return _read(where)
    except (ValueError, LookupError, OSError, BadZipFile) as error:  # what readers say of broken files
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"expected images at {path!r}, but it cannot be read: {told}") from error


def _read(where: Path) -> Source:
    if where.is_dir():
        return published(where) or (shards if any(where.glob("*.tar")) else folder)(where)
    return FILES[where.suffix.lower()](where)
