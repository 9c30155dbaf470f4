"""What the tokenizers of audio share: utterances of any length, and convolutional positions.

Shapes: N utterances, S packed tokens, L tokens of one utterance, D width, F features, T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError
from .tokenizer import Embedded, Tokenizer
from .view import View


def by_length(function: Callable[[Tensor], Tensor], sequences: Sequence[Tensor]) -> list[Tensor]:
    """Apply `function` `(n, L, ...) -> (n, L', ...)` to sequences `(L_i, ...)`, those of one length together.

    No sequence is padded, so nothing that looks along time can see padding or a neighbour.
    """
    members: dict[int, list[int]] = {}
    for index, sequence in enumerate(sequences):
        members.setdefault(len(sequence), []).append(index)
    results: dict[int, Tensor] = {}
    for indices in members.values():
        results.update(
            zip(indices, function(torch.stack([sequences[i] for i in indices])).unbind(0), strict=True)
        )
    return [results[index] for index in range(len(sequences))]


class ConvolutionalPosition(nn.Module):
    """Relative positions by a wide grouped convolution, added (Baevski et al. 2020, section 2).

    The convolution's weight is normed along all but its taps (`weight_norm` of dimension 2), its
    output cut to the input's length where the kernel is even, then GELU.

    Args:
        width: D.
        kernel: taps, in tokens.
        groups: of channels; must divide `width`.
    """

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        if width % groups:
            raise UserError(
                f"groups of the positional convolution must divide the width {width}, but is {groups}"
            )
        convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(convolution.weight, std=(4 / (kernel * width)) ** 0.5)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        self.conv = nn.utils.parametrizations.weight_norm(convolution, name="weight", dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, L, D)` -> `(n, L, D)`, to be added."""
        return F.gelu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)


@dataclass(frozen=True)
class Frames:
    """What a waveform's frames are before projection: columns of `Embedded`, packed.

    `features` `(S, F)`; `source` `(S, P)` and `energy` `(S,)` where the tokenizer has them.
    """

    features: Tensor
    source: Tensor | None = None
    energy: Tensor | None = None


@dataclass
class Positions:
    """How an audio tokenizer places its tokens.

    Attributes:
        kernel: taps of the positional convolution, in tokens.
        groups: of its channels.
        norm: a layer norm after it, the companion of a post-norm encoder (wav2vec 2.0 base).
    """

    kernel: int = 128
    groups: int = 16
    norm: bool = False


class AudioFrames(Tokenizer):
    """A tokenizer of waveforms: subclasses write `setup_frames` and `frames`.

    Args:
        positions: the positional convolution.
        dropout: on the projected frames, and on the placed ones.
        prefix: names of the learnt tokens before each utterance.
    """

    def __init__(
        self, positions: Positions | None = None, dropout: float = 0.0, prefix: Sequence[str] = ()
    ) -> None:
        super().__init__(prefix)
        self.positions, self.dropout = positions or Positions(), dropout

    def setup(self, data: Mapping[str, Any]) -> None:
        """Make the frames' weights for the data's `rate` (Hz), the projection and the positions."""
        self.setup_frames(int(data["rate"]))
        assert self.feature_dim is not None
        self.project = nn.Linear(self.feature_dim, self.width)
        self.position = ConvolutionalPosition(self.width, self.positions.kernel, self.positions.groups)
        self.norm = nn.LayerNorm(self.width) if self.positions.norm else nn.Identity()
        self.drop = nn.Dropout(self.dropout)

    def setup_frames(self, rate: int) -> None:
        """Make the weights that turn samples at `rate` Hz into features; sets `feature_dim`."""
        raise TypeError(f"{type(self).__name__} must define setup_frames()")

    def frames(self, waveforms: Sequence[Tensor]) -> Frames:
        """Frames of waveforms `(T_i,)`."""
        raise TypeError(f"{type(self).__name__} must define frames()")

    def embed(self, view: View) -> Embedded:
        """Frames of each utterance, projected to the width.

        Raises:
            UserError: an utterance is shorter than one frame, or the view's mask was drawn for
                another number of frames.
        """
        lengths = tuple(self.num_tokens((len(waveform),)) for waveform in view.data)
        if min(lengths) < 1:
            shortest = min(len(waveform) for waveform in view.data)
            raise UserError(f"an utterance must hold at least one frame, but one has only {shortest} samples")
        if view.masked is not None and len(view.masked) != sum(lengths):
            raise UserError(
                f"the view's mask must be for {sum(lengths)} frames, but is for {len(view.masked)}"
            )
        frames = self.frames(list(view.data))
        source = frames.source
        if view.clean is not None and source is not None:  # what is told is not the noise
            source = self.frames(list(view.clean)).source
        time = torch.cat([torch.arange(length) for length in lengths]).to(frames.features.device)
        return Embedded(
            values=self.drop(self.project(frames.features)),
            lengths=lengths,
            position=F.pad(time.unsqueeze(1), (0, 2)),
            sample=tuple(range(len(lengths))),
            channel=(0,) * len(lengths),
            source=source,
            features=frames.features,
            energy=frames.energy,
        )

    def place(self, embedded: Embedded) -> Tensor:
        """Add the positional convolution, which stays inside each utterance."""
        positions = by_length(self.position, embedded.values.split(embedded.lengths))
        return self.drop(self.norm(embedded.values + torch.cat(positions)))
