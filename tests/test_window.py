"""Gradients accumulated over micro-batches are those of one batch, for terms that count tokens."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from triptych.backbones.encoder import Encoder
from triptych.objectives.objective import Loss, Term
from triptych.objectives.reconstruction import Reconstruction
from triptych.tasks.learner import Learner
from triptych.tasks.window import Windows
from triptych.tokenizers.errors import UserError

from .helpers import Rows, assert_same
from .test_learner import SequenceData, Watch, fit


class Narrow(SequenceData):
    """The same samples in the same order, `size` at a time."""

    def __init__(self, size: int, **settings: int) -> None:
        super().__init__(**settings)
        self.batch_size = size

    def views(self) -> dict[str, str]:
        return {"train": "rows"}


def first_gradients(size: int, accumulate: int) -> dict[str, Tensor]:
    """Of the first optimiser step, which sees 12 samples whose masks hold unequal numbers of tokens."""
    torch.manual_seed(0)
    module = Learner({"rows": Rows()}, Encoder(12, 1, 3), {"tell": Reconstruction("train")})
    look = Watch(
        lambda m, _: {n: p.grad.clone() for n, p in m.model.named_parameters() if p.grad is not None}
    )
    fit(module, Narrow(size), look, accumulate_grad_batches=accumulate, max_steps=1, limit_val_batches=0)
    return look.before[0]


@pytest.mark.parametrize(("size", "accumulate"), [(4, 3), (3, 4), (2, 6)])
def test_micro_batches_give_the_gradient_of_one_batch(size: int, accumulate: int) -> None:
    assert_same(first_gradients(size, accumulate), first_gradients(12, 1), atol=1e-6, rtol=1e-4)


def test_a_step_cut_short_is_divided_as_its_gradients_are() -> None:
    """Five batches in steps of two: Lightning halves the gradient of the fifth, so its counts are halved."""
    loader: Any = [{"x": 3}, {"x": 5}, {"x": 7}, {"x": 1}, {"x": 4}]
    windows = Windows(loader, 2, lambda batch: {"term": batch["x"]})
    assert list(windows) == loader and len(windows) == 5
    assert [windows.means[i]["term"] for i in range(5)] == [4, 4, 4, 4, 2]


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing shares out the samples of a loader that looks ahead."""
    monkeypatch.setattr(Trainer, "world_size", 2)
    with pytest.raises(UserError, match=r"need one process .*, but the trainer has 2"):
        first_gradients(4, 3)


def test_terms_of_unknown_count_keep_their_own() -> None:
    loss = Loss({"a": Term(torch.tensor(6.0), 2), "b": Term(torch.tensor(6.0), 3)})
    assert loss.over({"a": 4}).total.item() == 6 / 4 + 6 / 3
    assert loss.total.item() == 6 / 2 + 6 / 3
