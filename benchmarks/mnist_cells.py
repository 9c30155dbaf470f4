"""Which trainings make the tables of MNIST-5k: packaged configs, and what is overridden in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
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
        elsewhere: other kinds of data that its frozen features are probed on.
    """

    table: str
    name: str
    kind: str
    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    elsewhere: tuple[str, ...] = ()

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

#: Of `vision/finetune`, for a start from nothing: all layers learn at the full rate, from the first step.
FROM_SCRATCH = {"model.optimizer.layer_decay": 1.0, "model.optimizer.freeze": None}


#: One encoder for all rows below: patches that overlap, and rotary positions, for what a digit is does not
#: depend on where it lies. Patches that are masked cannot overlap (`APART`).
ENCODER = {"width": 64, "depth": 3, "heads": 4, "mlp_ratio": 2.0, "block": {"rotary": 2}}
SHAPE = {
    "model.encoder": ENCODER,
    "model.tokenizers.image.patch": 5,
    "model.tokenizers.image.overlap": 3,
    "model.tokenizers.image.positions": "none",
}
APART = {"model.tokenizers.image.overlap": 0}

#: Views are shifted by up to a quarter of the side, so that the place of a digit is not what they share. On
#: textures they differ in light too, for a ground is told by its level and contrast.
ON_BLACK = {
    "warp": {"degrees": 15, "shift": 0.25, "zoom": [0.8, 1.2], "shear": 8, "outside": "zeros"},
}
ON_TEXTURES = {
    "warp": {"degrees": 20, "shift": 0.2, "zoom": [0.75, 1.3], "shear": 12, "outside": "reflection"},
    "colour": {"probability": 1.0, "brightness": 0.5, "contrast": 0.6, "blur": 0.5},
}


def tasks(*names: str) -> dict[str, Any]:
    """Some of SiT's three; pictures are spoilt where they are mended and turned where the turn is told."""
    others = {"reconstruction", "rotation", "contrastive"} - set(names)
    own: dict[str, Any] = {f"model.objectives.{other}": None for other in sorted(others)}
    own |= {} if "reconstruction" in names else {"data.views.train.corrupt": None}
    return {**own, "data.views.train.rotate": "rotation" in names}


FIXED = {"model.weighting": "fixed"}
CONTRASTIVE = {
    **tasks("contrastive"),
    **FIXED,
    "model.tokenizers.image.prefix": ["contrastive"],
    "model.objectives.contrastive.pool": "mean",
    "data.batch_size": 128,
}

#: Without labels and without a start DINO takes thousands of steps, which fewer and larger patches afford.
LARGE = {"model.tokenizers.image.patch": 8, "model.tokenizers.image.overlap": 0}
SHARED_OUT = {"model.objectives.dino.centre_momentum": None}
LONG = {
    **SHARED_OUT,
    "model.objectives.dino.prototypes": 256,
    "model.objectives.dino.hidden": 256,
    "model.objectives.dino.bottleneck": 64,
    "model.teacher.momentum": {"start": 0.99},
    "model.optimizer.lr": {"start": 0.001, "end": 0.00001, "warmup": 0.1},
    "data.batch_size": 64,
}

#: name -> config, overrides beside shape and views, the view that is distorted, epochs.
SELF_SUPERVISED: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "contrastive": ("vision/sit", CONTRASTIVE, "train", 24),
    "supervised": ("vision/finetune", {"model.optimizer.layer_decay": 1.0}, "train", 24),
    "dino": ("vision/dino", SHARED_OUT, "global", 8),
    "sit": ("vision/sit", {"data.batch_size": 64}, "train", 8),
    "sit-v3": ("vision/sit-v3", {}, "train", 8),
    "ibot": ("vision/ibot", APART, "global", 8),
    "mae": ("vision/mae", APART, "train", 12),
    "rotation": ("vision/sit", {**tasks("rotation"), **FIXED}, "train", 6),
    "contrastive-dino": ("vision/dino", {**LONG, "model.objectives.dino.prototypes": 128}, "global", 5),
    "dino-long": ("vision/dino", {**LARGE, **LONG}, "global", 60),
    "supervised-large": ("vision/finetune", {"model.optimizer.layer_decay": 1.0, **LARGE}, "train", 24),
}
#: What a row starts from.
STARTS = {"contrastive-dino": "contrastive"}
DIGITS = ("contrastive", "supervised", "dino", "sit", "sit-v3", "ibot", "mae", "rotation")
#: kind of data -> its rows.
ROWS = {
    "plain": DIGITS,
    "textured": (*DIGITS, "contrastive-dino"),
    "shapes": ("dino", "supervised", "dino-long", "supervised-large"),
    "centred": DIGITS,
    "digits": DIGITS,
}

