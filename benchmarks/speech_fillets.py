"""CTC on spoken Dutch with few labels: does it help to have heard speech without texts before?

    python benchmarks/speech_fillets.py run [--labels 10] [--starts scratch bestrq] [--seeds 0]
    python benchmarks/speech_fillets.py tables [--data FOLDER]

The dialogues of Fish Fillets (`speech_data.py` has them): two voices, 91 minutes, split by text: 10 minutes
to test, 5 to validate, and 10, 30 or 70 minutes of labels, the smaller inside the larger. Pretrained on all
open audio (these dialogues without what is held out, asterisk's prompts in five languages, tuxpaint's names
in nine: 6 hours) with one Conformer, as many steps as fit into `--minutes` of one thread's processor. Then
CTC, as `speech/bigssl-ctc` has it: from each pretraining; from scratch in as many steps; and from scratch in
as many minutes in all (`scratch, longer`). Letters are judged greedily. A seed draws the masks, the order and
the fresh weights of CTC; there is one pretraining of each objective. `run` keeps each training in the folder,
so that it may be interrupted and grow; `tables` writes results/speech_fillets.json and the picture of its
curves. 2.5 processor hours a seed, and half an hour of pretraining.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import record
from runs import figures, keep, known
from speech_data import FOLDER, prepare
from speech_table import length, steps_within
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import load
from triptych.tasks.speech.clips import Clips
from triptych.tasks.speech.data import Audio
from triptych.tasks.speech.emissions import Listener
from triptych.tasks.speech.manifest import read_clips
from triptych.tasks.speech.text import normalise
from triptych.tasks.speech.transcribe import error_rates, transcribe
from triptych.tasks.speech.units import MFCC_CLUSTERS, make_units, mfcc_features

PACKAGES = ("torchaudio", "lightning", "jiwer", "numpy", "soundfile")
RATE = 8000
#: Minutes held out, and minutes of labels -> steps of CTC.
HELD_OUT = {"test": 10.0, "val": 5.0}
LABELS = {10: 1600, 30: 1600, 70: 1600}
#: The encoder of `speech/bigssl`, for the objectives of other configs.
ENCODER = {
    "model.tokenizers.audio.stack": 3,
    "model.encoder.final_norm": False,
    "model.encoder.block": {"feedforward": "silu", "convolution": 7, "rotary": 1},
}
#: Spans of 120 ms: minutes of training fill these, not the papers' 400 ms.
MASKS = {"data.views.train.mask": {"share": 0.5, "length": 4, "spans": 2}}
HUBERT = {"class_path": "triptych.objectives.masked_prediction.MaskedPrediction", "init_args": {"width": 64}}
#: Clusters of the MFCC of all open audio, made once.
UNITS = "open-units.parquet"
#: Objective -> packaged config, what makes it that objective on the encoder above.
PRETRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "bestrq": ("speech/bestrq", {}),
    "hubert": (
        "speech/bestrq",
        {"model.objectives.bestrq": None, "model.objectives.hubert": HUBERT, "data.units": UNITS},
    ),
    "wav2vec2": ("speech/wav2vec2-mel", {"data.segment": 6.0}),
}
STARTS = ("scratch", *PRETRAINED, "scratch, longer")
FINE_TUNED = {"trainer.check_val_every_n_epoch": 1000}


def manifests(folder: Path) -> None:
    """Write fillets-10.csv, fillets-30.csv, fillets-70.csv and open.csv, where they are missing."""
    import pandas as pd

    if (folder / "open.csv").is_file():
        return
    spoken = {name: usable(folder / f"{name}.csv") for name in ("fillets", "asterisk", "tuxpaint")}
    fillets = spoken["fillets"]
    fillets["words"] = [normalise(text) for text in fillets["text"]]
    fillets = fillets[fillets["words"] != ""]
    order = np.random.default_rng(0).permutation(sorted(set(fillets["words"])))
    seconds = fillets.groupby("words")["seconds"].sum()[order].cumsum() / 60
    held, test = sum(HELD_OUT.values()), HELD_OUT["test"]
    ends = fillets["words"].map(seconds)
    fillets["split"] = np.where(ends <= test, "test", np.where(ends <= held, "val", "train"))
    for minutes in LABELS:
        kept = fillets[(fillets["split"] != "train") | (ends <= held + minutes)]
        save(kept, folder / f"fillets-{minutes}.csv")
    heard = [fillets[fillets["split"] != "test"]]
    heard += [spoken[name].assign(split="train") for name in ("asterisk", "tuxpaint")]
    save(pd.concat(heard), folder / "open.csv")


def usable(path: Path) -> Any:
    """The clips of a manifest that can be read, of .3 to 15 seconds."""
    table = Clips(read_clips(str(path)), RATE, lambda n: n >= 0.3 * RATE, 15.0, tolerance=1.0).table
    table = table[(table["start"] == 0.0) & (table["seconds"] < 15.0)].copy()
    table["speaker"] = table["language"] + "-" + table.get("speaker", "")
    return table


def save(table: Any, path: Path) -> None:
    """What a manifest of whole files needs."""
    columns = ["path", "text", "language", "speaker", "split", "seconds"]
    table.reindex(columns=columns).fillna("").to_csv(path, index=False)


def units(folder: Path) -> Path:
    """What HuBERT is asked for at first (`data.units: mfcc` would make it anew in each run)."""
    path = folder / UNITS
    if not path.is_file():
        clips = Clips(read_clips(str(folder / "open.csv")), RATE, bool, 15.0)
        heard = [int(index) for index in clips.table.index[clips.table["split"] == "train"]]
        make_units(clips, heard, *mfcc_features(RATE), MFCC_CLUSTERS).write(path)
    return path


def pretrained(name: str, minutes: float, folder: Path) -> Path:
    """The run of an objective on all open audio; what was asked for and its cost are kept beside it."""
    directory = folder / "runs" / f"open-{name}-{minutes:g}"
    config, own = PRETRAINED[name]
    asked = {"config": config, "overrides": {**ENCODER, **MASKS, **own, "data.columns.voice": "speaker"}}
    if known(directory / "cost.json", asked) is not None:
        return directory
    shutil.rmtree(directory, ignore_errors=True)  # of other settings, or interrupted
    overrides = {**asked["overrides"], "data.path": str(folder / "open.csv")}
    if "data.units" in own:
        overrides["data.units"] = str(units(folder))
    steps = steps_within(config, minutes, overrides)
    begun = time.process_time()
    fit(merge([config], {**overrides, **length(steps)}), output=str(directory))
    spent = (time.process_time() - begun) / 60
    keep(directory / "cost.json", {"asked": asked, "steps": steps, "processor_minutes": spent})
    return directory


def settings(start: str, labels: int) -> dict[str, Any]:
    """What the trainings of one row have in common."""
    pretraining = {**ENCODER, **MASKS, "objective": PRETRAINED.get(start)}
    about = {"start": start, "labels": labels, "steps": LABELS[labels], "overrides": FINE_TUNED}
    return {**about, "pretrained": pretraining}


def tuned(start: str, labels: int, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Train CTC from a start and judge it on the test part; what was done before is not done again."""
    name = f"fillets-{start.replace(', ', '-')}-{labels}-{seed}"
    path, directory = folder / "results" / f"{name}.json", folder / "runs" / name
    pretraining = 0.0 if start == "scratch" else minutes
    asked = {**settings(start, labels), "seed": seed, "minutes": pretraining}
    if (done := known(path, asked)) is not None:
        return done
    shutil.rmtree(directory, ignore_errors=True)  # of other settings, or interrupted
    steps, init = LABELS[labels], None
    if start in PRETRAINED:
        init = str(pretrained(start, minutes, folder))
    elif start != "scratch":
        spent = tuned("scratch", labels, seed, minutes, folder)["processor_minutes"]
        steps = round(steps * (minutes + spent) / spent)
    data = {"data.path": str(folder / f"fillets-{labels}.csv"), "seed": seed}
    begun = time.process_time()
    fit(
        merge(["speech/bigssl-ctc"], {**FINE_TUNED, **data, **length(steps)}),
        output=str(directory),
        init=init,
    )
    spent = (time.process_time() - begun) / 60
    return keep(path, {"asked": asked, "steps": steps, "processor_minutes": spent, "rows": judged(directory)})


