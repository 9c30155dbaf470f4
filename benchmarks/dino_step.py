"""How long is a training step of DINO beside lightly's own example? The same crops, sizes and weights.

    python benchmarks/dino_step.py [--rounds 5] [--threads 1]

ViT-Ti/16, 16 samples, 2 crops of 96 and 6 of 48 pixels, fp32, random pixels in memory. A step moves the
weights (AdamW) and the teacher, reads the large crops with the teacher and all with the student, and goes
back from the loss. Theirs as lightly writes it: its example (crop by crop), and its ImageNet benchmark (all
crops of one size at once), with its vision transformer over timm's, head, loss and update of averages. Ours
is what `triptych fit` runs, its figures of collapse included. All start from the same weights, and their
first losses must agree. Heads: that of lightly's example (512, 64, 2048 prototypes) and DINO's own (2048,
256, 65536). With the first a step must take at most .85 of the example's time (goal .70). Takes 4
minutes on one quiet core.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import timm
import torch
from encoder_speed import measure, medians, ratios
from record import write
from torch import Tensor, nn
from torch.optim import AdamW
from triptych.backbones.encoder import Encoder
from triptych.backbones.teacher import Teacher
from triptych.objectives.self_distillation import SelfDistillation
from triptych.tasks.model import Model
from triptych.tasks.optimization import Optimization
from triptych.tasks.weights.registry import family
from triptych.tasks.weights.source import open_source
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.view import View

NAME, PATCH, WIDTH, DEPTH, HEADS = "vit_tiny_patch16_224", 16, 192, 12, 3
BATCH = 16
LARGE, SMALL = (2, 96), (6, 48)  # crops of a sample, pixels
MOMENTUM, RATE, DECAY = 0.996, 1e-4, 0.05
#: Hidden width, bottleneck, prototypes.
HEADS_OF = {"example": (512, 64, 2048), "dino": (2048, 256, 65536)}
GOAL, BETTER = 0.85, 0.70
OURS, EXAMPLE, BY_SIZE = "triptych", "lightly_example", "lightly_by_size"


class Lightly(nn.Module):
    """Student and teacher made of lightly's parts, each a backbone and a head."""

    def __init__(self, head: tuple[int, int, int]) -> None:
        super().__init__()
        from lightly.loss import DINOLoss

        self.student, self.teacher = backbone_and_head(head), backbone_and_head(head)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.loss = DINOLoss(head[-1])

    def by_crop(self, crops: list[Tensor]) -> Tensor:
        """As in lightly's example."""
        told = [self.teacher(crop) for crop in crops[: LARGE[0]]]
        return self._loss(told, [self.student(crop) for crop in crops])

    def by_size(self, crops: list[Tensor]) -> Tensor:
        """As in lightly's ImageNet benchmark."""
        large, small = torch.cat(crops[: LARGE[0]]), torch.cat(crops[LARGE[0] :])
        told = self.teacher(large).split(BATCH)
        return self._loss(told, [*self.student(large).split(BATCH), *self.student(small).split(BATCH)])

    def _loss(self, told: Any, said: list[Tensor]) -> Tensor:
        loss: Tensor = self.loss(list(told), said)
        return loss


def backbone_and_head(head: tuple[int, int, int]) -> nn.Sequential:
    """lightly's vision transformer, which is timm's within, and its head."""
    from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM

    vit = timm.create_model(NAME, img_size=LARGE[1], num_classes=0, dynamic_img_size=True)
    warnings.simplefilter("ignore", FutureWarning)  # torch's, of lightly's weight norm
    return nn.Sequential(
        MaskedVisionTransformerTIMM(vit, pos_embed_initialization="learn"), DINOProjectionHead(WIDTH, *head)
    )


def ours(head: tuple[int, int, int], theirs: Lightly) -> Model:
    """The same model of our parts, with the weights of `theirs`."""
    objective = SelfDistillation(prototypes=head[2], hidden=head[0], bottleneck=head[1], freeze_last_layer=0)
    model = Model(
        {"image": ImagePatches(PATCH)},
        Encoder(WIDTH, DEPTH, HEADS),
        {"dino": objective},
        teacher=Teacher(MOMENTUM),
    )
    facts = {"image": {"channels": 3, "size": [LARGE[1], LARGE[1]]}}
    model.build({"global": "image", "local": "image"}, facts)
    backbone, projection = theirs.student
    model.load_state_dict(family("timm").read(open_source(backbone.vit)).weights, strict=False)
    layers = [layer for layer in projection.layers if isinstance(layer, nn.Linear)]
    mine = [layer for layer in objective.head.mlp if isinstance(layer, nn.Linear)]
    for to, layer in zip(mine, layers, strict=True):
        to.load_state_dict(layer.state_dict())
    objective.head.prototypes.data.copy_(projection.last_layer.weight_v)
    model.sync_teacher()
    return model.train()


