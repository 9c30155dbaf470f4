"""What a config of wav2vec 2.0 reaches on the shipped prompts: the contrastive task and the letters probe.

    python benchmarks/speech_probe.py [--config speech/wav2vec2] [--seeds 1 2 3]

Trains one run a seed and takes every row of the speech panel: held-out contrastive accuracy, chance, their
ratio and the perplexity of the codes, beside an untrained encoder; macro AUC of the letters for each
language, beside clip duration, MFCC with duration, and the untrained encoder. Goals: the ratio at least 5
with a perplexity of at least .2 of the codes, and letters above all baselines. A run must take under
4 minutes on 2 quiet cores; its processor time stands beside, for machines that are not. Writes
results/speech_NAME.json after every seed. Takes about 5 minutes a seed on 2 quiet cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import record
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.panel import Row
from triptych.tasks.run import load
from triptych.tasks.speech.panel import OWN, measure

PACKAGES = ("torchaudio", "lightning", "scikit-learn", "numpy", "soundfile")
RATIO, SHARE = 5.0, 0.2


def run_once(config: str, seed: int) -> dict[str, Any]:
    """Train and measure one run: its rows, and what it cost."""
    overrides = {"seed": str(seed), "trainer.enable_progress_bar": "false"}
    with tempfile.TemporaryDirectory() as folder:
        load_before, began, processor = os.getloadavg()[0], time.monotonic(), time.process_time()
        directory = fit(merge([config], overrides), output=f"{folder}/run")
        minutes, processor = (time.monotonic() - began) / 60, (time.process_time() - processor) / 60
        rows = measure(load(directory))
    return {
        "seed": seed,
        "minutes": minutes,
        "processor_minutes": processor,
        "load_before": load_before,
        "rows": [figures(row) for row in rows],
    }


def figures(row: Row) -> dict[str, Any]:
    """One row of the panel as plain values."""
    return {
        "system": row.system,
        "metric": row.metric,
        "value": row.value,
        "low": row.low,
        "high": row.high,
        "baseline": row.baseline,
    }


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and each seed's value of every row; rows keep their order in the panel."""
    summary = []
    for index, row in enumerate(runs[0]["rows"]):
        values = [run["rows"][index]["value"] for run in runs]
        summary.append(
            {
                "system": row["system"],
                "metric": row["metric"],
                "baseline": row["baseline"],
                "mean": statistics.fmean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
                "each": values,
            }
        )
    return summary


def goals(summary: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each goal, and whether it was met on the mean of the seeds."""
    own = {row["metric"]: row["mean"] for row in summary if row["system"] == OWN}
    probes = {metric for metric in own if metric.startswith("letters")}
    letters = {}
    for metric in sorted(probes):
        rows = [row for row in summary if row["metric"] == metric]
        best = max(row["mean"] for row in rows if not row["baseline"])
        strongest = max((row for row in rows if row["baseline"]), key=lambda row: row["mean"])
        letters[metric] = {
            "reached": best,
            "strongest baseline": strongest["system"],
            "its figure": strongest["mean"],
            "met": best > strongest["mean"],
        }
    ratio, share = own["accuracy / chance"], own["code perplexity / codes"]
    slowest = max(run["minutes"] for run in runs)
    return {
        "accuracy / chance": {"goal": RATIO, "reached": ratio, "met": ratio >= RATIO},
        "code perplexity / codes": {"goal": SHARE, "reached": share, "met": share >= SHARE},
        "minutes": {"goal": 4.0, "reached": slowest, "met": slowest < 4.0},
        **letters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="speech/wav2vec2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    asked = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed in asked.seeds:
        runs.append(run_once(asked.config, seed))
        print(f"seed {seed}: {runs[-1]['minutes']:.1f} minutes", flush=True)
        summary = summarise(runs)
        path = record.write(
            asked.config.replace("/", "_"),
            {"config": asked.config, "goals": goals(summary, runs), "summary": summary, "runs": runs},
            PACKAGES,
        )
    for row in summary:
        print(f"{row['mean']:.4f}  {row['metric']}: {row['system']}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
