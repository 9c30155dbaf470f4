"""`triptych evaluate abx` and `evaluate units`: what each layer tells of phones whose times are known.

Shapes: L frames of one clip, S frames of all clips, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...tokenizers.errors import UserError
from ...tokenizers.tokenizer import Tokenizer
from ..data import generator
from ..panel import Row
from ..run import Run, load
from ..table import print_rows, record
from .abx import Item, abx
from .clock import Clock
from .data import Audio
from .features import framewise
from .phones import Phones, read_phones
from .purity import agreement, resampled
from .segments import MODALITY
from .units import mfcc_features


@dataclass(frozen=True)
class Reading:
    """One kind of frames of the clips whose phones are known.

    Attributes:
        system: whose frames.
        baseline: whether it is another's than the run's.
        clock: of the frames.
        frames: `(L, D)` of each clip.
    """

    system: str
    baseline: bool
    clock: Clock
    frames: list[Tensor]


@dataclass(frozen=True)
class Said:
    """Clips with known phones: rows of the data's table, and the phones of all files."""

    data: Audio
    phones: Phones
    clips: list[int]

    def spans(self, clip: int, reading: Reading, place: int) -> list[tuple[str, int, int]]:
        """(label, first frame, one past the last) of the phones of `clip`, the `place`-th of the clips."""
        row = self.data.table.loc[clip].to_dict()
        return self.phones.spans(row["path"], row["start"], reading.clock, len(reading.frames[place]))


def said(run: Run, overrides: Mapping[str, Any], phones: str, tier: str, splits: Sequence[str]) -> Said:
    """The clips of some splits whose phones are known.

    Raises:
        UserError: the run does not read audio, or no clip has phones.
    """
    data, known = run.data(overrides), read_phones(phones, tier)
    if not isinstance(data, Audio):
        raise UserError(f"expected a run trained on audio, but its data is {type(data).__name__}")
    chosen = data.table[data.table["split"].isin(splits)]
    clips = [int(str(index)) for index, path in chosen["path"].items() if known.of(path)]
    if not clips:
        raise UserError(
            f"expected {phones!r} to hold the phones of the data, but no {splits[-1]} clip has any"
        )
    return Said(data, known, clips)


def readings(run: Run, heard: Said) -> Iterator[Reading]:
    """Frames of every layer of the run and of an untrained encoder (0 is their input), then MFCC."""
    waveforms = [heard.data.clips[clip] for clip in heard.clips]
    tokenizer = run.model.tokenizers[MODALITY]
    assert isinstance(tokenizer, Tokenizer)
    clock = Clock.of(tokenizer, heard.data.rate)
    layers = range(run.model.encoder.depth + 1)
    for system, model in (("this run", run.model), ("untrained encoder", run.untrained())):
        for layer, frames in framewise(model, waveforms, layers).items():
            yield Reading(f"{system}, layer {layer}", model is not run.model, clock, frames)
    features, clock = mfcc_features(heard.data.rate)
    fits = [wave if len(wave) >= clock.window else _longer(wave, clock.window) for wave in waveforms]
    yield Reading("MFCC with slopes", True, clock, [features(wave) for wave in fits])


def abx_command(
    run: str,
    overrides: Mapping[str, Any],
    phones: str,
    tier: str = "phones",
    items: int = 5,
    json: str | None = None,
) -> list[Row]:
    """ABX error of every layer on the test clips, within and across voices; chance is .5.

    Args:
        run: the run directory.
        overrides: other data, as `{"data.path": "DIR"}`.
        phones: a table or a folder of TextGrids.
        tier: of the TextGrids.
        items: of one phone of one voice, drawn at random where there are more.
        json: file for the figures.
    """
    opened = load(run)
    heard = said(opened, overrides, phones, tier, ("test",))
    rows = []
    for reading in readings(opened, heard):
        told = list(drawn_items(heard, reading, items))
        for name, across in (("within", False), ("across", True)):
            error = abx(told, across)
            if error is not None:
                metric = f"ABX error {name} voices"
                rows.append(Row(reading.system, metric, error.mean, error.low, error.high, reading.baseline))
    if not rows:
        raise UserError(
            "ABX needs two phones, one of them said twice by a voice, but the test clips have none"
        )
    rows.sort(key=lambda row: row.metric, reverse=True)
    print_rows(f"ABX of phones in any context, {run}", rows)
    record(opened.directory, "ABX", rows, json)
    return rows


