"""Units of frames by k-means, for HuBERT: made once from a stream of frames, read at any time of a file.

Shapes: L frames of one clip, F features of a frame, K clusters.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...tokenizers.errors import UserError
from ..data import generator
from .clips import Clips
from .clock import Clock
from .segments import Drawn

if TYPE_CHECKING:
    import pandas as pd

#: A waveform `(T,)` -> its frames `(L, F)`.
Features = Callable[[Tensor], Tensor]
#: Clusters of `units: mfcc`, as HuBERT's first iteration has.
MFCC_CLUSTERS = 100
#: Frames a step of k-means sees, and the relative gain of a pass below which it ends.
BLOCK, GAIN, PASSES = 10_000, 1e-3, 10


@dataclass(frozen=True)
class Units:
    """Units of the clips of files.

    Attributes:
        count: K.
        clock: of the frames that the units are of.
        of_file: by absolute path, rising starts (seconds) and the units `(L,)` from each on.
    """

    count: int
    clock: Clock
    of_file: dict[str, tuple[list[float], list[NDArray[Any]]]]

    def at(self, path: str, seconds: float) -> int:
        """The unit of the frame whose centre is nearest to a time of a file.

        Raises:
            UserError: the file has no units.
        """
        if path not in self.of_file:
            raise UserError(f"data.units must hold the units of every clip, but lacks those of {path!r}")
        starts, units = self.of_file[path]
        row = self._last[path][max(bisect_right(starts, seconds + 1e-6) - 1, 0)]
        centre = self.clock.begins(0) + self.clock.hop / self.clock.rate / 2
        frame = round((seconds - starts[row] - centre) * self.clock.rate / self.clock.hop)
        return int(units[row][min(max(frame, 0), len(units[row]) - 1)])

    @cached_property
    def _last(self) -> dict[str, list[int]]:
        """By file, the row that ends last of each row and those before it: if any holds a time, it does."""
        step = self.clock.hop / self.clock.rate
        last = {}
        for path, (starts, units) in self.of_file.items():
            ends = (start + len(row) * step for start, row in zip(starts, units, strict=True))
            last[path] = [row for _, row in accumulate(zip(ends, count(), strict=False), max)]
        return last

    def of(self, drawn: Drawn, table: pd.DataFrame, clock: Clock, frames: int, factor: float) -> Tensor:
        """The unit `(L,)` of each frame of a sample, by the time of its centre.

        Args:
            drawn: the sample.
            table: the clips, with `path` and `start` (seconds).
            clock: of the model's frames.
            frames: L.
            factor: how much faster than the clips it is played.
        """
        places = [table.iloc[clip] for clip, _, _ in drawn.pieces]
        ends = list(accumulate(taken for _, _, taken in drawn.pieces))
        units = []
        for frame in range(frames):
            sample = (clock.window / 2 + frame * clock.hop) * factor
            piece = min(bisect_right(ends, sample), len(ends) - 1)
            _, skip, taken = drawn.pieces[piece]
            within = (skip + sample - (ends[piece] - taken)) / clock.rate
            units.append(self.at(places[piece]["path"], places[piece]["start"] + within))
        return torch.tensor(units, dtype=torch.long)

    def write(self, path: Path) -> None:
        """Write a Parquet file: `path`, `start`, `units`, and the clock in the file's metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            {"path": file, "start": start, "units": units.tolist()}
            for file, (starts, all_units) in self.of_file.items()
            for start, units in zip(starts, all_units, strict=True)
        ]
        facts = {
            "count": self.count,
            "window": self.clock.window,
            "hop": self.clock.hop,
            "rate": self.clock.rate,
        }
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"triptych.units": json.dumps(facts)})
        pq.write_table(table, path)

    @classmethod
    def read(cls, path: Path) -> Units:
        """Read what `write` wrote. Raises UserError for any other file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"data.units must be `mfcc` or a file of `triptych cluster`: {error}") from None
        facts = json.loads((table.schema.metadata or {}).get(b"triptych.units", b"null"))
        if facts is None:
            raise UserError(
                f"data.units must be a file that `triptych cluster` wrote, but {str(path)!r} is another"
            )
        of_file: dict[str, tuple[list[float], list[NDArray[Any]]]] = {}
        for row in sorted(table.to_pylist(), key=lambda row: (row["path"], row["start"])):
            starts, units = of_file.setdefault(row["path"], ([], []))
            starts.append(row["start"])
            units.append(np.array(row["units"]))
        return cls(facts["count"], Clock(facts["window"], facts["hop"], facts["rate"]), of_file)


def mfcc_features(rate: int) -> tuple[Features, Clock]:
    """39 values of 25 ms every 10 ms: 13 MFCC, their slopes and the slopes of those, as HuBERT starts."""
    from torchaudio.functional import compute_deltas
    from torchaudio.transforms import MFCC

    window, hop = round(0.025 * rate), round(0.01 * rate)
    transform = MFCC(rate, 13, melkwargs={"n_fft": window, "hop_length": hop, "n_mels": 40, "center": False})

    def features(waveform: Tensor) -> Tensor:
        coefficients = transform(waveform)
        slopes = compute_deltas(coefficients)
        return torch.cat([coefficients, slopes, compute_deltas(slopes)]).T

    return features, Clock(window, hop, rate)


def make_units(
    clips: Clips, indices: Sequence[int], features: Features, clock: Clock, clusters: int, seed: int = 0
) -> Units:
    """Cluster the frames of some clips, and give each clip of the data its units.

    Mini-batch k-means (Sculley 2010) over a stream: memory holds one block of frames, however many clips.

    Args:
        clips: all clips.
        indices: of those to fit on.
        features: of a waveform.
        clock: of its frames.
        clusters: K.
        seed: of the clips' order and of the first centres.

    Raises:
        UserError: there are fewer frames than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(clusters, n_init=5, batch_size=BLOCK, reassignment_ratio=0.0, random_state=seed)
    before = float("inf")
    for epoch in range(PASSES):
        order = torch.randperm(len(indices), generator=generator(seed, epoch, "clusters")).tolist()
        error, frames = 0.0, 0
        for block in blocks(features(clips[indices[place]]) for place in order):
            if len(block) < clusters:
                raise UserError(
                    f"expected at least as many frames as clusters, {clusters}, but there are {len(block)}"
                )
            model.partial_fit(block)
            error, frames = error - float(model.score(block)), frames + len(block)
        if error / frames > before * (1 - GAIN):
            break
        before = error / frames
    of_file: dict[str, tuple[list[float], list[NDArray[Any]]]] = {}
    paths, begins = _places(clips.table)
    for index in sorted(range(len(clips)), key=lambda index: begins[index]):
        starts, units = of_file.setdefault(paths[index], ([], []))
        starts.append(begins[index])
        units.append(model.predict(_double(features(clips[index]))).astype(np.int32))
    return Units(clusters, clock, of_file)


def blocks(frames: Iterator[Tensor]) -> Iterator[NDArray[np.float64]]:
    """Frames `(L, F)` of many clips in blocks of at least `BLOCK`; a rest joins the last one."""
    waiting: list[Tensor] = []
    held: NDArray[np.float64] | None = None
    for of_clip in frames:
        waiting.append(of_clip)
        if sum(map(len, waiting)) >= BLOCK:
            if held is not None:
                yield held
            held, waiting = _double(torch.cat(waiting)), []
    rest = [_double(part) for part in waiting]
    if held is not None or rest:
        yield np.concatenate([part for part in (held, *rest) if part is not None])


def _places(table: pd.DataFrame) -> tuple[list[str], list[float]]:
    """File and start (seconds) of each clip."""
    return list(table["path"]), list(table["start"])


def _double(frames: Tensor) -> NDArray[np.float64]:
    return frames.double().numpy()
