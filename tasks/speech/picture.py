"""The picture of a speech run: a spectrogram, what was masked, what the codes do, and who was right.

Shapes: T samples, L frames, M masked frames, G codebooks, V codes of each, C mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...objectives.masked_contrastive import MaskedContrastive
from ...objectives.objective import Read
from ...tokenizers.view import View
from ..data import generator, seeded
from ..model import Model
from .data import Audio
from .masks import SpanMask
from .segments import MODALITY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Seconds of audio shown, and of the shortest clip whose text has room above it.
SECONDS, SHORTEST = 5.0, 1.2
#: Letters that fit into the whole width above the spectrogram.
LETTERS = 130


@dataclass(frozen=True)
class Heard:
    """A few clips laid end to end, and what a model made of them.

    Attributes:
        waveform: `(T,)`.
        rate: Hz.
        clips: (second at which it starts, transcript) of each clip.
        masked: `(L,)` bool.
        right: `(M,)` bool, whether each masked frame was told from its negatives.
        codes: `(L, G)`, each ranked by the pitch of the frames it stands for; G is 0 without a quantiser.
        sizes: V, then 0.
        negatives: most negatives a frame was told from.
    """

    waveform: Tensor
    rate: int
    clips: list[tuple[float, str]]
    masked: Tensor
    right: Tensor
    codes: Tensor
    sizes: int
    negatives: int


@torch.no_grad()
def listen(model: Model, member: MaskedContrastive, data: Audio) -> Heard:
    """Let the model hear the first clips of the test split that are of one voice, masked as in training."""
    waveform, clips = _first_clips(data)
    frames = data.tokenizers[MODALITY].num_tokens(waveform.shape)
    mask = data.declared[member.view].mask or SpanMask()
    masked = mask.draw(frames, generator("picture"))
    read = Read(member.view)
    view = View(MODALITY, [waveform], masked=masked)
    tokens = model.encode({member.view: view}, [read])[read].content()
    with seeded("picture"):
        contrast, _ = member.contrast(tokens)
    assert tokens.features is not None
    ranked, size = torch.empty(frames, 0, dtype=torch.long), 0
    if member.quantiser is not None:
        codes, size = member.quantiser(tokens.features, 1.0).codes, member.quantiser.codes
        ranked = by_pitch(codes, mel_spectrogram(waveform, data.rate, frames), size)
    negatives = min(member.negatives, len(contrast.right) - 1)
    return Heard(waveform, data.rate, clips, masked, contrast.right, ranked, size, negatives)


def _first_clips(data: Audio) -> tuple[Tensor, list[tuple[float, str]]]:
    """Clips of the first voice of the test split, until there are `SECONDS`."""
    table = data.table.loc[data.indices("test")]
    if data.columns.voice in table:
        table = table[table[data.columns.voice] == table[data.columns.voice].iloc[0]]
    table = table[table["seconds"] >= min(SHORTEST, table["seconds"].max())]
    pieces: list[Tensor] = []
    clips: list[tuple[float, str]] = []
    length = 0
    for index, row in table.iterrows():
        clips.append((length / data.rate, str(row.get("text", ""))))
        pieces.append(data.clips[int(str(index))])
        length += len(pieces[-1])
        if length >= SECONDS * data.rate:
            break
    return torch.cat(pieces), clips


def mel_spectrogram(waveform: Tensor, rate: int, frames: int, mels: int = 64) -> Tensor:
    """Decibels below the loudest, `(C, L)`: the columns that fall on the L frames."""
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    hop = len(waveform) // max(frames, 1)
    transform = MelSpectrogram(rate, n_fft=512, win_length=round(0.025 * rate), hop_length=hop, n_mels=mels)
    decibels = AmplitudeToDB(top_db=60)(transform(waveform))[:, :frames]
    return decibels - decibels.max()


def by_pitch(codes: Tensor, spectrum: Tensor, count: int) -> Tensor:
    """Renumber the codes `(L, G)` of each codebook by the mean centre of gravity of their frames' spectra."""
    power = 10 ** (spectrum / 20)
    centre = (power * torch.arange(len(power)).unsqueeze(1)).sum(0) / power.sum(0)
    ranked = torch.empty_like(codes)
    for book, column in enumerate(codes.T):
        total = torch.zeros(count).index_add(0, column, centre)
        mean = total / torch.bincount(column, minlength=count)
        rank = torch.empty(count, dtype=torch.long)
        rank[mean.nan_to_num(nan=float("inf")).argsort()] = torch.arange(count)
        used = int((mean == mean).sum())
        ranked[:, book] = rank[column] * count // max(used, 1)
    return ranked


