"""Waveform -> stacked log-mel frames.

Shapes: n utterances of one length, T samples, S packed tokens, P = stack * mels values of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .audio import AudioFrames, Frames, Positions, by_length

#: Added to the mel energies before the logarithm; about the floor of 16-bit audio.
FLOOR = 1e-6


class LogMelFrames(AudioFrames):
    """Log-mel frames, normalised, stacked and projected (BEST-RQ, BigSSL).

    The `source` and the `features` of a token are its normalised log-mel frames.

    Args:
        mels: mel bands.
        window: of the Hann window, in samples; 400 is 25 ms at 16 kHz.
        hop: samples from one frame to the next, before stacking.
        stack: consecutive frames that make one token; a rest shorter than that is dropped.
        normalise: `utterance` gives each band mean 0 and deviation 1 over the utterance;
            `global` takes `mean` and `deviation` as they are.
        mean, deviation: of the log-mel energies, for `global`.
        positions: the positional convolution.
        dropout: on the projected frames, and on the placed ones.
        prefix: names of the learnt tokens before each utterance.
    """

    def __init__(
        self,
        mels: int = 80,
        window: int = 400,
        hop: int = 160,
        stack: int = 2,
        normalise: Literal["utterance", "global"] = "utterance",
        mean: float = -5.0,
        deviation: float = 4.0,
        positions: Positions | None = None,
        dropout: float = 0.0,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(positions, dropout, prefix)
        self.mels, self.window, self.hop, self.stack = mels, window, hop, stack
        self.normalise, self.mean, self.deviation = normalise, mean, deviation
        self.source_dim = self.feature_dim = mels * stack

    def num_tokens(self, shape: Sequence[int]) -> int:
        """Tokens of a waveform of `shape` (samples,)."""
        (length,) = shape
        return max((length - self.window) // self.hop + 1, 0) // self.stack

    def setup_frames(self, rate: int) -> None:
        """Make the mel filters for `rate` Hz."""
        from torchaudio.transforms import MelSpectrogram

        self.spectrogram = MelSpectrogram(
            sample_rate=rate,
            n_fft=self.window,
            hop_length=self.hop,
            n_mels=self.mels,
            center=False,  # no padding: the number of frames is that of whole windows
            norm="slaney",
            mel_scale="slaney",
        )

    def frames(self, waveforms: Sequence[Tensor]) -> Frames:
        """`source` and `features`, both `(S, P)`, without gradients."""
        frames = torch.cat(by_length(self.log_mel, waveforms))
        return Frames(features=frames, source=frames)

    @torch.no_grad()
    def log_mel(self, waveforms: Tensor) -> Tensor:
        """`(n, T)` -> `(n, L, P)`, utterances of one length."""
        energies = self.spectrogram(waveforms).transpose(1, 2)
        frames = (energies + FLOOR).log()
        if self.normalise == "utterance":
            deviation, mean = torch.std_mean(frames, dim=1, keepdim=True, correction=0)
            frames = (frames - mean) / (deviation + 1e-5)
        else:
            frames = (frames - self.mean) / self.deviation
        whole = frames[:, : frames.shape[1] // self.stack * self.stack]
        return whole.unflatten(1, (-1, self.stack)).flatten(2)
