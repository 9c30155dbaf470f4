"""Frames of a model's layers, and one vector a clip: frames pooled, MFCC, duration.

Shapes: n clips, S packed tokens, L tokens of one clip, D width, C coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...tokenizers.tokens import concat
from ...tokenizers.view import View
from ..model import Model
from .segments import MODALITY

Array = NDArray[np.float64]


def mean_and_deviation(frames: Tensor) -> Tensor:
    """`(L, D)` -> `(2 D,)`: mean and deviation over time."""
    deviation, mean = torch.std_mean(frames, dim=0, correction=0)
    return torch.cat([mean, deviation])


@torch.no_grad()
def framewise(
    model: Model, waveforms: Sequence[Tensor], layers: Sequence[int], batch: int = 64
) -> dict[int, list[Tensor]]:
    """Each layer's tokens `(L, D)` of each clip, in the order of `waveforms`; arguments as for `encoded`."""
    tokenizers, encoder = model.branch(model.evaluate_with)
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(waveforms), batch):
        view = View(MODALITY, list(waveforms[start : start + batch]))
        output = encoder(concat([tokenizers[MODALITY](view)]), layers)
        for layer in layers:
            content = output.layers[layer][0].content()
            found[layer] += content.per_sequence(content.values)
    return found


def encoded(
    model: Model, waveforms: Sequence[Tensor], layers: Sequence[int], batch: int = 64
) -> dict[int, Array]:
    """Mean and deviation over time of each layer's tokens, `(n, 2 D)`, in the order of `waveforms`.

    Args:
        model: in evaluation mode; the branch that it is to be evaluated with.
        waveforms: `(T_i,)` at the model's rate.
        layers: 0 the input of the encoder, i the output of block i, -1 the end.
        batch: clips a pass.
    """
    frames = framewise(model, waveforms, layers, batch)
    return {
        layer: torch.stack([mean_and_deviation(of_clip) for of_clip in clips]).double().numpy()
        for layer, clips in frames.items()
    }


def durations(waveforms: Sequence[Tensor], rate: int) -> Array:
    """Seconds and their logarithm, `(n, 2)`."""
    seconds = np.array([len(waveform) for waveform in waveforms]) / rate
    return np.stack([seconds, np.log(seconds)], axis=1)


def mfcc(waveforms: Sequence[Tensor], rate: int, coefficients: int = 20) -> Array:
    """Mean and deviation over time of MFCC in windows of 25 ms every 10 ms, `(n, 2 C)`."""
    from torchaudio.transforms import MFCC

    window = round(0.025 * rate)
    transform = MFCC(
        rate,
        coefficients,
        melkwargs={"n_fft": window, "hop_length": round(0.01 * rate), "n_mels": 40, "center": False},
    )
    return torch.stack([mean_and_deviation(transform(waveform).T) for waveform in waveforms]).double().numpy()
