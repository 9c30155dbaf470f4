"""`triptych manifest`: every audio file of some folders, read to its end and judged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...tokenizers.errors import UserError
from ..run import write_json
from .faults import NO_NUMBERS, cut_off, misplaced, shortened
from .manifest import MANIFESTS, read_clips

if TYPE_CHECKING:
    import pandas as pd

#: Shortest clip (seconds): one window of speech features.
SHORTEST = 0.025
#: A peak under this is silence, one above that touches full scale.
SILENT, FULL = 1e-4, 0.999
#: Share of clipped samples from which a file is told of.
CLIPPED = 0.001
#: Seconds read at a time.
BLOCK = 30


@dataclass(frozen=True)
class Audit:
    """What a file holds.

    Attributes:
        seconds: length.
        sample_rate: Hz.
        channels: 1 for mono.
        clipped: share of the samples at full scale.
    """

    seconds: float
    sample_rate: int
    channels: int
    clipped: float


def audit(path: str, start: float = 0.0, end: float = float("nan")) -> Audit:
    """Read a file, or the stretch of it from `start` to `end` (seconds).

    Raises:
        UserError: it is missing, unreadable, cut off, not within the file, too short, silent, or holds
            values that are no numbers.
    """
    import soundfile

    if not Path(path).is_file():
        raise UserError("no such file")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            fault = shortened(path) or misplaced(start, end, file.frames / rate)
            last = file.frames if np.isnan(end) else min(round(end * rate), file.frames)
            wanted = max(last - round(start * rate), 0)
            file.seek(min(max(round(start * rate), 0), file.frames))
            read, peak, full = _scan(file, wanted)
            found = Audit(read / rate, rate, file.channels, full / max(read * file.channels, 1))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"cannot be read ({getattr(error, 'error_string', error)})") from None
    if fault := fault or cut_off(read, wanted, rate):
        raise UserError(fault)
    if found.seconds < SHORTEST:
        raise UserError(f"holds {read} samples, which is under {SHORTEST} s")
    if not np.isfinite(peak):
        raise UserError(NO_NUMBERS)
    if peak < SILENT:
        raise UserError("is silent")
    return found


def _scan(file: Any, wanted: int) -> tuple[int, float, int]:
    """Samples read, their peak, and how many of all channels' are at full scale."""
    read, peak, full = 0, 0.0, 0
    while read < wanted:
        block = file.read(min(BLOCK * file.samplerate, wanted - read), dtype="float32", always_2d=True)
        if not len(block):
            break
        sizes = np.abs(block)
        read, full = read + len(block), full + int((sizes >= FULL).sum())
        peak = max(peak, float(sizes.max())) if np.isfinite(sizes).all() else float("inf")
    return read, peak, full


def make_manifest(roots: Sequence[str], output: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The clips of folders and manifests with what each file holds, and those that cannot be used.

    Paths are relative to `output` where a file lies beside or under it, else absolute.

    Returns:
        Usable clips, with their manifest's own columns and those of `Audit`; and `path`, `reason` of
        the others.
    """
    import pandas as pd

    kept: list[dict[str, Any]] = []
    aside: list[dict[str, str]] = []
    home = output.absolute().parent
    for record in read_clips(list(roots)).to_dict("records"):
        row = {str(column): value for column, value in record.items()}
        path = Path(os.path.abspath(row["path"]))
        shown = str(path.relative_to(home)) if path.is_relative_to(home) else str(path)
        try:
            found = audit(str(path), row["start"], row["end"])
        except UserError as error:
            aside.append({"path": shown, "reason": str(error)})
            continue
        del row["name"], row["within"]
        kept.append({**row, "path": shown, **asdict(found)})
    return _tidy(pd.DataFrame(kept), len(roots)), pd.DataFrame(aside, columns=["path", "reason"])


def _tidy(table: pd.DataFrame, roots: int) -> pd.DataFrame:
    """Without the columns that say nothing: `start` and `end` of whole files, `corpus` of one root."""
    if not len(table):
        return table
    needless = []
    if not table["start"].any() and table["end"].isna().all():
        needless += ["start", "end"]
    if roots == 1 and table["corpus"].nunique() == 1:
        needless.append("corpus")
    return table.drop(columns=needless).round({"seconds": 4, "clipped": 5})


def manifest_command(roots: Sequence[str], output: str = "manifest.csv", json: str | None = None) -> None:
    """Write the manifest, and beside it `NAME-set-aside.csv` of the files that cannot be used.

    Raises:
        UserError: no file can be used, or the output's suffix names no kind of manifest.
    """
    from rich.console import Console

    path = Path(output)
    if path.suffix.lower() not in MANIFESTS:
        raise UserError(f"expected --output to end in {', '.join(MANIFESTS)}, but got {output!r}")
    kept, aside = make_manifest(roots, path)
    if not len(kept):
        name, reason = aside.iloc[0]
        raise UserError(f"none of the {len(aside)} audio files can be used, the first being {name}: {reason}")
    write_table(kept, path)
    console, hours = Console(soft_wrap=True), kept["seconds"].sum() / 3600
    console.print(f"{len(kept)} clips, {hours:.2f} hours, in {path}", highlight=False)
    loud = int((kept["clipped"] > CLIPPED).sum())
    if loud:
        console.print(
            f"{loud} of them have more than {CLIPPED:.1%} of their samples at full scale (`clipped`)"
        )
    if len(aside):
        listed = path.with_name(f"{path.stem}-set-aside.csv")
        aside.to_csv(listed, index=False)
        console.print(f"{len(aside)} set aside, listed in {listed}:", highlight=False)
        for name, reason in aside.head(10).itertuples(index=False):
            console.print(f"  {name}: {reason}", markup=False, highlight=False)
    if json is not None:
        write_json(Path(json), {"clips": len(kept), "hours": hours, "set_aside": aside.to_dict("records")})


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a manifest as its suffix says: CSV, TSV, JSONL or Parquet. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
