"""Callbacks that look after a run: what features are worth while they are learnt, and what fails.

Shapes: N samples, Q views of each, D feature width.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from ..objectives.classification import Classification
from ..objectives.quantiser import GumbelQuantiser
from ..objectives.rotation import Rotation
from ..tokenizers.view import Batch
from .data import Data, Samples, Split
from .evaluation.heads import Recipe
from .evaluation.judge import judge
from .evaluation.rank import lidar, rankme, spread
from .evaluation.sweep import Parts, Sample, sweep
from .features import Features, Reading, knn_predict, read, read_features
from .model import Model

LOG = logging.getLogger("triptych")


class Watch(Callback):
    """Every few epochs: nearest neighbours, a linear probe, RankMe, LiDAR and spread of frozen features.

    Logged as `SPLIT/knn`, `SPLIT/linear`, `SPLIT/rankme`, `SPLIT/lidar`, `SPLIT/spread`, and into
    `metrics.csv`. Labels are read for the first two alone, and these are left out where there are none. The
    training draws the same numbers with it and without.

    Args:
        split: whose samples are judged, by neighbours and a probe from the train part.
        every: epochs from one look to the next; the last epoch is looked at too.
        samples: of either part, at most, spread evenly over it.
        views: Q for LiDAR, drawn anew as in training, of a tenth of the samples.
        k: neighbours that vote.
        pool: what of the tokens is read.
    """

    def __init__(
        self,
        split: Split = "val",
        every: int = 5,
        samples: int = 1000,
        views: int = 8,
        k: int = 20,
        pool: str = "auto",
    ) -> None:
        self.split, self.every, self.samples, self.views, self.k = split, every, samples, views, k
        self.reading = Reading(pool)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, if it is time, and log what is seen."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every and epoch != trainer.max_epochs:
            return
        data: Data = trainer.datamodule  # type: ignore[attr-defined]
        model: Model = pl_module.model  # type: ignore[assignment]
        model.eval()
        with torch.random.fork_rng():
            figures = self.look(model, data)
        model.train()
        pl_module.log_dict({f"{self.split}/{name}": value for name, value in figures.items()})

    def look(self, model: Model, data: Data) -> dict[str, float]:
        """The figures of a model in evaluation mode."""
        held = self._features(model, data, self.split)
        figures = {
            "rankme": rankme(held.x),
            "width": float(held.x.shape[1]),
            "spread": spread(held.x),
        }
        drawn = self.drawn(model, data)
        if (drawn - drawn.mean(1, keepdim=True)).abs().max() > 1e-6:  # views that differ at all
            figures["lidar"] = lidar(drawn)
        train, held = self._features(model, data, "train").labelled(), held.labelled()
        if len(held.label) and len(train.label.unique()) > 1:
            figures |= self._by_labels(train, held)
        return figures

    @torch.no_grad()
    def drawn(self, model: Model, data: Data) -> Tensor:
        """Features `(N, Q, D)` of training views of a few train samples, clean but augmented."""
        samples = data.samples("train")
        chosen = evenly(len(samples), max(2, self.samples // 10))
        name = next(iter(data.views()))
        device, rows = next(model.parameters()).device, []
        for index in chosen:
            batch: Batch = samples.collate([samples[epoch, index] for epoch in range(self.views)])
            (x,) = read(model, batch[name].whole().to(device), [self.reading])
            rows.append(x.cpu())
        return torch.stack(rows)

    def _by_labels(self, train: Features, held: Features) -> dict[str, float]:
        near = knn_predict(train.x, train.label, held.x, self.k)
        share = held.label.bincount().max() / len(held.label)
        half = torch.arange(len(train.label)) % 10 > 0
        parts = (
            Sample(train.x[half], train.label[half]),
            Sample(train.x[~half], train.label[~half]),
            Sample(held.x, held.label),
        )
        told, _ = sweep([Parts("", ((parts[0],), (parts[1],), (parts[2],)))], Recipe(epochs=20), seeds=1)
        return {
            "knn": float((near == held.label).double().mean()),
            "knn_chance": float(share),
            "linear": float((told == held.label).double().mean()),
        }

    def _features(self, model: Model, data: Data, split: Split) -> Features:
        samples = data.samples(split, plain=True)
        (found,) = read_features(model, batches(samples, evenly(len(samples), self.samples)), [self.reading])
        return found


class Health(Callback):
    """Logs what a collapse is judged by, judges every epoch, and tells the log what fails, since when."""

    def __init__(self) -> None:
        self.history: list[tuple[int, dict[str, float]]] = []
        self.told: set[tuple[str, str]] = set()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Log the norm of all gradients, before they are clipped, at the steps that are logged."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            pl_module.log("train/gradient_norm", norm, on_step=False, on_epoch=True, batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, judge, and tell what has not been told."""
        pl_module.log_dict({f"train/{name}": value for name, value in constants(pl_module.model).items()})  # type: ignore[arg-type]
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.history.append((trainer.current_epoch, figures))
        for finding in judge(self.history):
            if (finding.name, finding.group) not in self.told:
                self.told.add((finding.name, finding.group))
                LOG.warning(str(finding))


def constants(model: Model) -> dict[str, float]:
    """What the figures of a model's objectives are judged by, and the norm of the largest centre.

    `NAME/ln_prototypes`, `NAME/ln_classes`, `NAME/codebooks`, `NAME/centre_norm`, by the objective's name.
    """
    found: dict[str, float] = {}
    for name, member in model.objective:
        for part in member.modules():  # a composite's parts count as the composite's
            prototypes, quantiser = getattr(part, "prototypes", None), getattr(part, "quantiser", None)
            if isinstance(prototypes, int):
                found[f"{name}/ln_prototypes"] = math.log(prototypes)
            if isinstance(part, Classification | Rotation):
                found[f"{name}/ln_classes"] = math.log(part.head.out_features)
            if isinstance(quantiser, GumbelQuantiser):
                found[f"{name}/codebooks"] = float(quantiser.groups)
        centres = [
            float(b.norm()) for buffer, b in member.named_buffers() if buffer.split(".")[-1] == "centre"
        ]
        if centres:
            found[f"{name}/centre_norm"] = max(centres)
    return found


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spread."""
    return list(range(count)) if count <= most else [index * count // most for index in range(most)]


def batches(samples: Samples, indices: Sequence[int], size: int = 64) -> Iterator[Batch]:
    """Some samples as a loader gives them, at epoch 0."""
    for start in range(0, len(indices), size):
        items: list[Any] = [samples[0, index] for index in indices[start : start + size]]
        yield samples.collate(items)
