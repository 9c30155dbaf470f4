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

#: One encoder for all rows of the self-supervised tables: 25 patches of 8 x 8 pixels.
SHAPE = {
    "model.tokenizers.image.patch": 8,
    "model.encoder": {"width": 64, "depth": 3, "heads": 4, "mlp_ratio": 2.0},
}
#: A digit stays in sight of a shift by a tenth of the side wherever it lies.
WARP = {"degrees": 15, "shift": 0.2, "zoom": [0.8, 1.2], "shear": 11, "outside": "reflection"}


def warped(view: str) -> dict[str, Any]:
    """The shape, and the warp of a view."""
    return {**SHAPE, f"data.views.{view}.warp": WARP, "data.batch_size": 64}


NULLED = {f"model.objectives.{name}": None for name in ("reconstruction", "rotation", "contrastive")}
ALONE = {
    name: {key: None for key in NULLED if not key.endswith(name)} for name in ("rotation", "contrastive")
}
UNSPOILT = {"data.views.train.corrupt": None}

#: name -> config, overrides beside the shape, epochs.
SELF_SUPERVISED: dict[str, tuple[str, dict[str, Any], int]] = {
    "dino": ("vision/dino", warped("global"), 10),
    "ibot": ("vision/ibot", warped("global"), 8),
    "mae": ("vision/mae", warped("train"), 20),
    "sit": ("vision/sit", warped("train"), 12),
    "sit-v3": ("vision/sit-v3", warped("train"), 8),
    "contrastive": ("vision/sit", {**warped("train"), **ALONE["contrastive"], **UNSPOILT}, 12),
    "rotation": ("vision/sit", {**warped("train"), **ALONE["rotation"], **UNSPOILT}, 12),
    "supervised": ("vision/finetune", warped("train"), 20),
}


#: Centred digits fill their 28 x 28 pixels: 16 patches, and smaller shifts.
CENTRED = {
    **SHAPE,
    "model.tokenizers.image.patch": 7,
    "data.batch_size": 64,
    "data.views.global.warp": {"degrees": 15, "shift": 0.1, "zoom": [0.8, 1.2], "shear": 11},
    "trainer.max_epochs": 10,
}
TUNED = {
    **SHAPE,
    "model.tokenizers.image.patch": 7,
    "data.batch_size": 20,
    "data.views.train.warp": {"degrees": 15, "shift": 0.1, "zoom": [0.8, 1.2], "shear": 11},
    "trainer.check_val_every_n_epoch": 1000,
}
#: labels a class -> epochs: some 300 and 600 steps, whatever it starts from.
FEW = {4: 150, 40: 30}
FAST = {"model.optimizer.layer_decay": 1.0, "model.optimizer.freeze": {}}


def few_labels() -> list[Cell]:
    """Trained from 1 and 10 % of the labels of centred digits, pretrained on all of their pictures or not."""
    table = [Cell("labels", "dino", "centred", "vision/dino", CENTRED)]
    for labels, epochs in FEW.items():
        own = {**TUNED, "data.labels": labels, "trainer.max_epochs": epochs}
        start = {"config": "vision/finetune", "kind": "centred", "table": "labels"}
        table.append(Cell(name=f"pretrained-{labels}", overrides=own, init=table[0].key, **start))
        table.append(Cell(name=f"scratch-{labels}", overrides={**own, **FAST}, **start))
    return table


def cells() -> list[Cell]:
    """All of them, in the order they are run."""
    table = [Cell("vit", "vit", "centred", "vision/vit", VIT), *few_labels()]
    for kind in ("textured", "plain"):
        for name, (config, overrides, epochs) in SELF_SUPERVISED.items():
            own = {**overrides, "trainer.max_epochs": epochs}
            table.append(Cell("self_supervised", name, kind, config, own))
    return table
