"""How long is an epoch of PatchTST by each library's own trainer and loader? Same windows and sizes.

    python benchmarks/patchtst_epoch.py [--rounds 5] [--steps 5]

`patchtst_speed.py` leaves loaders and trainers out; here they are in. Seven series of ETTh1's length, every
window of 336 steps and the 96 after it: 57,463 windows, of which 896 make a step, 64 steps an epoch. A
contender trains the first steps; the first is not counted, and 64 times the mean of the others is its epoch.

- triptych: `triptych fit`'s own learner, data module, trainer, logger and checks.
- neuralforecast: `NeuralForecast.fit` of its PatchTST, on the same table, as its documentation shows,
  `windows_batch_size: 896`; no dropout and no residual attention, which the others do not have.
- transformers: its PatchTST in a plain loop over a DataLoader of windows, 128 rows of all 7 series a step.

Same optimizer (AdamW), dtype (fp32) and threads; none validates, saves or shows progress meanwhile. They take
turns. Must take at most .9 of the time of transformers' and .5 of neuralforecast's.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from encoder_speed import medians, ratios
from patchtst_speed import CHANNELS, CONTEXT, GOALS, HORIZON, ORIGINS, OURS, ROWS, nixtla, original
from record import write
from step_clock import Clocks, StepClock, note
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.trust import trust

WINDOWS = CHANNELS * ORIGINS
EPOCH = CHANNELS * (ROWS - CONTEXT - HORIZON + 1) / WINDOWS
CONFIG = """
extends: series/forecast
model:
  tokenizers:
    series:
      class_path: triptych.tokenizers.series.SeriesWindows
      init_args: {patch: 16, stride: 8, end: repeat}
  encoder:
    {width: 16, depth: 3, heads: 4, mlp_ratio: 8, final_norm: false, block: {norm: batch, norm_first: false}}
  objectives:
    forecast:
      class_path: triptych.objectives.forecasting.Forecasting
      init_args: {quantiles: [0.5], skip: false, own: false, dropout: 0.0}
data:
  class_path: triptych.tasks.series.data.Tables
  init_args: {context: %d, horizon: %d, stride: 1, batch_size: %d, split: [%d, 0, 0]}
trainer:
  max_epochs: -1
  limit_val_batches: 0
  enable_progress_bar: false
  callbacks: {class_path: step_clock.StepClock}
"""


def wide() -> pd.DataFrame:
    """Random hours of seven series; what the values are takes no time."""
    values = torch.randn(ROWS, CHANNELS, generator=torch.Generator().manual_seed(1)).numpy()
    stamps = pd.date_range("2016-07-01", periods=ROWS, freq="h")
    return pd.DataFrame(values, columns=[f"s{c}" for c in range(CHANNELS)]).assign(ds=stamps)


def ours(steps: int, folder: Path) -> Clocks:
    """`triptych fit`, whose trainer gets one callback more."""
    trust(["step_clock"])
    StepClock.times.clear()
    config = folder / "patchtst.yaml"
    config.write_text(CONFIG % (CONTEXT, HORIZON, WINDOWS, ROWS), encoding="utf-8")
    overrides = {"trainer.max_steps": steps, "data.path": str(folder / "wide.parquet")}
    fit(merge([config], overrides), output=tempfile.mkdtemp(dir=folder))
    return list(StepClock.times)


def neuralforecast(steps: int, table: pd.DataFrame) -> Clocks:
    """`NeuralForecast.fit` on the long table; its Lightning is the package of the other name."""
    import pytorch_lightning
    from neuralforecast import NeuralForecast

    times: Clocks = []
    own = {"on_train_batch_end": lambda *_, **__: note(times)}
    model = nixtla(
        max_steps=steps, windows_batch_size=WINDOWS, optimizer=AdamW,
        callbacks=[type("Clock", (pytorch_lightning.Callback,), own)()],
        enable_progress_bar=False, enable_model_summary=False, logger=False, enable_checkpointing=False,
    )  # fmt: skip
    NeuralForecast([model], freq="h").fit(table)
    return times


def transformers(steps: int, values: np.ndarray) -> Clocks:
    """A plain loop over windows that are views of the rows, drawn by torch's own loader."""
    rows = torch.from_numpy(values)
    windows = rows.unfold(0, CONTEXT + HORIZON, 1).transpose(1, 2)  # (n, L + H, C), a view
    loader = DataLoader(TensorDataset(windows), batch_size=ORIGINS, shuffle=True, drop_last=True)
    model, times = original(), Clocks()
    optimizer = AdamW(model.parameters(), lr=1e-4)
    for _, (drawn,) in zip(range(steps), loader, strict=False):
        optimizer.zero_grad()
        model(past_values=drawn[:, :CONTEXT], future_values=drawn[:, CONTEXT:]).loss.backward()
        optimizer.step()
        note(times)
    return times


def contenders(steps: int, folder: Path) -> dict[str, Callable[[], Clocks]]:
    """Each contender's first steps of an epoch."""
    table = wide()
    table.to_parquet(folder / "wide.parquet")
    series = table.drop(columns="ds").to_numpy(copy=True)
    found: dict[str, Callable[[], Clocks]] = {
        OURS: partial(ours, steps, folder),
        "transformers": partial(transformers, steps, series),
    }
    if find_spec("neuralforecast") is not None:
        long = table.melt("ds", var_name="unique_id", value_name="y")
        found["neuralforecast"] = partial(neuralforecast, steps, long)
    return found


def seconds(times: Clocks) -> dict[str, float]:
    """Seconds of an epoch, by all steps but the first."""
    steps = len(times) - 1
    wall, processor = (
        round(EPOCH * (last - first) / steps, 3) for first, last in zip(times[0], times[-1], strict=True)
    )
    return {"wall": wall, "processor": processor}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=5, help="training steps of a contender in a round, at least 2"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        all_of = contenders(options.steps, Path(folder))
        names = list(all_of)
        for index in range(options.rounds):
            turn = index % len(names)
            rounds.append({name: seconds(all_of[name]()) for name in names[turn:] + names[:turn]})
    peers = [name for name in GOALS if name in names]
    compared = {name: ratios(rounds, OURS, name) | {"goal": GOALS[name]} for name in peers}
    print(medians(rounds))
    for name, figures in compared.items():
        print(
            f"processor time of an epoch {figures['processor_ratio']} of that of {name}, goal {GOALS[name]}"
        )
    found: dict[str, Any] = {"steps": options.steps, "seconds_an_epoch": medians(rounds)}
    print(write("patchtst_epoch", found | {"compared": compared, "rounds": rounds}, tuple(peers)))


if __name__ == "__main__":
    main()