def drawn_items(heard: Said, reading: Reading, most: int) -> Iterator[Item]:
    """At most so many items of each phone of each voice, the same ones for every layer of one clock."""
    table, voice = heard.data.table, heard.data.columns.voice
    cells: dict[tuple[str, str], list[Item]] = {}
    for place, clip in enumerate(heard.clips):
        of_clip = str(table.loc[clip, voice]) if voice in table else ""
        for label, first, last in heard.spans(clip, reading, place):
            item = Item(label, of_clip, reading.frames[place][first:last])
            cells.setdefault((of_clip, label), []).append(item)
    for (of_voice, label), found in sorted(cells.items()):
        order = torch.randperm(len(found), generator=generator(0, "abx", of_voice, label)).tolist()
        yield from (found[index] for index in order[:most])


def units_command(
    run: str,
    overrides: Mapping[str, Any],
    phones: str,
    tier: str = "phones",
    clusters: int = 100,
    json: str | None = None,
) -> list[Row]:
    """PNMI and purities of k-means units of every layer: made of the train clips, asked of the test clips.

    Args:
        run: the run directory.
        overrides: other data, as `{"data.path": "DIR"}`.
        phones: a table or a folder of TextGrids.
        tier: of the TextGrids.
        clusters: number of units.
        json: file for the figures.
    """
    opened = load(run)
    heard = said(opened, overrides, phones, tier, ("train", "test"))
    test = (heard.data.table.loc[heard.clips, "split"] == "test").to_numpy()
    if test.all() or not test.any():
        raise UserError(
            "units are made of the train clips and asked of the test clips: both must have phones"
        )
    rows: list[Row] = []
    for reading in readings(opened, heard):
        rows += _unit_rows(heard, reading, test, clusters)
    rows.sort(key=lambda row: row.metric)
    print_rows(f"{clusters} units of each layer against phones, {run}", rows)
    record(opened.directory, "units", rows, json)
    return rows


def _unit_rows(heard: Said, reading: Reading, test: NDArray[np.bool_], clusters: int) -> list[Row]:
    from sklearn.cluster import MiniBatchKMeans

    train = torch.cat([x for x, held in zip(reading.frames, test, strict=True) if not held]).double().numpy()
    if len(train) < clusters:
        raise UserError(f"expected at least as many frames as units, {clusters}, but there are {len(train)}")
    model = MiniBatchKMeans(clusters, n_init=3, batch_size=4096, random_state=0).fit(train)
    phones, units = [], []
    for place in np.flatnonzero(test):
        of_clip = model.predict(reading.frames[place].double().numpy())
        for label, first, last in heard.spans(heard.clips[place], reading, int(place)):
            phones.append((place, label, last - first))
            units.append(of_clip[first:last])
    numbers = {label: number for number, label in enumerate(sorted({label for _, label, _ in phones}))}
    of_frames = [np.full(count, numbers[label], dtype=np.int64) for _, label, count in phones]
    owners = np.array([place for place, _, _ in phones])
    clips = [np.flatnonzero(owners == place) for place in np.unique(owners)]
    one, other = ([np.concatenate([side[i] for i in clip]) for clip in clips] for side in (of_frames, units))
    found = agreement(np.concatenate(one), np.concatenate(other))
    low, high = resampled(one, other)
    names = ("PNMI", "phone purity", "unit purity")
    values = (found.pnmi, found.phone_purity, found.unit_purity)
    return [
        Row(reading.system, name, value, float(low[i]), float(high[i]), reading.baseline)
        for i, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def _longer(waveform: Tensor, length: int) -> Tensor:
    """With silence behind, where a clip is shorter than one window of MFCC."""
    return torch.nn.functional.pad(waveform, (0, length - len(waveform)))
