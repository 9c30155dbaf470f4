"""What the loader does to a waveform before the student hears it: speed, noise, other voices, channels.

Shapes: T samples of one waveform, D channels of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .masks import check_spans

#: Gives the waveform of a sample drawn by a number in [0, 1).
Other = Callable[[float], Tensor]


@dataclass
class Noise:
    """Noise under the speech, at a drawn ratio.

    Attributes:
        path: a folder or manifest of noises; None for white noise.
        probability: share of the samples that get any.
        snr: lowest and highest ratio of speech to noise, in dB.
    """

    path: str | None = None
    probability: float = 0.5
    snr: tuple[float, float] = (5.0, 20.0)


@dataclass
class Mixing:
    """Part of another utterance over the speech (utterance mixing, WavLM, Chen et al. 2022, algorithm 1).

    Attributes:
        probability: share of the samples that are spoken over.
        longest: of the other's part, as a share of the sample.
        snr: lowest and highest ratio of the speech to the other, in dB.
    """

    probability: float = 0.2
    longest: float = 0.5
    snr: tuple[float, float] = (-5.0, 5.0)


@dataclass
class ChannelMask:
    """Spans of channels that are zero in all tokens of an utterance (SpecAugment along frequency).

    As wav2vec 2.0 fine-tunes: `share * D / length` spans at random starts, which may overlap.

    Attributes:
        share: of the channels if no spans overlapped.
        length: of a span, in channels.
    """

    share: float = 0.1
    length: int = 16

    def __post_init__(self) -> None:
        check_spans(self.share, self.length)

    def draw(self, channels: int, draws: torch.Generator) -> Tensor:
        """`(D,)` bool, True where zeroed."""
        length = min(self.length, channels)
        spans = int(self.share * channels / length + float(torch.rand((), generator=draws)))
        starts = torch.randperm(channels - length + 1, generator=draws)[:spans]
        muted = torch.zeros(channels, dtype=torch.bool)
        muted[(starts.unsqueeze(1) + torch.arange(length)).flatten()] = True
        return muted


def speed(waveform: Tensor, factors: Sequence[float], draws: torch.Generator) -> tuple[Tensor, float]:
    """The waveform `(T,)` played faster by one of the factors, `(T / factor,)`, and that factor.

    Speed perturbation by resampling (Ko et al. 2015): pitch and tempo change together.
    """
    factor = factors[int(torch.randint(len(factors), (), generator=draws))]
    if factor == 1.0:
        return waveform, factor
    ratio = Fraction(factor).limit_denominator(100)
    return _resampler(ratio.numerator, ratio.denominator)(waveform), float(ratio)


@lru_cache(maxsize=32)
def _resampler(rate: int, new: int) -> Any:
    from torchaudio.transforms import Resample

    return Resample(rate, new)


def add_noise(waveform: Tensor, noise: Noise, other: Other, draws: torch.Generator) -> Tensor:
    """White noise, or a noise of the folder repeated to the length, under the whole waveform `(T,)`."""
    chance, which, level = torch.rand(3, generator=draws).tolist()
    if chance >= noise.probability:
        return waveform
    if noise.path is None:
        sound = torch.randn(len(waveform), generator=draws)
    else:
        sound = other(which)
        start = int(torch.randint(len(sound), (), generator=draws))
        sound = sound.roll(-start).repeat(-(-len(waveform) // len(sound)))[: len(waveform)]
    return waveform + scaled(sound, waveform, noise.snr, level)


def mix(waveform: Tensor, mixing: Mixing, other: Other, draws: torch.Generator) -> Tensor:
    """A stretch of another utterance over a stretch of the waveform `(T,)`."""
    chance, which, level, share = torch.rand(4, generator=draws).tolist()
    if chance >= mixing.probability:
        return waveform
    sound = other(which)
    length = min(int(share * mixing.longest * len(waveform)) + 1, len(sound))
    theirs = int(torch.randint(len(sound) - length + 1, (), generator=draws))
    ours = int(torch.randint(len(waveform) - length + 1, (), generator=draws))
    mixed = waveform.clone()
    mixed[ours : ours + length] += scaled(sound[theirs : theirs + length], waveform, mixing.snr, level)
    return mixed


def scaled(sound: Tensor, speech: Tensor, snr: tuple[float, float], level: float) -> Tensor:
    """`sound` at the ratio `level` (0 to 1) of the way from the lowest to the highest dB under `speech`."""
    decibels = snr[0] + level * (snr[1] - snr[0])
    ours, theirs = speech.square().mean(), sound.square().mean()
    return sound * (ours / theirs.clamp_min(1e-12) / 10 ** (decibels / 10)).sqrt()
