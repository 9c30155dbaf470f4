"""When each phone is said: a table or Praat's TextGrids, and the frames of a clip that fall on each.

Shapes: L frames of one clip.
"""

from __future__ import annotations

import math
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...tokenizers.errors import UserError
from .clock import Clock

#: Labels of silence in the alignments that aligners write.
SILENCES = frozenset({"", "sil", "sp", "spn", "pau", "<sil>", "<eps>", "_"})
COLUMNS = ("path", "start", "end", "phone")


@dataclass(frozen=True)
class Phone:
    """A phone said from `start` to `end`, in seconds of its file."""

    label: str
    start: float
    end: float


class Phones:
    """The phones of files, silence left out.

    Args:
        of_file: by absolute path, or by the last parts of the path (`it/added`, `added`), with or without its
            ending.
    """

    def __init__(self, of_file: Mapping[str, list[Phone]]) -> None:
        self.of_file = {
            key: sorted((p for p in phones if p.label.lower() not in SILENCES), key=lambda p: p.start)
            for key, phones in of_file.items()
        }

    def of(self, path: str) -> list[Phone]:
        """The phones of a file, in order; none where it has none. Of several keys the longest counts."""
        linked, where = Path(os.path.abspath(path)), Path(path).resolve()
        keys = (str(where), *_endings(linked), *_endings(where))
        return next((self.of_file[key] for key in keys if key in self.of_file), [])

    def spans(self, path: str, begin: float, clock: Clock, frames: int) -> list[tuple[str, int, int]]:
        """(label, first frame, one past the last) of each phone of a clip that holds a frame's centre.

        Args:
            path: of the clip's file.
            begin: second of the file at which the clip begins.
            clock: of its frames.
            frames: L.
        """
        centres = [begin + (clock.window / 2 + frame * clock.hop) / clock.rate for frame in range(frames)]
        found = []
        for phone in self.of(path):
            first, last = bisect_right(centres, phone.start - 1e-9), bisect_right(centres, phone.end - 1e-9)
            if last > first:
                found.append((phone.label, first, last))
        return found


def _endings(path: Path) -> Iterator[str]:
    """The last parts of an absolute path, most of them first, each time with and without the ending."""
    for first in range(1, len(path.parts)):
        for place in (path, path.with_suffix("")):
            yield "/".join(place.parts[first:])


def read_phones(path: str, tier: str = "phones") -> Phones:
    """Phones from a table (CSV: `path, start, end, phone`, seconds of the file) or a folder of TextGrids.

    Paths in a table are relative to it. A TextGrid is of the audio file of the same name, in a folder of the
    same name where there are several.

    Args:
        path: of either.
        tier: of the TextGrids.

    Raises:
        UserError: there is neither, it cannot be read, a column or the tier is missing, or a phone ends
            before it starts.
    """
    where = Path(path).expanduser()
    if where.is_dir():
        found = _read_folder(where, tier)
        if not found:
            raise UserError(
                f"expected --phones to name a table or a folder of TextGrids, but {path!r} has none"
            )
    else:
        found = _read_table(where)
    for file, phones in found.items():
        for phone in phones:
            if phone.end < phone.start:
                raise UserError(
                    f"the phone {phone.label!r} of {file} ends at {phone.end:g} s, before its start"
                )
    return Phones(found)


def _read_folder(folder: Path, tier: str) -> dict[str, list[Phone]]:
    """TextGrids by their path in the folder without its ending, and by their name where no other has it."""
    files = sorted(folder.rglob("*.TextGrid"))
    named = Counter(file.stem for file in files)
    found: dict[str, list[Phone]] = {}
    for file in files:
        phones = read_textgrid(file, tier)
        found[file.relative_to(folder).with_suffix("").as_posix()] = phones
        if named[file.stem] == 1:
            found[file.stem] = phones
    return found


def _read_table(path: Path) -> dict[str, list[Phone]]:
    import pandas as pd

    if not path.is_file():
        raise UserError(
            f"expected --phones to name a table or a folder of TextGrids, but there is no {str(path)!r}"
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")
    except UnicodeDecodeError:
        raise UserError(f"{path} must be in UTF-8, but is not; save it as CSV UTF-8") from None
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path} must be a table, but cannot be read: {error}") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise UserError(f"{path} must have the columns {', '.join(COLUMNS)}, but lacks {', '.join(missing)}")
    found: dict[str, list[Phone]] = {}
    rows = zip(*(table[column].tolist() for column in COLUMNS), strict=True)
    for number, (file, start, end, label) in enumerate(rows, start=2):  # the names of the columns are row 1
        place = str((path.absolute().parent / Path(file).expanduser()).resolve())
        where = f"in row {number} of {path}"
        phone = Phone(label, _seconds(start, f"start {where}"), _seconds(end, f"end {where}"))
        found.setdefault(place, []).append(phone)
    return found


def _seconds(text: str, name: str) -> float:
    """A number of a table. Raises UserError where it is none."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UserError(f"the {name} must be a number of seconds, but is {text!r}")
    return seconds


def read_textgrid(path: Path, tier: str) -> list[Phone]:
    """The intervals of one tier of a TextGrid in Praat's long or short format.

    Raises:
        UserError: it is none, or has no such tier.
    """
    raw = path.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")
    words = iter(
        re.findall(r'"(?:[^"]|"")*"|<exists>|[-+]?[\d.]+(?:[eE][-+]?\d+)?', re.sub(r"\[\d*\]", "", text))
    )
    tiers: list[str] = []
    try:
        for word in words:
            if word not in ('"IntervalTier"', '"TextTier"'):
                continue
            name, _, _, count = (next(words) for _ in range(4))
            points = 1 if word == '"TextTier"' else 2
            rows = [[next(words) for _ in range(points + 1)] for _ in range(int(count))]
            tiers.append(name[1:-1])
            if points == 2 and tiers[-1] == tier:
                return [Phone(label[1:-1].replace('""', '"'), float(a), float(b)) for a, b, label in rows]
    except (StopIteration, RuntimeError, ValueError):
        raise UserError(f"{path} must be a TextGrid, but cannot be read as one") from None
    raise UserError(f"{path} must have a tier of intervals called {tier!r}, but its tiers are {tiers}")
