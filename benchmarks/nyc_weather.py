"""How well do the packaged forecasters do on the packaged weather, and for how long do they train?

    python benchmarks/nyc_weather.py [--config series/forecast-multivariate] [--seeds 0 1 2]

Trains a packaged config (series/forecast unless told otherwise) once a seed and measures each run, ridge,
naive and seasonal naive on every test window (168 hours -> 24, 15 channels). Must reach a mean squared error
of at most .92 of ridge's, mean of the seeds, in under 4 minutes a run. Settings were chosen on the validation
part; results/nyc_weather_log.md tells what was tried.
"""

from __future__ import annotations

import argparse

from record import write
from runs import means, train_and_measure, value
from triptych.tasks.series.panel import MSE, OWN, RATIO, measure

GOAL, MINUTES = 0.92, 4


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="series/forecast")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    runs = [train_and_measure(options.config, measure, {"seed": seed}) for seed in options.seeds]
    summary = means(runs)
    for name, figure in summary["mean"].items():
        print(f"{name:45} {figure:.4f}")
    for run in runs:
        ratio, minutes = value(run, OWN, RATIO), run["minutes"]
        print(f"seed {run['seed']}: {value(run, OWN, MSE):.4f}, {ratio:.3f} of ridge, {minutes:.1f} min")
    figures = {"config": options.config, "goal": GOAL, "goal_minutes": MINUTES, **summary, "runs": runs}
    short = options.config.removeprefix("series/").removeprefix("forecast").strip("-").replace("-", "_")
    name = f"nyc_weather_{short}" if short else "nyc_weather"
    print(f"goal {GOAL}; in {write(name, figures, ('lightning', 'numpy', 'pandas'))}")


if __name__ == "__main__":
    main()
