"""Waveform -> frames by a stack of convolutions, as in wav2vec 2.0.

Shapes: n utterances of one length, T samples or frames, C channels, S packed tokens, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .audio import AudioFrames, Frames, Positions, by_length
from .audio_initial import start_as_filter_bank

#: (channels, kernel, stride) of each convolution of wav2vec 2.0: 25 ms every 20 ms at 16 kHz.
WAV2VEC2 = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)


class ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """`x`, any shape."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """`factor` times the gradient."""
        return grad * ctx.factor, None


class ConvolutionLayer(nn.Module):
    """Convolution without padding, a norm where there is one, GELU.

    Args:
        channels_in, channels, kernel, stride: of the convolution.
        bias: whether it has one.
        norm: `group` norms each channel over the utterance, `layer` each frame over its
            channels; None for none.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        stride: int,
        bias: bool,
        norm: Literal["group", "layer"] | None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels, kernel, stride, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight)
        self.group_norm = nn.GroupNorm(channels, channels) if norm == "group" else None
        self.layer_norm = nn.LayerNorm(channels) if norm == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        """`(n, C, T)` -> `(n, C', T')`."""
        x = self.conv(x)
        if self.group_norm is not None:
            x = self.group_norm(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        return F.gelu(x)


class WaveformFrames(AudioFrames):
    """Learnt frames of a raw waveform (Baevski et al. 2020, section 2 and appendix A).

    Convolutions, layer norm (here are the `features`, the targets of wav2vec 2.0), projection.
    `energy` is the mean square of each frame before that norm, for the feature penalty.

    Args:
        convolutions: (channels, kernel, stride) of each, in samples of the layer before.
        norm: `group`, after the first convolution and over each utterance alone (base models),
            or `layer`, after each convolution (large models, XLS-R).
        bias: of the convolutions.
        initial: `random` as in the paper, or `mel`: a filter bank and its bands' envelopes.
        feature_gradient: factor of the gradient that reaches the convolutions.
        positions: the positional convolution.
        dropout: on the projected frames, and on the placed ones.
        prefix: names of the learnt tokens before each utterance.
    """

    def __init__(
        self,
        convolutions: Sequence[tuple[int, int, int]] = WAV2VEC2,
        norm: Literal["group", "layer"] = "layer",
        bias: bool = False,
        initial: Literal["random", "mel"] = "random",
        feature_gradient: float = 1.0,
        positions: Positions | None = None,
        dropout: float = 0.0,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(positions, dropout, prefix)
        self.convolutions = [tuple(layer) for layer in convolutions]
        self.frame_norm, self.bias, self.initial = norm, bias, initial
        self.feature_gradient = feature_gradient
        self.feature_dim = self.convolutions[-1][0]

    def num_tokens(self, shape: Sequence[int]) -> int:
        """Frames of a waveform of `shape` (samples,)."""
        (length,) = shape
        for _, kernel, stride in self.convolutions:
            length = max((length - kernel) // stride + 1, 0)
        return length

    def setup_frames(self, rate: int) -> None:
        """Make the convolutions; their strides are in samples, whatever the rate."""
        layers: list[ConvolutionLayer] = []
        channels_in = 1
        for index, (channels, kernel, stride) in enumerate(self.convolutions):
            norm = self.frame_norm if self.frame_norm == "layer" or index == 0 else None
            layers.append(ConvolutionLayer(channels_in, channels, kernel, stride, self.bias, norm))
            channels_in = channels
        if self.initial == "mel":
            start_as_filter_bank([layer.conv.weight for layer in layers], rate)
        self.layers = nn.ModuleList(layers)
        self.feature_norm = nn.LayerNorm(channels_in)

    def frames(self, waveforms: Sequence[Tensor]) -> Frames:
        """`features` `(S, F)` with gradients, and `energy` `(S,)`."""
        raw = torch.cat(by_length(self.convolve, waveforms))
        if self.feature_gradient != 1.0:
            raw = ScaledGradient.apply(raw, self.feature_gradient)
        return Frames(self.feature_norm(raw), energy=raw.square().mean(1))

    def convolve(self, waveforms: Tensor) -> Tensor:
        """`(n, T)` -> `(n, L, F)`, utterances of one length."""
        x = waveforms.unsqueeze(1)
        for layer in self.layers:
            x = layer(x)
        return x.transpose(1, 2)