#: Whose attention is measured: the kind of data, a row, and the row with labels of its encoder's shape.
ATTENTIVE = (
    ("textured", "dino", "supervised"),
    ("textured", "contrastive-dino", "supervised"),
    ("shapes", "dino", "supervised"),
    ("shapes", "dino-long", "supervised-large"),
)

#: Centred digits fill their 28 x 28 pixels.
CENTRED = {**SHAPE, "model.tokenizers.image.patch": 4, "model.tokenizers.image.overlap": 2}
CENTRED_WARP = {"degrees": 15, "shift": 0.1, "zoom": [0.8, 1.2], "shear": 11}
#: For a look at whether every objective runs, on centred digits: patches that do not overlap.
SMALL = {**SHAPE, "model.tokenizers.image.patch": 4, **APART, "data.size": 28}
#: kind of data -> the shape for it and what its views are distorted by.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (SHAPE, ON_BLACK),
    "textured": (SHAPE, ON_TEXTURES),
    "shapes": (SHAPE, ON_TEXTURES),
    "centred": (SMALL, {"warp": CENTRED_WARP}),
    "digits": (SMALL, {"warp": CENTRED_WARP}),
}
#: The same in larger patches, for tables of many runs.
COARSE = {**SHAPE, "model.tokenizers.image.patch": 7, "model.tokenizers.image.overlap": 3}
PRETRAINED = {
    **CENTRED,
    **CONTRASTIVE,
    "model.tokenizers.image.prefix": ["class"],
    "model.objectives.contrastive.temperature": 0.1,
    "data.views.train.warp": {**CENTRED_WARP, "shift": 0.15},
    "trainer.max_epochs": 60,
}
TUNED = {
    **CENTRED,
    "data.batch_size": 20,
    "data.views.train.warp": CENTRED_WARP,
    "model.objectives.classification.pool": "mean",
    "model.optimizer.lr": {"start": 0.006, "end": 0.00001, "warmup": 0.1},
    "model.optimizer.layer_decay": 1.0,
    "trainer.check_val_every_n_epoch": 1000,
}
#: The same from nothing, at the recipe's own learning rate: at .004 a draw stayed at chance.
UNTUNED = {**TUNED, **FROM_SCRATCH, "model.optimizer.lr": {"start": 0.002, "end": 0.00001, "warmup": 0.1}}
#: labels a class -> epochs and views: 400 and 500 steps, whatever it starts from. The fewer the pictures,
#: the further they are bent.
FEW: dict[int, tuple[int, dict[str, Any]]] = {
    4: (200, {**CENTRED_WARP, "zoom": [0.7, 1.3], "shear": 20}),
    40: (25, CENTRED_WARP),
}


def few_labels() -> list[Cell]:
    """Trained from 1 and 10 % of the labels of centred digits, pretrained on all of their pictures or not."""
    table = [Cell("labels", "contrastive", "centred", "vision/sit", PRETRAINED)]
    for labels, (epochs, warp) in FEW.items():
        own = {"data.labels": labels, "trainer.max_epochs": epochs, "data.views.train.warp": warp}
        start = {"config": "vision/finetune", "kind": "centred", "table": "labels"}
        pretrained = {**TUNED, **own}
        table.append(Cell(name=f"pretrained-{labels}", overrides=pretrained, init=table[0].key, **start))
        table.append(Cell(name=f"scratch-{labels}", overrides={**UNTUNED, **own}, **start))
    return table


