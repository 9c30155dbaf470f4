"""Is the encoder as fast as timm's? Forward and backward, interleaved in one run.

    python benchmarks/encoder_speed.py [--rounds 9] [--threads 1]

1. ViT-Ti/16 at 224 pixels, 8 images: our tokenizer and encoder against timm's model, loss = mean of the
   class token after the final norm. Must cost at most 1.05 times as much.
2. Crops as in DINO, 16 samples, 2 of 96 and 6 of 48 pixels: one packed pass of ours against timm's model
   looped over the 8 crops, and looped over the 2 sizes.

Each round times every contender once, in an order that turns; the ratio of a round is free of what the
machine does over minutes, and the median over rounds of what it does in seconds. On a machine that others
use too, processor time on one thread is the figure to trust: it leaves out the time in which they ran, and
several threads spend some of theirs waiting for each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from record import write
from torch import Tensor, nn
from triptych.backbones.encoder import Encoder
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.tokens import concat
from triptych.tokenizers.view import View

PATCH, WIDTH, DEPTH, HEADS = 16, 192, 12, 3
GOAL = 1.05


class Ours(nn.Module):
    """Tokenizer and encoder; class tokens of views of several sizes from one packed pass."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.tokenizer = ImagePatches(PATCH)
        self.tokenizer.build(WIDTH, {"channels": 3, "size": [size, size]})
        self.encoder = Encoder(WIDTH, DEPTH, HEADS)

    def forward(self, *views: Tensor) -> Tensor:
        pack = concat([self.tokenizer(View("image", images)) for images in views])
        return torch.cat([tokens.named("class") for tokens in self.encoder(pack).layers[-1]])


class Theirs(nn.Module):
    """timm's model, looped over the views."""

    def __init__(self, size: int, **settings: bool) -> None:
        super().__init__()
        name = "vit_tiny_patch16_224"
        self.model = timm.create_model(name, pretrained=False, num_classes=0, img_size=size, **settings)

    def forward(self, *views: Tensor) -> Tensor:
        return torch.cat([self.model(images) for images in views])


def measure(
    contenders: dict[str, Callable[[], Tensor]], rounds: int, warmup: int = 2
) -> list[dict[str, Any]]:
    """Seconds of wall and processor time of each contender in each round, after the warm-up."""
    names, times = list(contenders), []
    for index in range(-warmup, rounds):
        turn = index % len(names)
        times.append({name: clock(contenders[name]) for name in names[turn:] + names[:turn]})
    return times[warmup:]


def clock(step: Callable[[], Tensor]) -> dict[str, float]:
    """Wall and processor seconds of one forward and backward."""
    wall, processor = time.perf_counter(), time.process_time()
    step().backward()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"wall": round(wall, 4), "processor": round(processor, 4)}


def step(model: nn.Module, *views: Tensor) -> Callable[[], Tensor]:
    """A forward pass to the loss, from no gradients."""

    def run() -> Tensor:
        model.zero_grad(set_to_none=True)
        return model(*views).mean()

    return run


def ratios(times: list[dict[str, Any]], ours: str, theirs: str) -> dict[str, float]:
    """Medians over rounds of the round's ratio, for both clocks."""
    return {
        f"{clock}_ratio": round(statistics.median(one[ours][clock] / one[theirs][clock] for one in times), 4)
        for clock in ("wall", "processor")
    }


def medians(times: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median seconds of each contender."""
    return {
        name: {
            clock: round(statistics.median(one[name][clock] for one in times), 4) for clock in times[0][name]
        }
        for name in times[0]
    }


def one_size(rounds: int) -> dict[str, Any]:
    """ViT-Ti/16 at 224 pixels, 8 images."""
    images = torch.randn(8, 3, 224, 224)
    times = measure({"triptych": step(Ours(224), images), "timm": step(Theirs(224), images)}, rounds)
    return {**ratios(times, "triptych", "timm"), "median_seconds": medians(times), "rounds": times}


def crops(rounds: int) -> dict[str, Any]:
    """2 crops of 96 and 6 of 48 pixels of 16 samples."""
    large, small = torch.randn(2 * 16, 3, 96, 96), torch.randn(6 * 16, 3, 48, 48)
    theirs = Theirs(96, dynamic_img_size=True)
    times = measure(
        {
            "packed": step(Ours(96), large, small),
            "timm_by_crop": step(theirs, *large.split(16), *small.split(16)),
            "timm_by_size": step(theirs, large, small),
        },
        rounds,
    )
    compared = {name: ratios(times, "packed", name) for name in ("timm_by_crop", "timm_by_size")}
    return {"packed_over": compared, "median_seconds": medians(times), "rounds": times}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    single, several = one_size(arguments.rounds), crops(arguments.rounds)
    met = single["processor_ratio"] <= GOAL
    print(f"ViT-Ti/16, 224 px, batch 8, over timm: processor {single['processor_ratio']}, ", end="")
    print(f"wall {single['wall_ratio']} (goal {GOAL} {'met' if met else 'missed'})")
    for name, found in several["packed_over"].items():
        print(f"2x96 + 6x48 px, batch 16, packed over {name}: {found}")
    figures = {"goal": GOAL, "goal_met": met, "vit_tiny_224": single, "crops": several}
    write("encoder_speed", figures, ("timm",))


if __name__ == "__main__":
    main()
