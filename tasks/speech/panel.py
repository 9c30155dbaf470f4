"""What the panel of speech says of a run: the contrastive task and the letters probe, with baselines.

Shapes: M masked frames, G codebooks, V codes of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...objectives.masked_contrastive import MaskedContrastive
from ...objectives.objective import Read
from ...objectives.quantiser import code_share, perplexity
from ...tokenizers.errors import UserError
from ..curves import read_history
from ..data import seeded
from ..model import Model
from ..panel import Picture, Row
from ..run import Run
from .data import Audio
from .features import Array, durations, encoded, mfcc
from .hours import curves, draw_hours, hours_of_epoch
from .picture import draw, listen
from .probe import Score, groups, letters, score

if TYPE_CHECKING:
    import pandas as pd

OWN, UNTRAINED = "this run", "untrained encoder"
#: Fewest clips with a text that the letters are asked of, for each language.
FEWEST = 50


@dataclass(frozen=True)
class Contrasts:
    """The contrastive task over a whole split.

    Attributes:
        right: of the M masked frames, how many were told from their negatives.
        frames: M.
        chance: mean of 1 / distinct candidates.
        share: perplexity of the codes used, over all G V codes; None without a quantiser.
    """

    right: int
    frames: int
    chance: float
    share: float | None

    @property
    def accuracy(self) -> float:
        """Share of the masked frames that were told right."""
        return self.right / self.frames


def measure(run: Run) -> list[Row]:
    """The letters of the transcripts from frozen features, and the contrastive task where that was learnt.

    Raises:
        UserError: the run's data is not audio.
    """
    data = audio(run)
    untrained = run.untrained()
    rows: list[Row] = []
    for system, model in ((OWN, run.model), (UNTRAINED, untrained)):
        member = objective(model)
        if member is not None:
            rows += _contrast_rows(system, contrasts(model, member, data))
    if "text" in data.table:
        for language, clips in _by_language(data.table):
            rows += _probe_rows(language, clips, data, run.model, untrained)
    return [*rows, *voice_rows(data)]


def audio(run: Run) -> Audio:
    """The run's data module. Raises UserError if it does not read audio."""
    data = run.data()
    if not isinstance(data, Audio):
        raise UserError(f"expected a run trained on audio, but its data is {type(data).__name__}")
    return data


def objective(model: Model) -> MaskedContrastive | None:
    """The masked contrastive objective of a model, also inside another one."""
    found = (member for member in model.objective.modules() if isinstance(member, MaskedContrastive))
    return next(found, None)


@torch.no_grad()
def contrasts(model: Model, member: MaskedContrastive, data: Audio) -> Contrasts:
    """The contrastive task over the test split, in evaluation mode, with the masks of epoch 0."""
    read, own = Read(member.view), member.view.rpartition(".")[2]  # joint data call it MEMBER.VIEW
    right, candidates, codes = [], [], []
    with seeded("contrasts"):  # negatives are drawn
        for batch in data.test_dataloader():
            tokens = model.encode({member.view: batch[own]}, [read])[read].content()
            contrast, quantised = member.contrast(tokens)
            right.append(contrast.right)
            candidates.append(contrast.candidates)
            codes += [] if quantised is None else [quantised.codes]
    hits, chance = torch.cat(right), torch.cat(candidates).float().reciprocal().mean()
    share = None
    if member.quantiser is not None:
        size = member.quantiser.codes
        share = float(perplexity(code_share(torch.cat(codes), size)).mean()) / size
    return Contrasts(int(hits.sum()), len(hits), float(chance), share)


def _contrast_rows(system: str, found: Contrasts) -> list[Row]:
    baseline = system != OWN
    half = 1.96 * (found.accuracy * (1 - found.accuracy) / found.frames) ** 0.5
    ratio, chance = found.accuracy / found.chance, found.chance
    used = [] if found.share is None else [found.share]
    return [
        Row(
            system,
            "contrastive accuracy",
            found.accuracy,
            found.accuracy - half,
            found.accuracy + half,
            baseline,
        ),
        Row(f"chance, codes of {system}", "contrastive accuracy", chance),
        Row(system, "accuracy / chance", ratio, ratio - half / chance, ratio + half / chance, baseline),
        *(Row(system, "code perplexity / codes", share, baseline=baseline) for share in used),
    ]


