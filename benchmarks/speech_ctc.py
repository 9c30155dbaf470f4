"""CTC on synthetic speech: letters, words and where each word begins and ends.

    python benchmarks/speech_ctc.py [--config speech/bigssl-ctc] [--seeds 1 2 3] [--data FOLDER]

2.5 hours said by espeak-ng in four languages, which `speech_data.py` makes where they are missing. A seed
that is in the folder already is not trained again. On new sentences by the voices of the training part, and
by six that are in no training clip: CER and WER as `triptych transcribe` gives them, greedy, and by beam
search over the words of the training texts and how often each comes (`--beam 50 --lm`); and how far the
words' boundaries from `triptych align` are from the synthesis's own times, a word lasting from its first
phone to its last. Goals, for known voices: CER under 3 %, and 40 ms at the median of all boundaries. Writes
results/speech_ctc.json after every seed. A seed takes 50 processor minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import log10
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import record
from speech_data import FOLDER, prepare
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import load, update_json
from triptych.tasks.speech.data import Audio
from triptych.tasks.speech.decode import beam_decoder
from triptych.tasks.speech.emissions import Listener
from triptych.tasks.speech.transcribe import align_texts, error_rates, transcribe

PACKAGES = ("torchaudio", "lightning", "jiwer", "numpy", "soundfile")
CER, MEDIAN = 0.03, 0.04
KNOWN = "heard"
#: Of the beam search: paths kept, and the language model's weight, as `triptych transcribe` has them.
BEAM, WEIGHT = 50, 2.0


def trained(config: str, seed: int, folder: Path) -> Path:
    """The run of a config and seed; its cost is in its metrics.json."""
    directory = folder / "runs" / f"{config.replace('/', '-')}-{seed}"
    if (directory / "metrics.json").is_file():
        return directory
    shutil.rmtree(directory, ignore_errors=True)  # was interrupted
    overrides = {
        "seed": seed,
        "data.path": str(folder / "synthetic.csv"),
        "trainer.enable_progress_bar": False,
    }
    wall, processor, load_before = time.monotonic(), time.process_time(), os.getloadavg()[0]
    fit(merge([config], overrides), output=str(directory))
    wall, processor = (time.monotonic() - wall) / 60, (time.process_time() - processor) / 60
    cost = {"minutes": wall, "processor_minutes": processor, "load_before": load_before}
    update_json(directory / "metrics.json", {"cost": cost})
    return directory


def measure(directory: Path, folder: Path) -> dict[str, Any]:
    """Error rates and boundaries of a run, by part and by language."""
    run = load(directory)
    data, listener = run.data(), Listener(run)
    assert isinstance(data, Audio)
    table, times = data.table, known_times(folder)
    words = unigrams(table.loc[table["part"] == "train", "text"], folder / "unigrams.arpa")
    search = beam_decoder(listener.alphabet, listener.clock, BEAM, str(words), WEIGHT)
    found: dict[str, Any] = {}
    for part in (KNOWN, "unheard"):
        indices = [int(index) for index in table.index[table["part"] == part]]
        said = transcribe(listener, data.clips, indices)
        language = table.loc[indices, "language"].to_numpy()
        rows = {"all": said} | {name: said[language == name] for name in sorted(set(language))}
        rates = {name: rate(rows[name]) for name in rows}
        rates["all, with a language model"] = rate(transcribe(listener, data.clips, indices, search))
        aligned, aside = align_texts(listener, data.clips, indices)
        gaps = np.array(
            [gap for index, one in aligned.items() for gap in differences(table.loc[index], one, times)]
        )
        found[part] = {
            "clips": len(indices),
            "rates": rates,
            "boundaries": spread(gaps),
            "set_aside": len(aside),
        }
    return found


def rate(rows: Any) -> dict[str, Any]:
    """CER and WER with their intervals over the utterances."""
    figures = error_rates(list(rows["reference"]), list(rows["text"]))
    return {row.metric: {"value": row.value, "low": row.low, "high": row.high} for row in figures}


def unigrams(texts: Iterable[str], path: Path) -> Path:
    """An ARPA file of the words of texts by their counts, and of the one pair that KenLM asks for."""
    counts = Counter(word for text in texts for word in text.split())
    total = sum(counts.values())
    lines = [f"{log10(count / total):.5f}\t{word}\t0" for word, count in sorted(counts.items())]
    head = ["\\data\\", f"ngram 1={3 + len(lines)}", "ngram 2=1", "", "\\1-grams:"]
    marks = ["-9\t<unk>", "0\t<s>\t0", "-1\t</s>"]
    pairs = ["", "\\2-grams:", "-1\t<s> </s>", "", "\\end\\", ""]
    path.write_text("\n".join(head + marks + lines + pairs), encoding="utf-8")
    return path


def known_times(folder: Path) -> dict[str, list[tuple[str, float, float]]]:
    """The words of each file with their exact times, by absolute path."""
    import pandas as pd

    times: dict[str, list[tuple[str, float, float]]] = {}
    for row in pd.read_csv(folder / "spoken.csv", keep_default_na=False).itertuples():
        times.setdefault(str(folder / str(row.path)), []).append(
            (str(row.word), float(row.start), float(row.end))
        )
    return times


def differences(row: Mapping[str, Any], found: Any, times: Mapping[str, Any]) -> Iterator[float]:
    """Seconds by which each boundary of a clip is late; none where its exact times are not known."""
    exact = times.get(row["path"], [])
    if [word.text for word in found.words] == [word for word, _, _ in exact]:
        for word, (_, start, end) in zip(found.words, exact, strict=True):
            yield from (word.start - start, word.end - end)


def spread(late: np.ndarray) -> dict[str, float]:
    """In seconds: the median distance, the 90th percentile, the median lateness of starts and of ends."""
    return {
        "boundaries": len(late),
        "median": float(np.median(abs(late))),
        "90 %": float(np.quantile(abs(late), 0.9)),
        "within 40 ms": float((abs(late) <= MEDIAN).mean()),
        "starts late by": float(np.median(late[::2])),
        "ends late by": float(np.median(late[1::2])),
    }


def goals(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each goal, and whether the mean of the seeds meets it."""
    cer = fmean(run["parts"][KNOWN]["rates"]["all"]["CER"]["value"] for run in runs)
    median = fmean(run["parts"][KNOWN]["boundaries"]["median"] for run in runs)
    return {
        "CER": {"goal": CER, "reached": cer, "met": cer < CER},
        "median boundary, seconds": {"goal": MEDIAN, "reached": median, "met": median <= MEDIAN},
    }


def main() -> None:
    """Read the command line, train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="speech/bigssl-ctc")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data", type=Path, default=FOLDER)
    asked = parser.parse_args()
    folder = prepare(asked.data)
    runs: list[dict[str, Any]] = []
    for seed in asked.seeds:
        directory = trained(asked.config, seed, folder)
        cost = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))["cost"]
        runs.append({"seed": seed, **cost, "parts": measure(directory, folder)})
        print(f"seed {seed}: {runs[-1]}", flush=True)
        found = {"config": asked.config, "goals": goals(runs), "runs": runs}
        print(f"written to {record.write('speech_ctc', found, PACKAGES)}", flush=True)


if __name__ == "__main__":
    main()
