"""`triptych transcribe` and `triptych align`: words with their times, from a run trained with CTC."""

from __future__ import annotations

import json as jsonlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...objectives.ctc import edits
from ...tokenizers.errors import UserError
from ..panel import Row
from ..run import Run, load, write_json
from ..table import print_rows, record
from .check import write_table
from .clips import Clips
from .data import Audio
from .decode import Decoder, Span, Transcript, align, beam_decoder, greedy_decoder
from .emissions import Listener
from .manifest import MANIFESTS
from .picture_alignment import draw_alignment
from .text import normalise
from .textgrid import write_textgrid

if TYPE_CHECKING:
    import pandas as pd

#: Resamplings of the utterances for an interval.
RESAMPLED = 1000
#: Most clips in the picture of an alignment.
DRAWN = 4


def recordings(run: Run, listener: Listener, paths: Sequence[str]) -> tuple[Clips, list[int]]:
    """The clips that paths name, or the test part of the run's own data where none is named."""
    if paths:
        clips = listener.clips(paths)
        return clips, list(range(len(clips)))
    data = run.data()
    assert isinstance(data, Audio)
    return data.clips, data.indices("test")


def transcribe(
    listener: Listener, clips: Clips, indices: Sequence[int], decoder: Decoder | None = None
) -> pd.DataFrame:
    """One row a clip: its place, `text`, `confidence`, `words`, and the manifest's own text as `reference`.

    As a manifest the rows are of the train part, unless theirs is known: what a machine has written down may
    be learnt from, and is nothing to measure by.

    Args:
        listener: the run's head.
        clips: recordings.
        indices: of those to transcribe.
        decoder: greedy unless given.

    Raises:
        UserError: none of the recordings can be decoded.
    """
    import pandas as pd

    decoder = decoder or greedy_decoder(listener.alphabet, listener.clock)
    rows = []
    for index, emissions in listener.emissions(clips, indices):
        if index in clips.failed:
            continue
        row, found = clips.table.iloc[index], decoder(emissions)
        rows.append(
            {
                "path": row["path"],
                "start": row["start"],
                "end": row["start"] + row["seconds"],
                "text": found.text,
                "confidence": round(found.confidence, 4),
                "split": row.get("split") or "train",
                "words": jsonlib.dumps([_listed(w, row["start"]) for w in found.words], ensure_ascii=False),
                **({"reference": row["text"]} if "text" in row else {}),
            }
        )
    if not rows:
        raise UserError("expected recordings to transcribe, but none of them can be decoded")
    return pd.DataFrame(rows)


def _listed(word: Span, start: float) -> list[Any]:
    return [word.text, round(start + word.start, 3), round(start + word.end, 3), round(word.confidence, 3)]


def error_rates(references: Sequence[str], texts: Sequence[str]) -> list[Row]:
    """Word and character error rates by jiwer, over the normalised references that are not empty.

    The 95 % intervals resample the utterances.
    """
    import jiwer

    pairs = [(normalise(one), other) for one, other in zip(references, texts, strict=True)]
    pairs = [pair for pair in pairs if pair[0]]
    if not pairs:
        return []
    given, said = (list(column) for column in zip(*pairs, strict=True))
    rows = []
    for metric, rate, split in (("WER", jiwer.wer, str.split), ("CER", jiwer.cer, list)):
        wrong = np.array(
            [edits(_numbers(split(a), split(b)), _numbers(split(b), split(a))) for a, b in pairs]
        )
        size = np.array([len(split(a)) for a in given])
        drawn = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLED, len(pairs)))
        low, high = np.quantile(wrong[drawn].sum(1) / size[drawn].sum(1), (0.025, 0.975))
        rows.append(Row("this run", metric, float(rate(given, said)), float(low), float(high), False))
    return rows


def _numbers(tokens: Sequence[str], others: Sequence[str]) -> list[int]:
    place = {token: index for index, token in enumerate(sorted({*tokens, *others}))}
    return [place[token] for token in tokens]


def transcribe_command(
    run: str,
    paths: Sequence[str],
    output: str | None = None,
    chunk: float = 30.0,
    beam: int | None = None,
    lm: str | None = None,
    lm_weight: float = 2.0,
    json: str | None = None,
) -> None:
    """Transcribe into a manifest, or onto the terminal; error rates where the manifest has texts."""
    from rich.console import Console

    if output is not None and Path(output).suffix.lower() not in MANIFESTS:
        raise UserError(f"expected --output to end in {', '.join(MANIFESTS)}, but got {output!r}")
    loaded = load(run)
    listener = Listener(loaded, chunk)
    decoder = None
    if beam is not None or lm is not None:
        decoder = beam_decoder(listener.alphabet, listener.clock, beam or 50, lm, lm_weight)
    clips, indices = recordings(loaded, listener, paths)
    table = transcribe(listener, clips, indices, decoder)
    console = Console(soft_wrap=True)
    if output is None:
        for path, text in zip(table["path"], table["text"], strict=True):
            console.print(f"{shown(path, Path.cwd())}\t{text}", markup=False, highlight=False)
    else:
        home = Path(output).absolute().parent
        write_table(table.assign(path=[shown(path, home) for path in table["path"]]), Path(output))
        console.print(f"{len(table)} transcripts in {output}", highlight=False)
    told(console, clips.set_aside)
    rows = error_rates(list(table["reference"]), list(table["text"])) if "reference" in table else []
    if rows:
        print_rows(f"transcripts against the manifest's texts, {run}", rows)
        record(loaded.directory, "transcribe", rows)
    if json is not None:
        found = {"transcripts": len(table), "set_aside": clips.set_aside}
        write_json(Path(json), {"run": run, **found, "transcribe": [asdict(row) for row in rows]})


