"""Is the nearest word of another voice the same word? Frozen layers beside time-warped MFCC.

    python benchmarks/speech_words.py [--config speech/bestrq speech/bigssl-ctc] [--data FOLDER]

120 words in four languages, each said by 12 espeak-ng voices at rates and pitches of their own; none is in a
sentence of training (`speech_data.py`). Each word of the six voices that were never heard looks for itself
among the 120 of each of the six that were (R@1, 36 pairs of voices): by the angle of the mean frame, and by
the time-warped angle of the frames (Sakoe and Chiba 1978), by which MFCC are compared too. Frames of every
system have mean 0 and deviation 1 over each voice; MFCC as they are stand beside. The layer is chosen on
pairs of heard voices. `speech/bigssl-ctc` is the run of `speech_ctc.py`, which reads the texts of sentences
by the heard voices; others are those of `speech_table.py`, which hear prompts and none of these voices.
Beside each run an untrained encoder of its shape. Writes results/speech_words.json. 15 processor minutes
where the runs are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import record
import speech_ctc
import speech_table
import torch
from speech_data import FOLDER, HEARD, UNHEARD, prepare
from torch import Tensor
from triptych.tasks.model import Model
from triptych.tasks.run import Run, load
from triptych.tasks.speech.abx import pairwise_distances
from triptych.tasks.speech.clips import Clips
from triptych.tasks.speech.features import framewise
from triptych.tasks.speech.manifest import read_clips
from triptych.tasks.speech.units import mfcc_features

PACKAGES = ("torchaudio", "lightning", "numpy", "soundfile")
#: Of `speech_table.py`'s trainings.
MINUTES = 3.0
#: Configs that read the texts of the heard voices' sentences.
READ_TEXTS = ("speech/bigssl-ctc",)
#: MFCC frames (every 10 ms) taken: one in so many.
THIN = 3
#: Pairs of voices, the one that asks first: to measure, and to choose a layer.
TEST = tuple(product(UNHEARD, HEARD))
CHOICE = ((HEARD[0], HEARD[4]), (HEARD[5], HEARD[1]))
Voices = Mapping[str, Sequence[Tensor]]
Distance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def trained(config: str, folder: Path) -> Run:
    """The run of a config in `speech_ctc.py` or `speech_table.py`, in the folder or made now."""
    if config in READ_TEXTS:
        return load(speech_ctc.trained(config, 1, folder))
    name = config.removeprefix("speech/")
    directory = folder / "runs" / f"table-{name}-0"
    if not (directory / "metrics.json").is_file():
        speech_table.run(name, 0, MINUTES, folder)
    return load(directory)


def words(folder: Path, rate: int) -> dict[str, list[Tensor]]:
    """The waveforms of every voice, in one order of the words."""
    clips = Clips(read_clips(str(folder / "words.csv")), rate, bool, 30.0)
    by_voice: dict[str, list[Tensor]] = {}
    for index, voice in enumerate(clips.table["speaker"]):
        by_voice.setdefault(voice, []).append(clips[index])
    return by_voice


def layers(model: Model, said: Voices) -> dict[int, dict[str, list[Tensor]]]:
    """Each layer's frames of every voice's words, standardised."""
    depths = range(model.encoder.depth + 1)
    found = {voice: framewise(model, waves, depths) for voice, waves in said.items()}
    return {
        layer: standardised({voice: frames[layer] for voice, frames in found.items()}) for layer in depths
    }


def standardised(frames: Voices) -> dict[str, list[Tensor]]:
    """Mean 0 and deviation 1 of every feature over all frames of a voice."""
    told = {}
    for voice, of_words in frames.items():
        deviation, mean = torch.std_mean(torch.cat(list(of_words)), dim=0)
        told[voice] = [(x - mean) / (deviation + 1e-5) for x in of_words]
    return told


def mean_angle(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """`(n, n')`: 1 less the cosine of the mean frames."""
    left, right = (
        torch.nn.functional.normalize(torch.stack([x.mean(0) for x in side])) for side in (one, other)
    )
    return 1 - left @ right.T


def first(frames: Voices, pairs: Sequence[tuple[str, str]], distance: Distance) -> list[float]:
    """R@1 of each pair of voices."""
    told = []
    for asking, asked in pairs:
        nearest = distance(frames[asking], frames[asked]).argmin(1)
        told.append(float((nearest == torch.arange(len(nearest))).double().mean()))
    return told


def best(by_layer: Mapping[int, Voices], distance: Distance) -> dict[str, Any]:
    """R@1 of the layer that is best between heard voices."""
    scores = {layer: fmean(first(frames, CHOICE, distance)) for layer, frames in by_layer.items()}
    layer = max(scores, key=scores.__getitem__)
    return {"layer": layer, "between heard voices": scores, **figure(first(by_layer[layer], TEST, distance))}


def figure(each: Sequence[float]) -> dict[str, Any]:
    """Mean over the pairs of voices, and the 95 % interval from resampling them."""
    drawn = np.random.default_rng(0).choice(each, (1000, len(each))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"R@1": fmean(each), "low": float(low), "high": float(high), "each": list(each)}


def baselines(said: Voices, rate: int) -> dict[str, Any]:
    """MFCC with slopes: time-warped as they are and standardised, and their mean."""
    features, _ = mfcc_features(rate)
    frames = {voice: [features(wave)[::THIN] for wave in waves] for voice, waves in said.items()}
    even = standardised(frames)
    return {
        "MFCC as they are, time-warped": figure(first(frames, TEST, pairwise_distances)),
        "MFCC, time-warped": figure(first(even, TEST, pairwise_distances)),
        "MFCC, mean": figure(first(even, TEST, mean_angle)),
    }


def measure(run: Run, said: Voices) -> dict[str, Any]:
    """Both distances on the run's layers and on the untrained encoder's."""
    found = {}
    for name, model in (("this run", run.model), ("untrained", run.untrained())):
        by_layer = layers(model, said)
        found[f"{name}, mean"] = best(by_layer, mean_angle)
        found[f"{name}, time-warped"] = best(by_layer, pairwise_distances)
    return found


def rate_of(run: Run) -> int:
    """Hz that a run hears at."""
    assert run.model.spec is not None
    return int(run.model.spec.data["audio"]["rate"])


def main() -> None:
    """Read the command line, train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", nargs="+", default=["speech/bestrq", "speech/bigssl-ctc"])
    parser.add_argument("--data", type=Path, default=FOLDER)
    asked = parser.parse_args()
    folder = prepare(asked.data)
    found: dict[str, Any] = {}
    for config in asked.config:
        run = trained(config, folder)
        said = words(folder, rate_of(run))
        found[config] = measure(run, said)
        found.setdefault(f"MFCC at {rate_of(run)} Hz", baselines(said, rate_of(run)))
        for system, told in found[config].items():
            print(f"{config}, {system}: {told['R@1']:.3f}", flush=True)
    path = record.write("speech_words", {"systems": found}, PACKAGES)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
