"""What a run's CTC head says of audio of any length, frame by frame.

Shapes: L frames of one recording, T samples of it, K symbols of the alphabet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ...objectives.ctc import CTC
from ...tokenizers.errors import UserError
from ...tokenizers.tokenizer import Tokenizer
from ...tokenizers.view import View
from ..model import Model
from ..run import Run
from .clips import Clips
from .clock import Clock
from .manifest import read_clips
from .segments import MODALITY

#: Seconds of audio in one pass of the model.
BATCH = 60.0


@dataclass(frozen=True)
class Part:
    """A chunk of a recording: frames `first` to `last` are heard, `begin` to `end` of them are kept."""

    first: int
    last: int
    begin: int
    end: int


def parts(frames: int, chunk: int, overlap: int) -> list[Part]:
    """Chunks of `chunk` frames that share `overlap` or more; a frame is kept where it is most central."""
    if frames <= chunk:
        return [Part(0, frames, 0, frames)]
    count = -(-(frames - overlap) // (chunk - overlap))
    firsts = [round(i * (frames - chunk) / (count - 1)) for i in range(count)]
    cuts = [0, *((one + chunk + other) // 2 for one, other in pairwise(firsts)), frames]
    return [
        Part(first, first + chunk, begin, end)
        for first, begin, end in zip(firsts, cuts, cuts[1:], strict=False)
    ]


class Listener:
    """A run's CTC head over recordings.

    Args:
        run: a finished run.
        chunk: seconds heard at once; longer recordings are cut into chunks.
        overlap: seconds that neighbouring chunks share.

    Raises:
        UserError: the run has no CTC head, or a chunk is no longer than twice the overlap.
    """

    def __init__(self, run: Run, chunk: float = 30.0, overlap: float = 4.0) -> None:
        heads = [name for name, member in run.model.objective if isinstance(member, CTC)]
        if not heads:
            raise UserError(
                f"expected a run trained with CTC, but {str(run.directory)!r} has no such objective"
            )
        if chunk <= 2 * overlap:
            raise UserError(
                f"expected a chunk longer than twice the overlap of {overlap:g} s, but got {chunk:g} s"
            )
        assert run.model.spec is not None
        self.model: Model = run.model
        self.head = heads[0]
        self.facts: dict[str, Any] = dict(run.model.spec.data[MODALITY])
        self.alphabet: list[str] = self.facts["alphabet"]
        tokenizer = run.model.tokenizers[MODALITY]
        assert isinstance(tokenizer, Tokenizer)
        self.tokenizer = tokenizer
        self.clock = Clock.of(tokenizer, self.facts["rate"])
        self.chunk, self.overlap = (round(s * self.clock.rate / self.clock.hop) for s in (chunk, overlap))

    def clips(self, paths: Sequence[str]) -> Clips:
        """The recordings of folders, manifests and files, whole; bad ones are set aside by name."""
        return Clips(
            read_clips(list(paths)),
            self.clock.rate,
            lambda samples: self.tokenizer.num_tokens((samples,)) > 0,
            longest=float(2**31),
            normalise=bool(self.facts.get("normalise")),
            tolerance=1.0,
            cache=0.0,
        )

    def emissions(self, clips: Clips, indices: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Index and log-probabilities `(L, 1 + K)` of each clip, in the order asked for."""
        group: list[int] = []
        seconds = 0.0
        lengths = clips.samples
        for index in indices:
            if group and seconds + lengths[index] / self.clock.rate > BATCH:
                yield from self._group(clips, group)
                group, seconds = [], 0.0
            group.append(index)
            seconds += lengths[index] / self.clock.rate
        if group:
            yield from self._group(clips, group)

    def _group(self, clips: Clips, group: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        waveforms = [clips[index] for index in group]
        yield from zip(group, self.listen(waveforms), strict=True)

    @torch.no_grad()
    def listen(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Log-probabilities `(L, 1 + K)` of waveforms `(T,)`, stitched together where they are long."""
        plans = [parts(self.tokenizer.num_tokens(wave.shape), self.chunk, self.overlap) for wave in waveforms]
        chunks = [
            self._cut(wave, part, len(plan))
            for wave, plan in zip(waveforms, plans, strict=True)
            for part in plan
        ]
        heard = iter(self._predict(chunks))
        return [
            torch.cat([next(heard)[part.begin - part.first : part.end - part.first] for part in plan])
            for plan in plans
        ]

    def _cut(self, waveform: Tensor, part: Part, count: int) -> Tensor:
        if count == 1:
            return waveform
        begin = part.first * self.clock.hop
        return waveform[begin : begin + self.clock.samples(part.last - part.first)]

    def _predict(self, chunks: Sequence[Tensor]) -> list[Tensor]:
        heard: list[Tensor] = []
        size = max(int(BATCH * self.clock.rate // max(map(len, chunks))), 1)
        for start in range(0, len(chunks), size):
            view = View(MODALITY, list(chunks[start : start + size]), rate=self.clock.rate)
            heard += self.model.predict(view, self.head)
        return heard
