"""What the self-supervised configs of images reach on scikit-learn's digits, beside an untrained encoder.

    python benchmarks/self_supervised.py [--only mae ibot ...] [--seeds 0]

Each config as it is packaged, kNN (k=20, T=.07) on frozen features of each token, of the patches' mean and of
all together; `joint-labels` by its accuracy. These are short runs that show that the systems learn, not what
they reach at scale. 1 to 3 minutes a run on two quiet cores. Writes results/self_supervised_NAME.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from record import write
from runs import means, train_and_measure
from triptych.tasks.vision.panel import measure

CONFIGS = ("mae", "ibot", "dinov2", "sit", "sit-v3", "joint-labels")
PACKAGES = ("lightning", "torchvision", "scikit-learn", "numpy")


def run_all(name: str, seeds: Sequence[int]) -> None:
    """Train and measure one run a seed, on fold 0, print their means and write the record."""
    overrides = {"data.fold": 0, "trainer.enable_progress_bar": False}
    runs = [train_and_measure(f"vision/{name}", measure, {**overrides, "seed": seed}) for seed in seeds]
    summary = means(runs)
    path = write(f"self_supervised_{name}", {"config": f"vision/{name}", **summary, "runs": runs}, PACKAGES)
    for system, figure in summary["mean"].items():
        print(f"vision/{name:12} {figure:.4f}  {system}", flush=True)
    print(f"{max(run['minutes'] for run in runs):.1f} minutes; in {path}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=CONFIGS, nargs="+", default=CONFIGS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    for name in options.only:
        run_all(name, options.seeds)


if __name__ == "__main__":
    main()