def another_size() -> list[Cell]:
    """Fine-tuned on scikit-learn's digits at 20 pixels a side, from MNIST-5k's 28 or from nothing."""
    table, init = [], "labels-centred-contrastive"
    for labels, epochs in {10: 40, 50: 20}.items():
        own = {"data.size": 20, "data.labels": labels, "trainer.max_epochs": epochs}
        start = {"config": "vision/finetune", "kind": "digits", "table": "another_size"}
        pretrained = {**TUNED, **own}
        table.append(Cell(name=f"pretrained-{labels}", overrides=pretrained, init=init, **start))
        table.append(Cell(name=f"scratch-{labels}", overrides={**UNTUNED, **own}, **start))
    return table


def joint() -> list[Cell]:
    """Labels of a tenth with self-supervision of all pictures at once, and without."""
    views = {f"data.views.{view}.warp": CENTRED_WARP for view in ("labelled", "pair", "turned")}
    own = {**COARSE, **views, "data.labels": 40, "data.batch_size": 64}
    others = ("distillation", "contrastive", "rotation", "reconstruction")
    alone = {f"model.objectives.{name}": None for name in others} | {"model.teacher": None}
    alone |= {"data.views.pair": None, "data.views.turned": None, "data.batch_size": 20}
    return [
        Cell("joint", "together", "centred", "vision/joint-labels", {**own, "trainer.max_epochs": 15}),
        Cell("joint", "alone", "centred", "vision/joint-labels", {**own, **alone, "trainer.max_epochs": 120}),
    ]


def ablation() -> list[Cell]:
    """SiT's tasks alone, in pairs and all, and labels, probed on what they learnt from and on the other."""
    names = ("reconstruction", "rotation", "contrastive")
    some = [combination for size in (1, 2, 3) for combination in combinations(names, size)]
    settings = {"+".join(own): {**tasks(*own), **FIXED} for own in some}
    settings["all-learnt"] = tasks(*names)
    table = []
    for kind, other, epochs in (("centred", "digits", 6), ("digits", "centred", 12)):
        start = {**COARSE, "data.views.train.warp": CENTRED_WARP, "data.batch_size": 64}
        for name, own in settings.items():
            overrides = {**start, "data.size": 28, **own, "trainer.max_epochs": epochs}
            table.append(Cell("ablation", name, kind, "vision/sit", overrides, elsewhere=(other,)))
        labels = {**start, "data.size": 28, "model.optimizer.layer_decay": 1.0, "trainer.max_epochs": epochs}
        table.append(Cell("ablation", "supervised", kind, "vision/finetune", labels, elsewhere=(other,)))
    return table


def self_supervised() -> list[Cell]:
    """Every objective alone on digits, the same encoder and the same views; on shapes, DINO."""
    return [one_row(kind, name) for kind, names in ROWS.items() for name in names]


def one_row(kind: str, name: str) -> Cell:
    """One row on one kind of data; scikit-learn's digits are a third as many."""
    config, own, view, epochs = SELF_SUPERVISED[name]
    shape, distortions = KINDS[kind]
    views = {f"data.views.{view}.{what}": value for what, value in distortions.items()}
    overrides = {**shape, **views, **own, "trainer.max_epochs": epochs * (3 if kind == "digits" else 1)}
    init = f"self_supervised-{kind}-{STARTS[name]}" if name in STARTS else None
    return Cell("self_supervised", name, kind, config, overrides, init)


def cells() -> list[Cell]:
    """All of them, in the order they are run."""
    return [
        Cell("vit", "vit", "centred", "vision/vit", VIT),
        *few_labels(),
        *self_supervised(),
        *another_size(),
        *joint(),
        *ablation(),
    ]