def _by_language(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The clips with a text, by language; all together where none is given."""
    spoken = table[table["text"] != ""]
    if "language" not in spoken:
        return [("", spoken)]
    return [(str(language), clips) for language, clips in spoken.groupby("language")]


def _probe_rows(
    language: str, clips: pd.DataFrame, data: Audio, trained: Model, untrained: Model
) -> list[Row]:
    """Macro AUC of the letters for one language; every clip is heard whole."""
    if len(clips) < FEWEST:
        return []
    _, present = letters(list(clips["text"]))
    if not present.size:
        return []
    group = groups(clips)
    metric = f"letters in the transcript, AUC{f' ({language})' if language else ''}"
    return [
        _row(system, metric, score(x, present, group), not system.startswith(OWN))
        for system, x in probe_features(clips, data, trained, untrained).items()
    ]


def voice_rows(data: Audio) -> list[Row]:
    """A sanity line: what mean MFCC alone tell of the voices, which an encoder need not have learnt."""
    column, table = data.columns.voice, data.table
    heard = table[table["split"] != "val"]
    if column not in table or heard.groupby("split")[column].nunique().min() < 2:
        return []
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = mfcc([data.clips[index] for index in heard.index], data.rate)
    x, voice, test = x[:, : x.shape[1] // 2], heard[column].to_numpy(), (heard["split"] == "test").to_numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[~test], voice[~test])
    told = float(probe.score(x[test], voice[test]))
    return [
        Row("mean MFCC, no model", f"sanity: {column} told right (each is one voice)", told, baseline=True)
    ]


def probe_features(
    clips: pd.DataFrame, data: Audio, trained: Model, untrained: Model
) -> dict[str, list[Array]]:
    """Features of the clips by system: the input, the middle and the end of an encoder, or a baseline."""
    waveforms = [data.clips[index] for index in clips.index]
    seconds = durations(waveforms, data.rate)
    layers = (0, trained.encoder.depth // 2, -1)
    systems = {
        "clip duration": [seconds],
        "MFCC + duration": [np.hstack([mfcc(waveforms, data.rate), seconds])],
    }
    for system, model in ((UNTRAINED, untrained), (OWN, trained)):
        found = list(encoded(model, waveforms, layers).values())
        systems |= {system: found, f"{system} + duration": [np.hstack([x, seconds]) for x in found]}
    return systems


def _row(system: str, metric: str, found: Score, baseline: bool) -> Row:
    half = 1.96 * float(np.std(found.splits, ddof=1)) / len(found.splits) ** 0.5
    return Row(system, metric, found.mean, found.mean - half, found.mean + half, baseline)


def pictures(run: Run) -> dict[str, Picture]:
    """How each picture of a run is drawn, by its file's name; all are of the contrastive task."""
    return {} if objective(run.model) is None else {"panel.png": picture, "hours.png": by_hours}


def by_hours(run: Run, path: Path) -> str:
    """Draw the contrastive task by hours of audio heard; returns the caption.

    Raises:
        UserError: the run has logged no epoch.
    """
    found = curves(read_history(run.directory), hours_of_epoch(audio(run)))
    if not found:
        raise UserError(f"expected a run with logged epochs, but {str(run.directory)!r} has none")
    draw_hours(found, path)
    return (
        "Accuracy of the contrastive task by hours of audio heard, beside published runs of the base model "
        "on other data, with 100 negatives (Vaessen and van Leeuwen 2024)."
    )


def picture(run: Run, path: Path) -> str:
    """Draw a few held-out clips end to end: spectrogram, what was masked, the codes; returns the caption."""
    data, member = audio(run), objective(run.model)
    if member is None:
        raise UserError("expected a run with the objective MaskedContrastive, but it has none")
    heard = listen(run.model, member, data)
    draw(heard, path)
    return (
        f"Held-out clips of one voice. Of the {int(heard.masked.sum())} frames hidden from the encoder, "
        f"{int(heard.right.sum())} were told from up to {heard.negatives} others of the same recording by "
        f"what surrounds them{'' if not heard.sizes else '; codes of like colour stand for like spectra'}. "
        "One recording of one voice shows how it works, not how well."
    )
