"""How long is a training step beside PatchTST of Hugging Face and of neuralforecast? Same windows and sizes.

    python benchmarks/patchtst_speed.py [--rounds 9] [--steps 4]

ETTh1's shape: 336 steps -> 96, 7 channels, patches of 16 every 8, width 16, 4 heads, feed-forward 128, 3
blocks, batch norm, AdamW; random values, for what they are takes no time. One is made by transformers, ours
imported from it with its weights, and they take turns with neuralforecast's where that is installed (whose
own drawing and scaling of windows is left out: `patchtst_epoch.py` has it in). A step draws 128 origins (896
sequences) from a table of rows, goes forward and backward and moves the weights. Must take at most .9 of
Hugging Face's time and .5 of neuralforecast's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from encoder_speed import measure, medians, ratios
from record import write
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from triptych.tasks.series.windows import Windows
from triptych.tasks.weights.port import built
from triptych.tasks.weights.registry import recognise
from triptych.tasks.weights.source import open_source

CONTEXT, HORIZON, CHANNELS, ORIGINS, ROWS = 336, 96, 7, 128, 8640
OURS = "triptych"
#: Most of each peer's time that a step may take.
GOALS = {"transformers": 0.9, "neuralforecast": 0.5}


def original() -> nn.Module:
    """Hugging Face's PatchTST for prediction, with its own defaults but for the sizes."""
    import transformers

    config = transformers.PatchTSTConfig(
        num_input_channels=CHANNELS, context_length=CONTEXT, prediction_length=HORIZON, patch_length=16,
        patch_stride=8, d_model=16, num_attention_heads=4, num_hidden_layers=3, ffn_dim=128, loss="mse",
    )  # fmt: skip
    return transformers.PatchTSTForPrediction(config).train()


def nixtla(**settings: Any) -> nn.Module:
    """neuralforecast's PatchTST of the same sizes, without dropout and residual attention."""
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import PatchTST

    model: nn.Module = PatchTST(
        h=HORIZON, input_size=CONTEXT, encoder_layers=3, n_heads=4, hidden_size=16, linear_hidden_size=128,
        patch_len=16, stride=8, dropout=0.0, fc_dropout=0.0, head_dropout=0.0, loss=MSE(),
        res_attention=False, **settings,
    )  # fmt: skip
    return model.train()


def trained(model: nn.Module, loss: Callable[[Tensor], Tensor], steps: int) -> Callable[[], Tensor]:
    """So many steps of training, the last of which leaves its backward pass to the caller's clock."""
    optimizer = AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)

    def run() -> Tensor:
        for left in reversed(range(steps)):
            optimizer.step()
            optimizer.zero_grad()
            found = loss(torch.randint(CONTEXT, ROWS - HORIZON, (ORIGINS,), generator=generator))
            if left:
                found.backward()
        return found

    return run


def contenders(steps: int) -> dict[str, Callable[[], Tensor]]:
    """Both models, each drawing windows of the same rows."""
    rows = torch.randn(ROWS, CHANNELS, generator=torch.Generator().manual_seed(1))
    theirs = original()
    source = open_source(theirs)
    ours, _ = built(recognise(source).read(source))
    origins = np.arange(CONTEXT, ROWS - HORIZON)
    windows = Windows(rows, torch.ones_like(rows, dtype=torch.bool), origins, CONTEXT, HORIZON)

    def own(drawn: Tensor) -> Tensor:
        items = ((drawn - CONTEXT).unsqueeze(1) * CHANNELS + torch.arange(CHANNELS)).flatten()
        loss: Tensor = ours(windows.collate(items.tolist())).total
        return loss

    def cut(drawn: Tensor) -> tuple[Tensor, Tensor]:
        values = rows[drawn.unsqueeze(1) + torch.arange(-CONTEXT, HORIZON)]
        return values[:, :CONTEXT], values[:, CONTEXT:]

    def other(drawn: Tensor) -> Tensor:
        past, future = cut(drawn)
        loss: Tensor = theirs(past_values=past, future_values=future).loss
        return loss

    found = {OURS: trained(ours.train(), own, steps), "transformers": trained(theirs, other, steps)}
    if find_spec("neuralforecast") is None:
        return found
    third = nixtla()

    def one_by_one(drawn: Tensor) -> Tensor:
        past, future = (part.transpose(1, 2).flatten(0, 1).unsqueeze(2) for part in cut(drawn))
        return F.mse_loss(third({"insample_y": past}), future)

    return found | {"neuralforecast": trained(third, one_by_one, steps)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="training steps in a round")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    times = measure(contenders(options.steps), options.rounds)
    peers = [name for name in GOALS if name in times[0]]
    compared = {name: ratios(times, OURS, name) | {"goal": GOALS[name]} for name in peers}
    print(medians(times))
    for name, figures in compared.items():
        print(f"processor time {figures['processor_ratio']} of that of {name}, goal {GOALS[name]}")
    found: dict[str, Any] = {
        "steps": options.steps,
        "seconds": medians(times),
        "compared": compared,
        "rounds": times,
    }
    print(write("patchtst_speed", found, tuple(peers)))


if __name__ == "__main__":
    main()