def draw(heard: Heard, path: Path) -> None:
    """The spectrogram with what was hidden, who was right, and one strip a codebook, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    books = heard.codes.shape[1]
    figure, axes = plt.subplots(
        2 + books,
        1,
        figsize=(14, 5.6 + 0.45 * books),
        sharex=True,
        gridspec_kw={"height_ratios": [7, 0.7, *[0.7] * books], "hspace": 0.12},
        layout="constrained",
    )
    length = len(heard.waveform) / heard.rate
    _draw_spectrogram(axes[0], heard, length)
    _draw_answers(axes[1], heard, length)
    for book, axis in enumerate(axes[2:]):
        strip = heard.codes[:, book].numpy()[np.newaxis]
        axis.imshow(
            strip, aspect="auto", extent=(0, length, 0, 1), cmap="turbo", vmin=0, vmax=heard.sizes - 1,
            interpolation="nearest",
        )  # fmt: skip
        _label(axis, f"codebook {book + 1}")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_spectrogram(axis: Axes, heard: Heard, length: float) -> None:
    spectrum = mel_spectrogram(heard.waveform, heard.rate, len(heard.masked))
    axis.imshow(spectrum.numpy(), aspect="auto", origin="lower", extent=(0, length, 0, 1), cmap="magma")
    scale = length / len(heard.masked)
    for start, stop in runs(heard.masked):
        axis.axvspan(start * scale, stop * scale, facecolor="white", alpha=0.62, linewidth=0)
    starts = [second for second, _ in heard.clips]
    for index, ((second, text), ends) in enumerate(zip(heard.clips, [*starts[1:], length], strict=True)):
        if index:
            axis.axvline(second, color="white", linewidth=1.5)
        axis.text(
            second + 0.01,
            1.03,
            shortened(text, (ends - second) / length),
            fontsize=11,
            transform=axis.get_xaxis_transform(),
        )
    axis.set_ylabel("mel bands")
    axis.set_yticks([])
    hidden = float(heard.masked.float().mean())
    axis.set_title(
        f"{hidden:.0%} of the frames are hidden from the encoder (veiled)", loc="left", fontsize=13, pad=28
    )


def shortened(text: str, share: float) -> str:
    """A quoted text, cut to fit above a clip that takes `share` of the picture's width."""
    fits = int(share * LETTERS)
    if not text or fits < 4:
        return ""
    return f"“{text}”" if len(text) + 2 <= fits else f"“{text[: fits - 3].rstrip()}…”"


def _draw_answers(axis: Axes, heard: Heard, length: float) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    answers = torch.zeros(len(heard.masked), dtype=torch.long)
    answers[heard.masked] = 1 + heard.right.long()
    colours = ("#e8e8ea", "#d1495b", "#1b998b")
    axis.imshow(
        answers.numpy()[np.newaxis], aspect="auto", extent=(0, length, 0, 1), cmap=ListedColormap(colours),
        vmin=0, vmax=2, interpolation="nearest",
    )  # fmt: skip
    _label(axis, "hidden frames")
    share = float(heard.right.float().mean())
    names = ("seen", "told wrong", f"told right from up to {heard.negatives} others ({share:.0%})")
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    axis.figure.legend(handles=handles, loc="upper right", ncols=3, frameon=False, fontsize=11)


def _label(axis: Axes, text: str) -> None:
    axis.set_yticks([])
    axis.set_ylabel(text, rotation=0, ha="right", va="center")
    for side in axis.spines.values():
        side.set_visible(False)


def runs(masked: Tensor) -> list[tuple[int, int]]:
    """(first, one past the last) of each stretch of True."""
    edges = torch.nn.functional.pad(masked.int(), (1, 1)).diff()
    return list(
        zip(
            (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist(), strict=True
        )
    )
