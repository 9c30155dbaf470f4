"""What one training sample of audio is: a clip, or a stretch of many clips of one voice end to end.

Shapes: T samples of one waveform, L frames of one utterance.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from ...tokenizers.view import Batch, View
from ..data import generator
from .clips import Clips
from .masks import SpanMask

MODALITY = "audio"


@dataclass
class AudioView:
    """One view of the audio: what the student sees of it.

    Attributes:
        mask: spans of frames that are replaced by the mask token, or None.
    """

    mask: SpanMask | None = None


@dataclass(frozen=True)
class Item:
    """One drawn sample: its index, waveform `(T,)`, the mask `(L,)` of each view, and its class."""

    index: int
    waveform: Tensor
    masked: dict[str, Tensor | None] = field(default_factory=dict)
    label: int | None = None


class Waveforms(Protocol):
    """Waveforms by (epoch, index), of lengths known beforehand."""

    lengths: list[int]

    def draw(self, epoch: int, index: int) -> tuple[Tensor, int | None]:
        """The waveform `(T,)`, and its class where it has one."""
        ...


class Whole:
    """Each clip by itself.

    Args:
        clips: all clips.
        indices: of those to give.
        labels: class of each clip of the data, or None.
    """

    def __init__(self, clips: Clips, indices: Sequence[int], labels: Sequence[int] | None = None) -> None:
        self.clips, self.indices, self.labels = clips, list(indices), labels
        samples = clips.samples
        self.lengths = [samples[index] for index in indices]

    def draw(self, epoch: int, index: int) -> tuple[Tensor, int | None]:
        """The clip."""
        clip = self.indices[index]
        return self.clips[clip], None if self.labels is None else self.labels[clip]


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

    def draw(self, epoch: int, index: int) -> tuple[Tensor, None]:
        """One stretch of one voice."""
        voice, length = self.owner[index], self.lengths[index]
        order, ends = self._laid_out(epoch)[voice]
        begin = (index - self.first[voice]) * length
        pieces, missing = [], length
        clip = bisect_right(ends, begin)
        while missing:
            skip = begin + length - missing - (ends[clip] - self.samples[order[clip]])
            pieces.append(self.clips[order[clip]][skip : skip + missing])
            missing -= len(pieces[-1])
            clip += 1
        return torch.cat(pieces), None

    def _laid_out(self, epoch: int) -> dict[str, tuple[list[int], list[int]]]:
        """For each voice the order of its clips in this epoch, and where each ends, in samples."""
        if self._epoch != epoch:
            self._epoch = epoch
            for voice, indices in self.voices.items():
                shuffled = torch.randperm(len(indices), generator=generator(self.seed, epoch, voice, "clips"))
                order = [indices[i] for i in shuffled.tolist()]
                self._order[voice] = order, list(accumulate(self.samples[i] for i in order))
        return self._order


class AudioSamples:
    """A data set of named views of waveforms.

    Args:
        waveforms: where they come from.
        views: by name.
        num_tokens: L, as the model's tokenizer counts them for (T,); for masks alone.
        rate: Hz.
        seed: of the masks.
    """

    def __init__(
        self,
        waveforms: Waveforms,
        views: Mapping[str, AudioView],
        num_tokens: Callable[[Sequence[int]], int],
        rate: int,
        seed: int,
    ) -> None:
        self.waveforms, self.views = waveforms, dict(views)
        self.num_tokens, self.rate, self.seed = num_tokens, rate, seed

    def __len__(self) -> int:
        return len(self.waveforms.lengths)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The sample `index` in `epoch`."""
        epoch, index = key
        waveform, label = self.waveforms.draw(epoch, index)
        masked = {
            name: None
            if view.mask is None
            else view.mask.draw(self.num_tokens(waveform.shape), generator(self.seed, epoch, index, name))
            for name, view in self.views.items()
        }
        return Item(index, waveform, masked, label)

    def collate(self, items: Sequence[Item]) -> Batch:
        """Every view of a batch; `targets` holds `label` where the clips have classes."""
        labels = [item.label for item in items if item.label is not None]
        targets = {"label": torch.tensor(labels)} if labels else {}
        return {name: self._view(name, items, targets) for name in self.views}

    def _view(self, name: str, items: Sequence[Item], targets: dict[str, Tensor]) -> View:
        masks = [mask for item in items if (mask := item.masked[name]) is not None]
        return View(
            modality=MODALITY,
            data=[item.waveform for item in items],
            masked=torch.cat(masks) if masks else None,
            targets=targets,
            rate=self.rate,
            ids=tuple(item.index for item in items),
        )
