"""Clips of audio, decoded and resampled once, kept in memory while there is room.

Shapes: T samples of one clip.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from .faults import NO_NUMBERS, cut_off, misplaced

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("triptych")


class Clips:
    """Random access to clips as waveforms at one rate.

    Files, and stretches of files, that cannot be used are set aside, with the reason, in `set_aside`; each
    is reported once. Rows that fail only when they are decoded stay, and are in `failed`. Clips longer than
    `longest` are cut into equal pieces, which have no text; the log says how many.

    Args:
        table: as `manifest.read_clips` gives it.
        rate: Hz; every clip is resampled to it.
        fits: whether a clip of so many samples is long enough for a token.
        longest: seconds.
        normalise: give each clip mean 0 and variance 1 (wav2vec 2.0 large, XLS-R).
        tolerance: share of files that may be set aside at the start.
        cache: gigabytes of decoded audio to keep.

    Raises:
        UserError: more files than that are unreadable, empty or too short.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        rate: int,
        fits: Callable[[int], bool],
        longest: float,
        normalise: bool = False,
        tolerance: float = 0.1,
        cache: float = 2.0,
    ) -> None:
        self.rate, self.normalise = rate, normalise
        self.set_aside: dict[str, str] = {}
        self.failed: set[int] = set()
        self.table = self._inspect(table, fits, longest, tolerance)
        self._room = int(cache * 1e9)
        self._cache: dict[int, Tensor] = {}
        self._resamplers: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def samples(self) -> list[int]:
        """Length of each clip, in samples at `rate`."""
        return [round(seconds * self.rate) for seconds in self.table["seconds"]]

    def __getitem__(self, index: int) -> Tensor:
        """The clip's waveform `(T,)`, float32; silence if the file fails to decode after all."""
        if index not in self._cache:
            waveform = self._decode(index)
            if waveform.nbytes > self._room:
                return waveform
            self._room -= waveform.nbytes
            self._cache[index] = waveform
        return self._cache[index]

    def _decode(self, index: int) -> Tensor:
        import soundfile

        row = {str(column): value for column, value in self.table.iloc[index].items()}
        wanted = self.samples[index]
        try:
            with soundfile.SoundFile(row["path"]) as file:
                file.seek(int(row["start"] * file.samplerate))
                frames = math.ceil(row["seconds"] * file.samplerate)
                waveform = torch.from_numpy(file.read(frames, dtype="float32", always_2d=True)).mean(1)
                fault = cut_off(len(waveform), frames, file.samplerate)
                waveform = self._resample(waveform, file.samplerate)
            if not waveform.isfinite().all():
                fault = NO_NUMBERS
        except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
            fault = str(error)
        if fault is not None:
            self.failed.add(index)
            self._put_aside(row, fault)
            return torch.zeros(wanted)
        if self.normalise:
            deviation, mean = torch.std_mean(waveform, correction=0)
            waveform = (waveform - mean) / (deviation + 1e-5)
        return torch.nn.functional.pad(waveform, (0, max(wanted - len(waveform), 0)))[:wanted].clone()

    def _resample(self, waveform: Tensor, rate: int) -> Tensor:
        if rate == self.rate:
            return waveform
        if rate not in self._resamplers:
            from torchaudio.transforms import Resample

            self._resamplers[rate] = Resample(rate, self.rate)
        return self._resamplers[rate](waveform)

    def _put_aside(self, row: Mapping[str, Any], reason: str) -> None:
        name = f"{row['name']} from {row['start']:g} s" if row["start"] else str(row["name"])
        if name not in self.set_aside:
            self.set_aside[name] = reason
            log.warning("set aside %s: %s", name, reason)

    def _inspect(
        self, table: pd.DataFrame, fits: Callable[[int], bool], longest: float, tolerance: float
    ) -> pd.DataFrame:
        """Read every header, set bad files aside, cut what is too long; adds `seconds`."""
        import pandas as pd

        kept: list[dict[str, Any]] = []
        unsaid: list[str] = []
        unusable = 0
        for record in table.to_dict("records"):
            row = {str(column): value for column, value in record.items()}
            end, problem = _header(row)
            seconds = end - row["start"]
            if problem is None and not fits(round(seconds * self.rate)):
                problem = f"{max(seconds, 0):.3f} s is too short for a single frame"
            if problem is None:
                pieces = _pieces(row, seconds, longest)
                unsaid += [row["name"]] if len(pieces) > 1 and row.get("text") else []
                kept += pieces
            else:
                unusable += 1
                self._put_aside(row, problem)
        if unusable > tolerance * len(table) or not kept:
            name, reason = next(iter(self.set_aside.items()))
            raise UserError(
                f"at most {tolerance:.0%} of the {len(table)} clips may be unusable, "
                f"but {unusable} are, the first being {name}: {reason}"
            )
        if unsaid:
            log.warning(
                "left out the texts of %d clips longer than %g s (data.limits.longest), such as %s",
                len(unsaid), longest, unsaid[0],
            )  # fmt: skip
        return pd.DataFrame(kept)


def _header(row: dict[str, Any]) -> tuple[float, str | None]:
    """Where a clip ends, in seconds, and what is wrong with its file, if anything."""
    import soundfile

    if not Path(row["path"]).is_file():
        return 0.0, "no such file"
    try:
        duration = soundfile.info(row["path"]).duration
    except soundfile.LibsndfileError as error:
        return 0.0, f"cannot be read ({error.error_string})"
    end = duration if math.isnan(row["end"]) else min(row["end"], duration)
    return end, misplaced(row["start"], row["end"], duration)


def _pieces(row: dict[str, Any], seconds: float, longest: float) -> list[dict[str, Any]]:
    """A clip as one row, or as several of equal length and without text if it is too long."""
    count = math.ceil(seconds / longest)
    each = seconds / count
    cut = {"text": ""} if count > 1 and "text" in row else {}
    starts = [row["start"] + index * each for index in range(count)]
    return [{**row, **cut, "start": start, "end": start + each, "seconds": each} for start in starts]
