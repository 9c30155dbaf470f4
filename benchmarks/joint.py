"""What one encoder for pictures, weather and voices reaches, by the panel of each.

    python benchmarks/joint.py [--seeds 1 2 3]

Trains `joint/all` once a seed and measures each member of its data as the run of a single panel is
measured: accuracy on digits, MSE over pooled ridge on the weather, the contrastive task and the letters on
the prompts. What the configs that train on one of them alone reach is in digits_vit.json, nyc_weather.json
and speech_wav2vec2-mel.json. Takes about 8 minutes a seed on two quiet cores. Writes results/joint.json after
every seed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from record import write
from runs import figures, means
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.run import Run, load

CONFIG = "joint/all"
#: The panel that measures each member.
PANELS = {"images": "vision", "weather": "series", "prompts": "speech"}
PACKAGES = ("lightning", "torchvision", "torchaudio", "scikit-learn", "numpy")


def run_once(seed: int) -> dict[str, Any]:
    """Train and measure one run: its seed, what it cost, and the rows of all three panels."""
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.monotonic(), time.process_time()
        overrides = {"seed": seed, "trainer.enable_progress_bar": False}
        trained = fit(merge([CONFIG], overrides), output=f"{folder}/run")
        wall, processor = time.monotonic() - wall, time.process_time() - processor
        rows = []
        for member, panel in PANELS.items():
            measure = import_module(f"triptych.tasks.{panel}.panel").measure
            for row in figures(measure(of_member(Path(trained), member))):
                rows.append({**row, "system": f"{member}: {row['system']}"})
    return {"seed": seed, "minutes": wall / 60, "processor_minutes": processor / 60, "rows": rows}


def of_member(trained: Path, member: str) -> Run:
    """A copy of a joint run whose data are one member's."""
    copy = trained.with_name(member)
    shutil.copytree(trained, copy)
    path = copy / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["data"]["init_args"]["only"] = member
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return load(copy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    runs: list[dict[str, Any]] = []
    for seed in parser.parse_args().seeds:
        runs.append(run_once(seed))
        summary = means(runs)
        path = write("joint", {"config": CONFIG, **summary, "runs": runs}, PACKAGES)
        print(f"seed {seed}: {runs[-1]['minutes']:.1f} minutes", flush=True)
    for system, figure in summary["mean"].items():
        print(f"{figure:.4f}  {system}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
