"""Which trainings make the tables of MNIST-5k: packaged configs, and what is overridden in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One training of a table.

    Attributes:
        table: it belongs to.
        name: of the row.
        kind: of the data, one of `mnist_data.KINDS`.
        config: a packaged one.
        overrides: of it; the encoder's shape and the seed come with them.
        init: key of the cell whose run of seed 0 it starts from. A cell with few labels has draws of them
            for seeds, all from one pretraining.
    """

    table: str
    name: str
    kind: str
    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None

    @property
    def key(self) -> str:
        """What its results are kept under."""
        return f"{self.table}-{self.kind}-{self.name}"


VIT = {
    "model.tokenizers.image.patch": 4,
    "model.tokenizers.image.overlap": 2,
    "data.views.train.warp.degrees": 12,
    "data.views.train.warp.shear": 10,
    "trainer.max_epochs": 40,
}

#: Of `vision/finetune`, for a start from nothing: all layers learn at the full rate.
FROM_SCRATCH = {"model.optimizer.layer_decay": 1.0, "model.optimizer.freeze": {}}

#: One encoder for all rows of the self-supervised tables: 25 patches of 8 x 8 pixels.
SHAPE = {
    "model.tokenizers.image.patch": 8,
    "model.encoder": {"width": 64, "depth": 3, "heads": 4, "mlp_ratio": 2.0},
}
#: The packaged warp, with a shift twice as far.
WARP = {"degrees": 10, "shift": 0.1, "zoom": [0.9, 1.1], "shear": 6, "outside": "reflection"}


def warped(view: str) -> dict[str, Any]:
    """The shape, and the warp of a view."""
    return {**SHAPE, f"data.views.{view}.warp": WARP}


def alone(name: str) -> dict[str, Any]:
    """One of SiT's tasks without the others, and pictures that are not spoilt."""
    others = {"reconstruction", "rotation", "contrastive"} - {name}
    nulled: dict[str, Any] = {f"model.objectives.{other}": None for other in sorted(others)}
    return {
        **nulled,
        "model.weighting": "fixed",
        "data.views.train.corrupt": None,
        "data.views.train.rotate": name == "rotation",
    }


COLD = {"model.objectives.contrastive.temperature": 0.2}

#: name -> config, overrides beside the shape, epochs; what each costs stands in the results.
SELF_SUPERVISED: dict[str, tuple[str, dict[str, Any], int]] = {
    "dino": ("vision/dino", warped("global"), 14),
    "supervised": ("vision/finetune", {**warped("train"), **FROM_SCRATCH}, 10),
    "contrastive": ("vision/sit", {**warped("train"), **alone("contrastive"), **COLD}, 6),
    "sit-v3": ("vision/sit-v3", warped("train"), 5),
    "ibot": ("vision/ibot", warped("global"), 6),
    "sit": ("vision/sit", warped("train"), 5),
    "mae": ("vision/mae", warped("train"), 10),
    "rotation": ("vision/sit", {**warped("train"), **alone("rotation")}, 6),
}

#: Centred digits fill their 28 x 28 pixels: 16 patches, and smaller shifts.
CENTRED = {**SHAPE, "model.tokenizers.image.patch": 7}
CENTRED_WARP = {"degrees": 15, "shift": 0.1, "zoom": [0.8, 1.2], "shear": 11}
DINO = {**CENTRED, "trainer.max_epochs": 20}
TUNED = {
    **CENTRED,
    "data.batch_size": 20,
    "data.views.train.warp": CENTRED_WARP,
    "trainer.check_val_every_n_epoch": 1000,
}
#: labels a class -> epochs: 200 and 500 steps, whatever it starts from.
FEW = {4: 100, 40: 25}


def few_labels() -> list[Cell]:
    """Trained from 1 and 10 % of the labels of centred digits, pretrained on all of their pictures or not."""
    table = [Cell("labels", "dino", "centred", "vision/dino", DINO)]
    for labels, epochs in FEW.items():
        own = {**TUNED, "data.labels": labels, "trainer.max_epochs": epochs}
        start = {"config": "vision/finetune", "kind": "centred", "table": "labels"}
        table.append(Cell(name=f"pretrained-{labels}", overrides=own, init=table[0].key, **start))
        table.append(Cell(name=f"scratch-{labels}", overrides={**own, **FROM_SCRATCH}, **start))
    return table


def cells() -> list[Cell]:
    """All of them, in the order they are run."""
    table = [Cell("vit", "vit", "centred", "vision/vit", VIT), *few_labels()]
    for kind in ("textured", "plain"):
        for name, (config, overrides, epochs) in SELF_SUPERVISED.items():
            own = {**overrides, "trainer.max_epochs": epochs}
            table.append(Cell("self_supervised", name, kind, config, own))
    return table