def our_step(model: Model, crops: list[Tensor]) -> Callable[[], Tensor]:
    """What `triptych fit` does in a step, to its loss."""
    batch = {
        name: View("image", torch.cat(of_size), copies=len(of_size))
        for name, of_size in (("global", crops[: LARGE[0]]), ("local", crops[LARGE[0] :]))
    }
    settings = Optimization(lr=RATE, weight_decay=DECAY)
    optimizer = settings.optimizer(model)

    def run() -> Tensor:
        model.objective.after_backward(0.0, 0.0)
        settings.follow(optimizer, 0.0)
        optimizer.step()
        model.update_teacher(0.0)
        optimizer.zero_grad()
        return model(batch).total

    return run


def their_step(model: Lightly, forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """AdamW, both averages, a forward pass to the loss."""
    from lightly.models.utils import update_momentum

    optimizer = AdamW(model.student.parameters(), lr=RATE, weight_decay=DECAY)

    def run() -> Tensor:
        optimizer.step()
        for student, teacher in zip(model.student, model.teacher, strict=True):
            update_momentum(student, teacher, m=MOMENTUM)
        optimizer.zero_grad()
        return forward()

    return run


def contenders(head: tuple[int, int, int]) -> tuple[dict[str, Callable[[], Tensor]], dict[str, int]]:
    """A step of each, from the same weights and crops; and how many parameters of each learn."""
    random = torch.Generator().manual_seed(0)
    crops = [
        torch.randn(BATCH, 3, side, side, generator=random)
        for copies, side in (LARGE, SMALL)
        for _ in range(copies)
    ]
    example = Lightly(head).train()
    model, by_size = ours(head, example), Lightly(head).train()
    by_size.load_state_dict(example.state_dict())
    steps = {
        OURS: our_step(model, crops),
        EXAMPLE: their_step(example, lambda: example.by_crop(crops)),
        BY_SIZE: their_step(by_size, lambda: by_size.by_size(crops)),
    }
    models = {OURS: model, EXAMPLE: example, BY_SIZE: by_size}
    return steps, {
        name: sum(p.numel() for p in m.parameters() if p.requires_grad) for name, m in models.items()
    }


def one_head(head: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """Ratios, median seconds, first losses and every round of one head.

    Raises:
        AssertionError: the first losses differ, so the contenders do not compute the same.
    """
    steps, parameters = contenders(head)
    losses = {name: float(step().detach()) for name, step in steps.items()}
    assert max(losses.values()) - min(losses.values()) < 1e-4 * losses[OURS], losses
    times = measure(steps, rounds, warmup=1)
    over = {name: ratios(times, OURS, name) for name in (EXAMPLE, BY_SIZE)}
    shape = dict(zip(("hidden", "bottleneck", "prototypes"), head, strict=True))
    found = {"head": shape, "parameters": parameters, "first_losses": losses, "over": over}
    return found | {"median_seconds": medians(times), "rounds": times}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    found = {name: one_head(head, options.rounds) for name, head in HEADS_OF.items()}
    for figures in found.values():
        print(f"{figures['head']}: parameters {figures['parameters']}, losses {figures['first_losses']}")
        for other, over in figures["over"].items():
            print(f"  a step over {other}: {over}")
        print(f"  median seconds {figures['median_seconds']}")
    ratio = found["example"]["over"][EXAMPLE]["processor_ratio"]
    met = {"goal": GOAL, "goal_met": ratio <= GOAL, "better": BETTER, "better_met": ratio <= BETTER}
    print(f"processor time {ratio} of lightly's example, goal {GOAL}, better {BETTER}")
    print(write("dino_step", met | {"processor_ratio": ratio, "heads": found}, ("lightly", "timm")))


if __name__ == "__main__":
    main()
