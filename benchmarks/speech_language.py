"""Which language does a voice speak that was never heard? Trained on one corpus, asked of another.

    python benchmarks/speech_language.py [--run RUN ...] [--data FOLDER]

Spanish, French and Russian: names of stamps (tuxpaint) and telephone prompts (asterisk), each way; a corpus
has one or a few voices of each language, so what tells the voices apart is no help in the other. Mean and
deviation over time of a run's middle layer, of the untrained encoder's and of MFCC, into a logistic
regression with classes of equal weight; balanced accuracy, chance .333. Also on a held-out fifth of the
same corpus: there the voice gives the language away, a sanity line. RUN is any speech run; a run of
`speech/wav2vec2-mel` on the shipped prompts is made where none is named. Writes results/speech_language.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray
from speech_data import FOLDER, prepare
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import Run, load
from triptych.tasks.speech.clips import Clips
from triptych.tasks.speech.features import encoded, mfcc
from triptych.tasks.speech.manifest import read_clips, split_by_hash

PACKAGES = ("torchaudio", "lightning", "scikit-learn", "numpy", "soundfile")
CONFIG, LANGUAGES, CORPORA = "speech/wav2vec2-mel", ("es", "fr", "ru"), ("tuxpaint", "asterisk")
#: Clips of a language and corpus, and the longest, in seconds.
MOST, LONGEST = 400, 10.0
Array = NDArray[np.float64]


def clips(folder: Path, corpus: str, rate: int) -> Clips:
    """Up to 400 clips a language of .3 to 10 seconds, drawn at random."""
    table = read_clips(str(folder / f"{corpus}.csv"))
    table = table[table["language"].isin(LANGUAGES)]
    fits = Clips(table, rate, lambda samples: samples >= 0.3 * rate, LONGEST, tolerance=1.0).table
    whole = fits[(fits["start"] == 0.0) & (fits["seconds"] < LONGEST)]
    drawn = whole.groupby("language").sample(frac=1, random_state=0).groupby("language").head(MOST)
    return Clips(drawn.drop(columns="seconds"), rate, bool, LONGEST)


def features(run: Run, waves: list[Any], rate: int) -> Iterator[tuple[str, Array]]:
    """By system."""
    middle = run.model.encoder.depth // 2
    yield "MFCC", mfcc(waves, rate)
    for system, model in (("this run", run.model), ("untrained", run.untrained())):
        yield system, encoded(model, waves, (middle,))[middle]


def told(x: Array, y: Array, test_x: Array, test_y: Array) -> dict[str, float]:
    """Balanced accuracy of a logistic regression, with its interval over the test clips."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced")
    )
    said = probe.fit(x, y).predict(test_x)
    right = [said[test_y == name] == name for name in LANGUAGES]  # resampled within each language
    random = np.random.default_rng(0)
    draws = [random.choice(of, (1000, len(of))).mean(1) for of in right]
    low, high = np.quantile(np.mean(draws, 0), (0.025, 0.975))
    value = float(balanced_accuracy_score(test_y, said))
    return {"balanced accuracy": value, "low": float(low), "high": float(high)}


def measure(run: Run, folder: Path) -> dict[str, Any]:
    """Both ways across corpora, and within each."""
    assert run.model.spec is not None
    rate = run.model.spec.data["audio"]["rate"]
    of = {corpus: clips(folder, corpus, rate) for corpus in CORPORA}
    waves = {corpus: [found[index] for index in range(len(found))] for corpus, found in of.items()}
    language = {corpus: found.table["language"].to_numpy() for corpus, found in of.items()}
    held = {
        corpus: np.array(split_by_hash(list(found.table["name"]), 0.0, 0.2)) == "test"
        for corpus, found in of.items()
    }
    by_corpus = {corpus: dict(features(run, waves[corpus], rate)) for corpus in CORPORA}
    figures: dict[str, Any] = {}
    for one, other in (CORPORA, CORPORA[::-1]):
        for system, x in by_corpus[one].items():
            across = told(x, language[one], by_corpus[other][system], language[other])
            figures.setdefault(f"train {one}, test {other}", {})[system] = across
            train, test = ~held[one], held[one]
            within = told(x[train], language[one][train], x[test], language[one][test])
            figures.setdefault(f"sanity: voices of {one} that were heard", {})[system] = within
    return figures


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="*", default=[], help="run directories")
    parser.add_argument("--data", type=Path, default=FOLDER)
    asked = parser.parse_args()
    folder = prepare(asked.data)
    directories = [Path(one) for one in asked.run] or [folder / "runs" / "language"]
    if not asked.run and not (directories[0] / "metrics.json").is_file():
        fit(merge([CONFIG], {"trainer.enable_progress_bar": False}), output=str(directories[0]))
    runs = []
    for directory in directories:
        runs.append({"run": directory.name, "figures": measure(load(directory), folder)})
        for where, systems in runs[-1]["figures"].items():
            values = (f"{system} {of['balanced accuracy']:.3f}" for system, of in systems.items())
            print(f"{directory.name}, {where}: {', '.join(values)}", flush=True)
        path = record.write("speech_language", {"chance": 1 / len(LANGUAGES), "runs": runs}, PACKAGES)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
