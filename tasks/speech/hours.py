"""The contrastive task by hours of audio heard, beside published runs: is this curve what it should be?"""

from __future__ import annotations

from pathlib import Path

from ..evaluation.judge import History
from .data import Audio
from .sampling import seconds_of_epoch
from .views import AudioSamples

#: Updates at which the published accuracies were taken.
UPDATES = (10_000, 50_000, 100_000, 400_000)
#: Validation accuracy of wav2vec 2.0 base on LibriSpeech by seconds of audio in a batch, at those updates
#: (Vaessen and van Leeuwen 2024, arXiv 2402.13723); 100 negatives, so that chance is .01.
PUBLISHED = {
    87.5: (0.163, 0.276, 0.306, 0.390),
    150.0: (0.161, 0.307, 0.340, 0.427),
    300.0: (0.212, 0.339, 0.380, 0.463),
    600.0: (0.234, 0.379, 0.423, 0.502),
    1200.0: (0.263, 0.421, 0.463, 0.529),
    2400.0: (0.308, 0.480, 0.513, 0.554),
    4800.0: (0.322, 0.506, 0.536, 0.563),
}
COLOURS = {"train": "#2f6fde", "val": "#d9641a"}

#: By stage, (hours, accuracy) and (hours, chance) of each epoch.
Curves = dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]]


def hours_of_epoch(data: Audio) -> float:
    """Hours of audio in one epoch of training; as expected where languages or corpora are tempered."""
    samples = data.samples("train")
    assert isinstance(samples, AudioSamples)
    lengths = [length / data.rate for length in samples.waveforms.lengths]
    return seconds_of_epoch(data.order(samples), lengths) / 3600


def curves(history: History, hours: float) -> Curves:
    """Accuracy and chance of the contrastive task by hours heard at the end of each epoch.

    Args:
        history: figures by epoch.
        hours: of an epoch.
    """
    found: Curves = {}
    for epoch, figures in history:
        for name, value in figures.items():
            stage, _, rest = name.partition("/")
            chance = figures.get(f"{name.removesuffix('accuracy')}chance")
            if stage not in COLOURS or not rest.endswith("/accuracy") or chance is None:
                continue
            right, by_chance = found.setdefault(stage, ([], []))
            right.append(((epoch + 1) * hours, value))
            by_chance.append(((epoch + 1) * hours, chance))
    return found


def draw_hours(found: Curves, path: Path) -> None:
    """The curves on a logarithmic axis of hours, published ones in grey beside them; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 4.2), dpi=110, layout="constrained")
    for number, (seconds, accuracies) in enumerate(PUBLISHED.items()):
        hours = [updates * seconds / 3600 for updates in UPDATES]
        label = None if number else "wav2vec 2.0 base, LibriSpeech, batches of 87.5 s to 80 min"
        axis.plot(hours, accuracies, color="#b0b0b0", marker=".", linewidth=1, label=label)
    for stage, (right, by_chance) in found.items():
        axis.plot(*zip(*right, strict=True), color=COLOURS[stage], marker=".", label=f"this run, {stage}")
        axis.plot(*zip(*by_chance, strict=True), color=COLOURS[stage], linestyle=":", linewidth=1)
    axis.set(xscale="log", xlabel="hours of audio heard", ylabel="contrastive accuracy (dotted: chance)")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    figure.savefig(path, facecolor="white")
    plt.close(figure)