def judged(directory: Path) -> list[dict[str, Any]]:
    """Error rates of letters and words on the validation and the test part."""
    run = load(directory)
    data, listener = run.data(), Listener(run)
    assert isinstance(data, Audio)
    rows: list[dict[str, Any]] = []
    for part in ("val", "test"):
        said = transcribe(listener, data.clips, data.indices(part))
        found = figures(error_rates(list(said["reference"]), list(said["text"])))
        rows += [{**row, "system": part} for row in found]
    return rows


def rate(one: Mapping[str, Any], metric: str = "CER", part: str = "test") -> dict[str, float]:
    """One error rate of a record, with its interval over the clips."""
    return next(row for row in one["rows"] if (row["system"], row["metric"]) == (part, metric))


def tables(folder: Path) -> Path:
    """Write what there is of these settings, by minutes of labels and start, and draw it."""
    found = []
    for labels in LABELS:
        for start in STARTS:
            name = f"fillets-{start.replace(', ', '-')}-{labels}-[0-9]*.json"
            own = json.loads(json.dumps(settings(start, labels)))
            kept = [
                json.loads(p.read_text(encoding="utf-8")) for p in sorted((folder / "results").glob(name))
            ]
            if seeds := [one for one in kept if own.items() <= one["asked"].items()]:
                found.append({"labels": labels, "start": start, **summary(seeds)})
    path = record.write("speech_fillets", {"rows": found}, PACKAGES)
    draw(found, path.with_suffix(".png"))
    return path


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Each seed's rates, and what they have in common."""
    each = [rate(one) for one in seeds]
    return {
        "seeds": [one["asked"]["seed"] for one in seeds],
        "pretraining minutes": seeds[0]["asked"]["minutes"],
        "steps": fmean(one["steps"] for one in seeds),
        "processor_minutes": fmean(one["processor_minutes"] for one in seeds),
        "CER": [one["value"] for one in each],
        "low": [one["low"] for one in each],
        "high": [one["high"] for one in each],
        "WER": [rate(one, "WER")["value"] for one in seeds],
        "CER, validation": [rate(one, part="val")["value"] for one in seeds],
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Wrong letters by minutes of labels: a line a start, the mean over the seeds and each seed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for start in STARTS:
        own = [row for row in rows if row["start"] == start]
        if not own:
            continue
        labels, means = [row["labels"] for row in own], [fmean(row["CER"]) for row in own]
        (line,) = axes.plot(labels, means, marker="o", label=start)
        for row in own:
            axes.plot([row["labels"]] * len(row["CER"]), row["CER"], ".", color=line.get_color(), alpha=0.5)
    axes.set(xlabel="minutes with labels", ylabel="share of wrong letters, test", xscale="log")
    axes.set_xticks(list(LABELS), [str(minutes) for minutes in LABELS])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--labels", type=int, nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of pretraining")
    parser.add_argument("--data", type=Path, default=FOLDER)
    asked = parser.parse_args()
    folder = asked.data.expanduser()
    if asked.what == "run":
        prepare(folder)
        manifests(folder)
        for seed in asked.seeds:
            for labels in asked.labels:
                for start in asked.starts:
                    one = tuned(start, labels, seed, asked.minutes, folder)
                    cer = rate(one)
                    told = f"{one['steps']} steps, {one['processor_minutes']:.1f} processor minutes"
                    print(
                        f"{labels} minutes, {start}, seed {seed}: CER {cer['value']:.3f} ({told})", flush=True
                    )
    print(f"written to {tables(folder)}")


if __name__ == "__main__":
    main()
