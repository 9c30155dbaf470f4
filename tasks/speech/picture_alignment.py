"""The picture of an alignment: spectrograms with their words and letters where they are said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from .decode import Transcript
from .picture import mel_spectrogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Columns of the spectrogram in a second.
COLUMNS = 100


def draw_alignment(clips: Sequence[tuple[Tensor, Transcript]], rate: int, path: Path) -> None:
    """One strip a clip, to a common scale of time, as a PNG.

    Args:
        clips: waveform `(T,)` and aligned text of each.
        rate: Hz.
        path: of the file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(clips), 1, figsize=(14, 2.4 * len(clips)), sharex=True, squeeze=False, layout="constrained"
    )
    for axis, (waveform, told) in zip(axes[:, 0], clips, strict=True):
        _draw_clip(axis, waveform, told, rate)
    axes[-1, 0].set_xlim(0, max(len(waveform) for waveform, _ in clips) / rate)
    axes[-1, 0].set_xlabel("seconds")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_clip(axis: Axes, waveform: Tensor, told: Transcript, rate: int) -> None:
    seconds = len(waveform) / rate
    spectrum = mel_spectrogram(waveform, rate, max(round(seconds * COLUMNS), 1))
    axis.imshow(spectrum.numpy(), aspect="auto", origin="lower", extent=(0, seconds, 0, 1), cmap="magma")
    for word in told.words:
        axis.axvspan(word.start, word.end, fill=False, edgecolor="white", linewidth=1.2)
        middle = (word.start + word.end) / 2
        axis.text(middle, 1.03, word.text, ha="center", fontsize=11, transform=axis.get_xaxis_transform())
    for letter in told.letters:
        middle = (letter.start + letter.end) / 2
        axis.text(middle, 0.04, letter.text, ha="center", fontsize=9, color="white")
    axis.set_yticks([])
    axis.set_ylabel("mel bands")
