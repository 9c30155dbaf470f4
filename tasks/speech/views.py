"""The views of audio: what the student hears of a sample, and what of that is hidden from it.

Shapes: T samples of one waveform, L frames of one utterance, n entries of a view, D channels of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from ...tokenizers.tokenizer import Tokenizer
from ...tokenizers.view import Batch, View
from ..data import generator
from .augment import ChannelMask, Mixing, Noise, add_noise, mix, speed
from .clips import Clips
from .clock import Clock
from .masks import SpanMask
from .sampling import AGAIN
from .segments import MODALITY, Drawn, Waveforms
from .units import Units


@dataclass
class AudioView:
    """One view of the audio: what the student sees of it. Speed comes first, then mixing, then noise.

    Attributes:
        mask: spans of frames that are replaced by the mask token, or None.
        channels: spans of channels that are zero in all frames, or None.
        speed: factors, one of which is drawn (1.1 is faster), or None.
        mix: another utterance over part of it, or None.
        noise: noise under it, or None.
    """

    mask: SpanMask | None = None
    channels: ChannelMask | None = None
    speed: list[float] | None = None
    mix: Mixing | None = None
    noise: Noise | None = None

    def __post_init__(self) -> None:
        if self.speed is not None and (not self.speed or min(self.speed) <= 0):
            raise UserError(f"expected a view's speed to be factors above 0, but got {self.speed}")


@dataclass(frozen=True)
class Look:
    """One view of one sample.

    Attributes:
        data: `(T,)` what the student hears.
        clean: `(T,)` the same without noise and mixing, or None where there is neither.
        masked: `(L,)` bool, or None.
        muted: `(D,)` bool, or None.
        units: `(L,)` of its frames, or None.
    """

    data: Tensor
    clean: Tensor | None = None
    masked: Tensor | None = None
    muted: Tensor | None = None
    units: Tensor | None = None


@dataclass(frozen=True)
class Item:
    """One drawn sample: its index, what was drawn, and every view of it."""

    index: int
    drawn: Drawn
    looks: dict[str, Look] = field(default_factory=dict)


class AudioSamples:
    """A data set of named views of waveforms. Each view draws from (seed, epoch, index, its name).

    Args:
        waveforms: where they come from.
        views: by name.
        tokenizer: the model's, which sizes the masks; None where there are none.
        rate: Hz.
        seed: of all that is drawn.
        noises: clips of noise, by the path that a view names.
        units: of the frames of `clips`, or None.
    """

    def __init__(
        self,
        waveforms: Waveforms,
        views: Mapping[str, AudioView],
        tokenizer: Tokenizer | None,
        rate: int,
        seed: int,
        noises: Mapping[str, Clips] | None = None,
        units: Units | None = None,
    ) -> None:
        self.waveforms, self.views, self.tokenizer = waveforms, dict(views), tokenizer
        self.rate, self.seed, self.noises = rate, seed, dict(noises or {})
        self.units = units
        self.clock = None if units is None or tokenizer is None else Clock.of(tokenizer, rate)

    def __len__(self) -> int:
        return len(self.waveforms.lengths)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The sample `index` in `epoch`."""
        epoch, index = key
        drawn = self.waveforms.draw(epoch % AGAIN, index)
        looks = {name: self._look(view, drawn, epoch, index, name) for name, view in self.views.items()}
        return Item(index, drawn, looks)

    def _look(self, view: AudioView, drawn: Drawn, epoch: int, index: int, name: str) -> Look:
        key = (self.seed, epoch, index, name)
        waveform, factor = drawn.waveform, 1.0
        if view.speed is not None:
            faster, drawn_factor = speed(waveform, view.speed, generator(*key, "speed"))
            if self._frames(faster):  # what is too short to be played faster stays as it is
                waveform, factor = faster, drawn_factor
        data = waveform
        if view.mix is not None:
            data = mix(data, view.mix, lambda which: self._other(epoch, which), generator(*key, "mix"))
        if view.noise is not None:
            noises = self.noises.get(view.noise.path or "")
            data = add_noise(data, view.noise, lambda which: _pick(noises, which), generator(*key, "noise"))
        return Look(
            data=data,
            clean=None if view.mix is None and view.noise is None else waveform,
            masked=None if view.mask is None else view.mask.draw(self._frames(waveform), generator(*key)),
            muted=None
            if view.channels is None
            else view.channels.draw(self._width(), generator(*key, "channels")),
            units=self._units(drawn, waveform, factor),
        )

    def _units(self, drawn: Drawn, waveform: Tensor, factor: float) -> Tensor | None:
        if self.units is None or self.clock is None:
            return None
        table = self.waveforms.clips.table
        return self.units.of(drawn, table, self.clock, self._frames(waveform), factor)

    def _frames(self, waveform: Tensor) -> int:
        return len(waveform) if self.tokenizer is None else self.tokenizer.num_tokens(waveform.shape)

    def _width(self) -> int:
        assert self.tokenizer is not None
        return self.tokenizer.width

    def _other(self, epoch: int, which: float) -> Tensor:
        """Another sample of the data, by a number in [0, 1)."""
        return self.waveforms.draw(epoch % AGAIN, int(which * len(self))).waveform

    def collate(self, items: Sequence[Item]) -> Batch:
        """Every view of a batch, with `label` and `text` where the clips have classes and transcripts."""
        labels = [item.drawn.label for item in items if item.drawn.label is not None]
        texts = [item.drawn.text for item in items if item.drawn.text is not None]
        targets = {"label": torch.tensor(labels)} if labels else {}
        ragged = {"text": texts} if texts else {}
        return {name: self._view(name, items, targets, ragged) for name in self.views}

    def _view(
        self,
        name: str,
        items: Sequence[Item],
        targets: dict[str, Tensor],
        ragged: dict[str, list[Tensor]],
    ) -> View:
        looks = [item.looks[name] for item in items]
        masks = [look.masked for look in looks if look.masked is not None]
        muted = [look.muted for look in looks if look.muted is not None]
        units = [look.units for look in looks if look.units is not None]
        clean = [look.clean for look in looks if look.clean is not None]
        return View(
            modality=MODALITY,
            data=[look.data for look in looks],
            clean=clean or None,
            masked=torch.cat(masks) if masks else None,
            muted=torch.stack(muted) if muted else None,
            targets=targets,
            ragged={**ragged, "units": units} if units else ragged,
            rate=self.rate,
            ids=tuple(item.index for item in items),
        )


def _pick(noises: Clips | None, which: float) -> Tensor:
    assert noises is not None
    return noises[int(which * len(noises))]
