"""The learner: schedules, the teacher's turn, resuming, and loaders, through Lightning on tiny runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.backbones.schedule import Schedule
from triptych.backbones.teacher import Teacher
from triptych.objectives.classification import Classification
from triptych.objectives.self_distillation import SelfDistillation
from triptych.tasks.data import Data, EpochSampler, Split, generator, seed_of, seeded
from triptych.tasks.learner import Learner
from triptych.tasks.optimization import Optimization
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import Batch, View

from .helpers import Rows, assert_same

# Teachers are in evaluation mode by design, which Lightning finds strange.
pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")

SAMPLES, BATCH, LENGTH, VALUES, EPOCHS = 14, 4, 5, 3, 3
STEPS = SAMPLES // BATCH  # an epoch; the short batch is dropped


class Sequences:
    """Noisy sequences, whose sign is their label; noise and masks are drawn anew each epoch."""

    def __init__(self, seed: int, broken: bool) -> None:
        self.seed, self.broken = seed, broken

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor, Tensor]:
        epoch, index = key
        draws = generator(self.seed, epoch, index, "train")
        sign = 1 - 2 * (index % 2)
        rows = sign + torch.randn(2, LENGTH, VALUES, generator=draws)
        if self.broken and epoch == 1:
            rows = rows / 0.0
        return index, rows, torch.rand(LENGTH, generator=draws) < 0.3

    def collate(self, items: Sequence[tuple[int, Tensor, Tensor]]) -> Batch:
        label = torch.tensor([index % 2 for index, _, _ in items])
        rows = torch.stack([rows for _, rows, _ in items])
        masked = torch.cat([masked for _, _, masked in items])
        return {
            "train": View("rows", rows[:, 0], masked=masked, targets={"label": label}),
            "global": View("rows", rows.transpose(0, 1).flatten(0, 1), copies=2),
        }


class SequenceData(Data):
    def __init__(self, broken: bool = False, **settings: int) -> None:
        super().__init__(batch_size=BATCH, **settings)
        self.broken = broken

    def views(self) -> dict[str, str]:
        return {"train": "rows", "global": "rows"}

    def facts(self) -> dict[str, dict[str, Any]]:
        return {"rows": {"values": VALUES, "classes": ["plus", "minus"]}}

    def samples(self, split: Split, plain: bool = False) -> Sequences:
        return Sequences(self.seed if split == "train" else 77, self.broken)


def learner(seed: int = 0) -> Learner:
    """A model with everything that draws at random or keeps state: dropout, stochastic depth, a centre."""
    torch.manual_seed(seed)
    return Learner(
        tokenizers={"rows": Rows(("class",))},
        encoder=Encoder(12, 2, 3, drop_path=0.3, block=BlockOptions(dropout=0.2)),
        objectives={
            "classify": Classification(),
            "distil": SelfDistillation(locals=None, prototypes=11, hidden=13, bottleneck=5, batch_norm=True),
        },
        weighting="learned",
        teacher=Teacher(Schedule(0.5, 1.0)),
        optimizer=Optimization(
            lr=Schedule(0.01, 0.001, warmup=0.25), weight_decay=Schedule(0.1, 0.4, shape="linear")
        ),
    )


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        **({"max_epochs": EPOCHS} | settings),
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def fit(
    module: Learner, data: Data, *callbacks: Callback, resume: Path | None = None, **settings: Any
) -> Learner:
    trainer(*callbacks, **settings).fit(module, datamodule=data, ckpt_path=resume)
    return module


class Watch(Callback):
    """Notes what `look` sees right before each optimiser step, and after it."""

    def __init__(self, look: Callable[[Learner, Any], Any]) -> None:
        self.look, self.before, self.after = look, [], []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Any) -> None:
        self.before.append(self.look(pl_module, optimizer))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Learner, *_: Any) -> None:
        self.after.append(self.look(pl_module, pl_module.optimizers()))


def test_learning_rate_and_weight_decay_follow_their_schedules() -> None:
    rates = Watch(lambda _, optimizer: [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups])
    module = fit(learner(), SequenceData(), rates)
    settings, total = module.optimization, EPOCHS * STEPS
    assert len(rates.before) == total
    for step, (matrices, vectors) in enumerate(rates.before):
        lr, decay = settings.lr(step / total), settings.weight_decay(step / total)
        assert matrices == pytest.approx((lr, decay))
        assert vectors == pytest.approx((lr, 0.0))


def test_learning_happens() -> None:
    losses = Watch(lambda module, _: module.trainer.callback_metrics["train/loss"].item())
    fit(learner(), SequenceData(), losses, max_epochs=12)
    assert sum(losses.after[-STEPS:]) < 0.8 * sum(losses.after[:STEPS])


@pytest.mark.parametrize("accumulate", [1, 2])  # an epoch has 3 batches: its last one steps alone
def test_the_teacher_moves_after_each_optimiser_step(accumulate: int) -> None:
    """By momentum(step / steps), towards the student as the step left it."""

    def look(module: Learner, _: Any) -> list[dict[str, Tensor]]:
        distil = module.model.objective["distil"]
        modules = {
            "student": torch.nn.ModuleList([module.model.tokenizers, module.model.encoder, distil.head]),
            "teacher": torch.nn.ModuleList(
                [module.model.teacher.tokenizers, module.model.teacher.encoder, distil.teacher_head]
            ),
        }
        return [{n: p.detach().clone() for n, p in m.named_parameters()} for m in modules.values()]

    watch = Watch(look)
    module = fit(learner(), SequenceData(), watch, accumulate_grad_batches=accumulate)
    total = EPOCHS * -(-STEPS // accumulate)
    assert len(watch.before) == total == module.total_steps
    stepping = [batch for batch in range(1, STEPS + 1) if batch % accumulate == 0 or batch == STEPS]
    after = [watch.after[epoch * STEPS + batch - 1] for epoch in range(EPOCHS) for batch in stepping]
    for step, ((_, old), (student, new)) in enumerate(zip(watch.before, after, strict=True)):
        momentum = module.model.teacher.momentum(step / total)
        moved = {name: momentum * was + (1 - momentum) * student[name] for name, was in old.items()}
        assert_same(new, moved, atol=1e-6, rtol=1e-5)


def test_the_run_ends_at_whichever_limit_comes_first() -> None:
    assert fit(learner(), SequenceData(), max_steps=5).total_steps == 5
    assert fit(learner(), SequenceData(), max_steps=500, max_epochs=2).total_steps == 2 * STEPS
    with pytest.raises(UserError, match=r"max_epochs or trainer\.max_steps"):
        fit(learner(), SequenceData(), max_epochs=-1)


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    with pytest.raises(UserError, match=rf"stay finite, but at step {STEPS} its terms are .*nan"):
        fit(learner(), SequenceData(broken=True))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("when", [True, None], ids=["epoch's end", "validation's end"])
def test_a_resumed_run_goes_on_bit_for_bit(when: bool | None, tmp_path: Path) -> None:
    """From the checkpoint of the second epoch; the other initialisation is overwritten."""

    def every_epoch() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=when)

    whole = fit(learner(), SequenceData(), every_epoch()).state_dict()
    steps = Watch(lambda module, _: module.global_step)
    resumed = fit(learner(seed=5), SequenceData(), every_epoch(), steps, resume=tmp_path / "epoch=1.ckpt")
    assert_same(resumed.state_dict(), whole, atol=0, rtol=0)
    assert steps.before == list(range(2 * STEPS, EPOCHS * STEPS))


def test_a_run_repeats_itself_and_another_seed_does_not() -> None:
    one, same, other = (fit(learner(), SequenceData(seed=seed)).state_dict() for seed in (3, 3, 4))
    assert_same(one, same, atol=0, rtol=0)
    name = "model.encoder.blocks.0.mlp.fc1.weight"
    assert not torch.allclose(one[name], other[name])


def test_validation_leaves_training_as_it_is() -> None:
    """Neither what it draws nor what it sees reaches weights, centre or running statistics."""
    without = fit(learner(), SequenceData(), limit_val_batches=0)
    assert_same(fit(learner(), SequenceData()).state_dict(), without.state_dict(), atol=0, rtol=0)


def test_held_out_losses_are_the_same_in_a_run_and_after_it() -> None:
    watch = Watch(lambda *_: None)
    watch.on_validation_end = lambda trainer, _: watch.after.append(dict(trainer.callback_metrics))
    module = fit(learner(), SequenceData(), watch)
    in_the_run = [figures for figures in watch.after if figures][-1]["val/classify/ce"].item()
    (validated,) = trainer().validate(module, datamodule=SequenceData(), verbose=False)
    (tested,) = trainer().test(module, datamodule=SequenceData(), verbose=False)
    assert validated["val/classify/ce"] == tested["test/classify/ce"] == pytest.approx(in_the_run)


def test_the_number_of_workers_changes_nothing() -> None:
    alone, helped = (fit(learner(), SequenceData(workers=n), max_epochs=2).state_dict() for n in (0, 2))
    assert_same(helped, alone, atol=0, rtol=0)


# What the loaders draw.


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    sampler, again = EpochSampler(SAMPLES, 3), EpochSampler(SAMPLES, 3)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        again.set_epoch(epoch)
        torch.rand(1)  # the global generator does not matter
        assert list(sampler) == list(again)
        assert sorted(sampler) == [(epoch, index) for index in range(SAMPLES)]
        orders.append([index for _, index in sampler])
    assert orders[0] != orders[1]
    assert list(EpochSampler(3, None)) == [(0, 0), (0, 1), (0, 2)]


def test_evaluation_sees_every_sample_in_order_as_in_epoch_zero() -> None:
    data = SequenceData()
    loaded = [view for batch in data.val_dataloader() for view in batch["train"].data]
    expected = [data.samples("val")[0, index][1][0] for index in range(SAMPLES)]
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)
    assert sum(len(batch["train"]) for batch in data.train_dataloader()) == STEPS * BATCH


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert seed_of(0, 1, "train") == 6274752650675379668
    assert seed_of(0, 1, "train") != seed_of(1, 0, "train") != seed_of(0, 1, "val")


def test_seeded_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with seeded(1, "x"):
        inside = torch.rand(3)
    torch.testing.assert_close(torch.rand(3), expected)
    with seeded(1, "x"):
        torch.testing.assert_close(torch.rand(3), inside)
