"""What one training sample of audio is: a clip, or a stretch of many clips of one voice end to end.

Shapes: T samples of one waveform, U symbols of its transcript.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ...objectives.classification import UNLABELLED
from ..data import generator
from .clips import Clips

MODALITY = "audio"


@dataclass(frozen=True)
class Drawn:
    """One sample before any view of it.

    Attributes:
        waveform: `(T,)`.
        pieces: what it is made of, in order: (clip, first sample in it, samples).
        label: class, where the clips have one.
        text: `(U,)` indices of the transcript's symbols, empty where there is none; None where the
            data has no transcripts.
    """

    waveform: Tensor
    pieces: tuple[tuple[int, int, int], ...]
    label: int | None = None
    text: Tensor | None = None


class Waveforms(Protocol):
    """Waveforms by (epoch, index), of lengths known beforehand."""

    clips: Clips
    lengths: list[int]

    def draw(self, epoch: int, index: int) -> Drawn:
        """The sample."""
        ...

    def clip(self, index: int) -> int:
        """A clip whose language and corpus are the sample's."""
        ...


class Whole:
    """Each clip by itself.

    Args:
        clips: all clips.
        indices: of those to give.
        labels: class of each clip of the data, or None.
        texts: transcript `(U,)` of each clip of the data, or None.
    """

    def __init__(
        self,
        clips: Clips,
        indices: Sequence[int],
        labels: Sequence[int] | None = None,
        texts: Sequence[Tensor] | None = None,
    ) -> None:
        self.clips, self.indices, self.labels, self.texts = clips, list(indices), labels, texts
        samples = clips.samples
        self.lengths = [samples[index] for index in indices]

    def draw(self, epoch: int, index: int) -> Drawn:
        """The clip."""
        clip, waveform = self.indices[index], self.clips[self.indices[index]]
        label = None if self.labels is None else self.labels[clip]
        text = None if self.texts is None else self.texts[clip]
        if clip in self.clips.failed:  # silence has neither
            label = None if label is None else UNLABELLED
            text = None if text is None else text[:0]
        return Drawn(waveform, ((clip, 0, len(waveform)),), label, text)

    def clip(self, index: int) -> int:
        """The clip itself."""
        return self.indices[index]


class Segments:
    """Stretches of one length, cut from each voice's clips laid end to end in an order of the epoch.

    Short clips alone give too few negatives, and too little context, to learn from. Clips are cut
    where a stretch ends; the rest of a voice that fills no stretch is left out for an epoch.

    Args:
        clips: all clips.
        voices: indices of the clips of each voice.
        length: T, in samples; a voice with less gives one segment of all it has.
        seed: of the orders.
    """

    def __init__(self, clips: Clips, voices: Mapping[str, Sequence[int]], length: int, seed: int) -> None:
        self.clips, self.voices, self.seed = clips, dict(voices), seed
        self.samples = clips.samples
        totals = {voice: sum(self.samples[i] for i in indices) for voice, indices in self.voices.items()}
        self.owner = [voice for voice, total in totals.items() for _ in range(max(total // length, 1))]
        self.first = {voice: self.owner.index(voice) for voice in totals}
        self.lengths = [min(length, totals[voice]) for voice in self.owner]
        self._epoch: int | None = None
        self._order: dict[str, tuple[list[int], list[int]]] = {}

    def draw(self, epoch: int, index: int) -> Drawn:
        """One stretch of one voice."""
        voice, length = self.owner[index], self.lengths[index]
        order, ends = self._laid_out(epoch)[voice]
        begin = (index - self.first[voice]) * length
        pieces: list[tuple[int, int, int]] = []
        missing = length
        clip = bisect_right(ends, begin)
        while missing:
            skip = begin + length - missing - (ends[clip] - self.samples[order[clip]])
            taken = min(self.samples[order[clip]] - skip, missing)
            pieces.append((order[clip], skip, taken))
            missing -= taken
            clip += 1
        parts = [self.clips[clip][skip : skip + taken] for clip, skip, taken in pieces]
        return Drawn(torch.cat(parts), tuple(pieces))

    def clip(self, index: int) -> int:
        """The first of the voice's clips."""
        return self.voices[self.owner[index]][0]

    def _laid_out(self, epoch: int) -> dict[str, tuple[list[int], list[int]]]:
        """For each voice the order of its clips in this epoch, and where each ends, in samples."""
        if self._epoch != epoch:
            self._epoch = epoch
            for voice, indices in self.voices.items():
                shuffled = torch.randperm(len(indices), generator=generator(self.seed, epoch, voice, "clips"))
                order = [indices[i] for i in shuffled.tolist()]
                self._order[voice] = order, list(accumulate(self.samples[i] for i in order))
        return self._order
