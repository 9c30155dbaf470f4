"""The only LightningModule: each step's loss, schedules, and the teacher's turn after it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ..backbones.encoder import Encoder
from ..backbones.teacher import Teacher
from ..objectives.gather import mean_counts
from ..objectives.objective import Branch, Loss, Objective, Term
from ..tokenizers.errors import UserError
from ..tokenizers.tokenizer import Tokenizer
from ..tokenizers.view import Batch
from .data import Data, seed_of
from .model import Model
from .optimization import Optimization
from .window import Windows


class Learner(LightningModule):
    """Trains a `Model`.

    Args:
        tokenizers: by modality.
        encoder: shared by all of them.
        objectives: by name.
        weighting: `fixed` or `learned` weights of the objectives.
        teacher: an average of the student, or None.
        evaluate_with: which branch later commands load.
        optimizer: AdamW's settings.
    """

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        encoder: Encoder,
        objectives: dict[str, Objective],
        weighting: Literal["fixed", "learned"] = "fixed",
        teacher: Teacher | None = None,
        evaluate_with: Branch = "student",
        optimizer: Optimization | None = None,
    ) -> None:
        super().__init__()
        self.model = Model(tokenizers, encoder, objectives, weighting, teacher, evaluate_with)
        self.optimization = optimizer or Optimization()
        self.total_steps = 1
        self.run_seed = 0
        self.batch_in_epoch = 0

    def setup(self, stage: str) -> None:
        """Size the model by the data, once its facts are known."""
        data: Data = self.trainer.datamodule  # type: ignore[attr-defined]
        data.attach(dict(self.model.tokenizers.items()))  # type: ignore[arg-type]
        data.look_ahead(self.trainer.accumulate_grad_batches, self.model.objective.counts)
        self.model.build(data.views(), data.facts())
        self.optimization.freeze_for_good(self.model)
        self.run_seed = data.seed

    def configure_optimizers(self) -> Optimizer:
        """AdamW over what is not frozen for good."""
        return self.optimization.optimizer(self.model, fused="mixed" not in self.trainer.precision)

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return min(self.global_step / self.total_steps, 1.0)

    def on_train_start(self) -> None:
        """Find the run's length, which all schedules share.

        Raises:
            UserError: the length is not given, or several processes would draw the same samples.
        """
        trainer = self.trainer
        if trainer.world_size > 1 and not isinstance(trainer.train_dataloader, DataLoader):
            raise UserError(
                "accumulated gradients and joint data need one process (trainer.devices: 1), "
                f"but the trainer has {trainer.world_size}"
            )
        batches = trainer.num_training_batches
        lengths = []
        if trainer.max_steps > 0:
            lengths.append(trainer.max_steps)
        if trainer.max_epochs is not None and trainer.max_epochs > 0 and batches != float("inf"):
            lengths.append(trainer.max_epochs * -(-int(batches) // trainer.accumulate_grad_batches))
        if not lengths:
            raise UserError("the run's length must be given: trainer.max_epochs or trainer.max_steps")
        self.total_steps = max(min(lengths), 1)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set this step's learning rate, weight decay and randomness.

        Dropout and sampling draw from (seed, step) alone, so that a resumed run goes on exactly.
        """
        self.batch_in_epoch = batch_idx
        torch.manual_seed(seed_of(self.run_seed, self.current_epoch, batch_idx, self.global_rank, "step"))
        self.optimization.follow(self.optimizers(), self.progress)  # type: ignore[arg-type]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted loss of a batch.

        Raises:
            UserError: the loss is not finite; the last checkpoint is kept.
        """
        loss: Loss = self.model(batch, self.progress, self.epochs)
        total = loss.over(self._counts(batch, batch_idx)).total
        if not torch.isfinite(total):
            terms = {name: term.mean.item() for name, term in loss.terms.items()}
            raise UserError(
                f"the loss must stay finite, but at step {self.global_step} its terms are {terms}"
            )
        self._log(loss, "train", batch)
        # DDP wants a gradient for every parameter, also of what this batch did not use
        return total + self.model.anchor() if self.trainer.world_size > 1 else total

    def _counts(self, batch: Batch, batch_idx: int) -> dict[str, float]:
        """The mean counts over the micro-batches and ranks of this optimiser step."""
        windows = self._windows()
        known = self.model.objective.counts(batch) if windows is None else windows.means.pop(batch_idx)
        return mean_counts(known)

    def _windows(self) -> Windows | None:
        loader = self.trainer.train_dataloader
        return loader if isinstance(loader, Windows) else None

    @property
    def epochs(self) -> float:
        """Epochs done, with fractions."""
        # Lightning counts infinitely many training batches until it trains
        return self.current_epoch + self.batch_in_epoch / max(self.trainer.num_training_batches, 1)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clear the gradients of what is frozen now."""
        self.model.objective.after_backward(self.progress, self.epochs)
        self.optimization.clear_frozen(self.model, self.progress)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the averages."""
        super().optimizer_step(*args, **kwargs)
        self.model.update_teacher(self.progress)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same loss on held-out data, logged under `val/`."""
        self._log(self.model(batch, self.progress, self.epochs), "val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same loss on the test part, logged under `test/`."""
        self._log(self.model(batch, self.progress, self.epochs), "test", batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """What the one predicting objective says of the plain view."""
        (view,) = batch.values()
        return self.model.predict(view)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the spec beside the weights, as plain data."""
        checkpoint["triptych"] = self.model.describe()

    def _log(self, loss: Loss, stage: str, batch: Batch) -> None:
        size = max(view.samples for view in batch.values())
        figures = {name: (term.mean.detach(), size) for name, term in loss.terms.items()}
        for name, figure in loss.metrics.items():
            figures[name] = (figure.mean, int(figure.count)) if isinstance(figure, Term) else (figure, size)
        train = stage == "train"
        self.log(
            f"{stage}/loss",
            loss.total.detach(),
            prog_bar=True,
            batch_size=size,
            on_step=train,
            on_epoch=not train,
        )
        for name, (figure, count) in figures.items():
            self.log(
                f"{stage}/{name}",
                figure,
                batch_size=count,
                on_step=False,
                on_epoch=True,
                sync_dist=not train,
            )