def align_texts(
    listener: Listener, clips: Clips, indices: Sequence[int]
) -> tuple[dict[int, Transcript], dict[str, str]]:
    """The clips' texts with their times, and by name why a clip has none."""
    aligned: dict[int, Transcript] = {}
    aside = dict(clips.set_aside)
    for index, emissions in listener.emissions(clips, indices):
        row = clips.table.iloc[index]
        try:
            text = normalise(row["text"])
            aligned[index] = align(emissions, text, listener.alphabet, listener.clock)
        except UserError as error:
            aside[str(row["name"])] = str(error)
    return aligned, aside


def align_command(
    run: str,
    paths: Sequence[str],
    output: str = "alignment",
    plot: str | None = None,
    json: str | None = None,
) -> None:
    """Write `words.csv` and a TextGrid for each audio file into a folder; `plot` draws the first few clips.

    All times are seconds of the file. A TextGrid is called as its file is.

    Raises:
        UserError: the manifest has no texts, or none can be aligned.
    """
    import pandas as pd
    from rich.console import Console

    loaded = load(run)
    listener = Listener(loaded)
    clips, indices = recordings(loaded, listener, paths)
    if "text" not in clips.table:
        raise UserError("expected --data.path to name a manifest with a column `text`, but it has none")
    aligned, aside = align_texts(listener, clips, indices)
    if not aligned:
        name, reason = next(iter(aside.items()))
        raise UserError(f"none of the {len(indices)} texts can be aligned, the first being {name}: {reason}")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    grids, words = dict[str, list[Transcript]](), []
    names = grid_names(sorted({os.path.abspath(path) for path in clips.table["path"]}))
    for index, found in aligned.items():
        row = clips.table.iloc[index]
        path, said = os.path.abspath(row["path"]), later(found, row["start"])
        grids.setdefault(path, []).append(said)
        place = {"path": shown(path, folder.absolute()), "textgrid": names[path]}
        words += [{**place, **asdict(word)} for word in said.words]
    for path, parts in grids.items():
        write_grid(folder / names[path], path, parts)
    pd.DataFrame(words).round(4).to_csv(folder / "words.csv", index=False)
    if plot is not None:
        drawn = [(clips[index], found) for index, found in list(aligned.items())[:DRAWN]]
        draw_alignment(drawn, clips.rate, Path(plot))
    console = Console(soft_wrap=True)
    console.print(f"{len(words)} words of {len(aligned)} clips in {folder / 'words.csv'}", highlight=False)
    told(console, aside)
    if json is not None:
        write_json(Path(json), {"clips": len(aligned), "words": len(words), "set_aside": aside})


def grid_names(paths: Sequence[str]) -> dict[str, str]:
    """The TextGrid of each audio file: its path in the folder that holds them all, its ending replaced.

    Where two files would have one TextGrid, both keep their endings before the new one.

    Args:
        paths: absolute, each once.
    """
    home = os.path.commonpath([os.path.dirname(path) for path in paths])
    whole = {path: Path(path).relative_to(home) for path in paths}
    bare = {path: name.with_suffix("") for path, name in whole.items()}
    shared = {name for name, count in Counter(bare.values()).items() if count > 1}
    return {
        path: f"{(whole[path] if name in shared else name).as_posix()}.TextGrid"
        for path, name in bare.items()
    }


def later(found: Transcript, seconds: float) -> Transcript:
    """A transcript whose times count from so many seconds earlier."""
    letters, words = (
        tuple(replace(span, start=span.start + seconds, end=span.end + seconds) for span in spans)
        for spans in (found.letters, found.words)
    )
    return Transcript(letters, words)


def write_grid(path: Path, audio: str, parts: Sequence[Transcript]) -> None:
    """Write the TextGrid of a whole audio file, empty between its parts; what two say is the first's."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    tiers = {
        "words": [word for part in parts for word in part.words],
        "letters": [letter for part in parts for letter in part.letters],
    }
    in_order = {name: sorted(spans, key=lambda span: span.start) for name, spans in tiers.items()}
    write_textgrid(path, soundfile.info(audio).duration, in_order)


def shown(path: str, home: Path) -> str:
    """A path relative to `home` where it lies under it, else whole."""
    whole = Path(os.path.abspath(path))
    return str(whole.relative_to(home)) if whole.is_relative_to(home) else str(whole)


def told(console: Any, aside: dict[str, str]) -> None:
    """Name what was set aside."""
    if aside:
        console.print(f"{len(aside)} set aside:", highlight=False)
    for name, reason in list(aside.items())[:10]:
        console.print(f"  {name}: {reason}", markup=False, highlight=False)
