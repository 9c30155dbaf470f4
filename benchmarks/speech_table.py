"""Every speech objective in one table: one encoder, the same minutes, the letters probe and the phone probe.

    python benchmarks/speech_table.py run [--only hubert] [--seeds 0] [--minutes 3] [--data FOLDER]
    python benchmarks/speech_table.py tables [--data FOLDER]

`run` trains what is not in the folder yet on the shipped prompts, one config after another, and keeps each
run with its figures there, so that it may be interrupted and the table grow over days; `tables` writes
results/speech_table.json. A config's steps are as many as fit into so many processor minutes of one thread,
from a short run that is timed first. Letters: the panel's probe on the shipped prompts. Phones: ABX of every
layer on Italian sentences of six espeak-ng voices, and PNMI of 100 units, made of sentences by six other
voices (`speech_data.py` makes them). In every probe the untrained encoder of the same shape and MFCC stand
beside. UniSpeech reads the texts of its training clips, so its letters are no fair comparison: it is marked.
A run takes 6 to 8 processor minutes at 3 minutes of training.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from record import write
from runs import figures, keep, known
from speech_data import FOLDER, prepare
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import load
from triptych.tasks.speech.panel import measure
from triptych.tasks.speech.phone_command import abx_command, units_command

PACKAGES = ("torchaudio", "lightning", "scikit-learn", "numpy", "soundfile")
CONFIGS = ("wav2vec2-mel", "bestrq", "hubert", "data2vec", "wav2vec2", "bigssl", "unispeech", "xlsr", "wavlm")
#: Configs that read the texts of their training clips.
TAUGHT = ("unispeech",)
#: Steps of the two short runs whose difference is timed.
SHORT = (5, 25)
#: Sentences of the units' training part.
SENTENCES = 90


def phone_manifest(folder: Path) -> Path:
    """Italian sentences: `test` by the voices that are in no training clip, `train` by the others."""
    import pandas as pd

    path = folder / "table_phones.csv"
    if not path.is_file():
        table = pd.read_csv(folder / "synthetic.csv", dtype=str, keep_default_na=False)
        table = table[table["language"] == "it"]
        train = table[table["part"] == "train"].head(SENTENCES)
        pd.concat([train, table[table["part"] == "unheard"]]).to_csv(path, index=False)
    return path


def steps_within(config: str, minutes: float, own: Mapping[str, Any] | None = None) -> int:
    """Steps of a config, with overrides of one's own, that take so many processor minutes."""
    spent = []
    for steps in SHORT:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.process_time()
            short = {**(own or {}), **length(steps), "trainer.limit_val_batches": 0}
            fit(merge([config], short), output=f"{folder}/run")
            spent.append(time.process_time() - begun)
    each = (spent[1] - spent[0]) / (SHORT[1] - SHORT[0])
    return max(round(60 * minutes / each), 1)


def length(steps: int) -> dict[str, Any]:
    """Overrides that make a run so many steps long."""
    return {"trainer.max_steps": steps, "trainer.max_epochs": 1000, "trainer.enable_progress_bar": False}


def run(name: str, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Train and judge one config, unless that was done in as many minutes; returns its record."""
    path, output = folder / "results" / f"table-{name}-{seed}.json", folder / "runs" / f"table-{name}-{seed}"
    asked = {"config": f"speech/{name}", "seed": seed, "minutes": minutes}
    if (done := known(path, asked)) is not None:
        return done
    shutil.rmtree(output, ignore_errors=True)  # of other minutes, or interrupted
    steps = steps_within(asked["config"], minutes)
    wall, processor = time.monotonic(), time.process_time()
    fit(merge([asked["config"]], {**length(steps), "seed": seed}), output=str(output))
    cost = {
        "minutes": (time.monotonic() - wall) / 60,
        "processor_minutes": (time.process_time() - processor) / 60,
        "steps": steps,
    }
    trained = load(output)
    parameters = sum(p.numel() for p in trained.model.encoder.parameters())
    letters = [row for row in measure(trained) if row.metric.startswith("letters")]
    phones = str(folder / "phones.csv")
    data = {"data.path": str(phone_manifest(folder)), "data.columns.voice": "speaker"}
    told = abx_command(str(output), data, phones) + units_command(str(output), data, phones)
    record = {"asked": asked, "encoder_parameters": parameters, **cost, "rows": figures([*letters, *told])}
    return keep(path, record)


def tables(folder: Path) -> Path:
    """Write what there is: each config's rows over its seeds, and the best layer of each."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in CONFIGS:
        for path in sorted((folder / "results").glob(f"table-{name}-[0-9]*.json")):
            found[name].append(json.loads(path.read_text(encoding="utf-8")))
    return write(
        "speech_table", {"configs": [summary(name, seeds) for name, seeds in found.items()]}, PACKAGES
    )


def summary(name: str, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cost and figures of a config: mean over the seeds of every row."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in seeds:
        for row in one["rows"]:
            values[row["metric"], row["system"]].append(row["value"])
    rows = [
        {"metric": m, "system": s, "mean": fmean(v), "deviation": stdev(v) if len(v) > 1 else None, "each": v}
        for (m, s), v in values.items()
    ]
    costs = ("minutes", "processor_minutes", "steps", "encoder_parameters")
    return {
        "config": f"speech/{name}",
        "reads texts": name in TAUGHT,
        "seeds": [one["asked"]["seed"] for one in seeds],
        **{what: fmean(one[what] for one in seeds) for what in costs},
        "best": best(rows),
        "rows": rows,
    }


def best(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each metric: the best layer of the run, of the untrained encoder, and what needs no encoder."""
    told: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        kind, _, layer = row["system"].partition(", ")
        sign = -1 if row["metric"].startswith("ABX") else 1
        leading = told[row["metric"]].get(kind)
        if leading is None or sign * row["mean"] > sign * leading["mean"]:
            told[row["metric"]][kind] = {"mean": row["mean"], "layer": layer}
    return dict(told)


def show(record: Mapping[str, Any]) -> None:
    """Print the best of one run's rows."""
    cost = f"{record['processor_minutes']:.1f} processor minutes, {record['steps']} steps"
    print(f"{record['asked']['config']}, seed {record['asked']['seed']} ({cost})", flush=True)
    rows = [{**row, "mean": row["value"]} for row in record["rows"]]
    for metric, systems in best(rows).items():
        told = ", ".join(f"{system} {of['mean']:.3f} {of['layer']}".strip() for system, of in systems.items())
        print(f"    {metric}: {told}", flush=True)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--only", nargs="+", choices=CONFIGS, default=CONFIGS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, of one thread's processor")
    parser.add_argument("--data", type=Path, default=FOLDER)
    asked = parser.parse_args()
    folder = asked.data.expanduser()
    if asked.what == "run":
        prepare(folder)
        for seed in asked.seeds:
            for name in asked.only:
                show(run(name, seed, asked.minutes, folder))
    print(f"written to {tables(folder)}")


if __name__ == "__main__":
    main()
