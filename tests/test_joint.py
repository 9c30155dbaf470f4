"""Several data sets of several modalities in every step of one encoder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from triptych.tasks.joint.data import InTurn, Joint, Together
from triptych.tokenizers.errors import UserError

from .test_learner import BATCH, SAMPLES, SequenceData, fit


class Words(SequenceData):
    """The same under another modality, in batches of another size."""

    def __init__(self, size: int = 2, modality: str = "words") -> None:
        super().__init__()
        self.batch_size, self.modality = size, modality

    def views(self) -> dict[str, str]:
        return {"train": self.modality, "global": self.modality}

    def facts(self) -> dict[str, dict[str, Any]]:
        return {self.modality: super().facts()["rows"]}


def joint(**settings: Any) -> Joint:
    made = Joint({"long": Words(), "short": SequenceData()}, **settings)
    made.setup("fit")
    return made


def seen(batches: list[dict[str, Any]], view: str) -> list[tuple[Tensor, ...]]:
    return [tuple(batch[view].data) for batch in batches]


def test_views_are_named_by_their_member() -> None:
    data = joint()
    assert data.views() == {
        "long.train": "words",
        "long.global": "words",
        "short.train": "rows",
        "short.global": "rows",
    }
    assert data.facts().keys() == {"words", "rows"}


def test_an_epoch_is_a_pass_over_the_longest_and_the_others_start_over_anew() -> None:
    together = joint().train_dataloader()
    assert isinstance(together, Together) and len(together) == SAMPLES // 2
    batches = list(together)
    assert all(batch.keys() == joint().views().keys() for batch in batches) and len(batches) == 7
    short = seen(batches, "short.train")  # 3 batches a pass: passes 0, 1 and a batch of 2
    assert [len(batch) for batch in short] == [BATCH] * 7
    first, again = torch.stack(short[0]), torch.stack(short[3])
    assert not torch.equal(first, again)


def test_what_is_drawn_depends_on_the_epoch_alone() -> None:
    def drawn(epoch: int) -> list[Tensor]:
        together = joint().train_dataloader()
        together.sampler.set_epoch(epoch)
        return [torch.stack(batch) for batch in seen(list(together), "short.train")]

    for one, same, other in zip(drawn(1), drawn(1), drawn(2), strict=True):
        assert torch.equal(one, same) and not torch.equal(one, other)


def test_held_out_batches_come_one_member_after_the_other() -> None:
    held = joint().val_dataloader()
    assert isinstance(held, InTurn)
    names = [sorted(batch) for batch in held]
    assert names == [["long.global", "long.train"]] * 7 + [["short.global", "short.train"]] * 4
    assert len(held) == len(names)


def test_members_of_one_modality_are_refused() -> None:
    with pytest.raises(UserError, match="'a' and 'b' are both of 'words'"):
        Joint({"a": Words(), "b": Words()}).setup("fit")


def test_commands_on_a_finished_run_choose_a_member() -> None:
    assert isinstance(joint(only="long").chosen(), Words)
    with pytest.raises(UserError, match=r"choose with --data\.only, of \['long', 'short'\]"):
        joint().chosen()
    with pytest.raises(UserError, match=r"one of \['long', 'short'\], but is 'other'"):
        joint(only="other")


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_one_encoder_learns_from_both(tmp_path: Path) -> None:
    """The encoder's gradient is the sum of what either member alone would give."""
    from triptych.backbones.encoder import Encoder
    from triptych.objectives.classification import Classification
    from triptych.tasks.learner import Learner

    from .helpers import Rows
    from .test_learner import Watch

    def gradient(**weights: float) -> Tensor:
        torch.manual_seed(0)
        objectives = {
            name: Classification(f"{name}.train", weight=weights.get(name, 0.0)) for name in ("long", "short")
        }
        tokenizers = {"words": Rows(("class",)), "rows": Rows(("class",))}
        module = Learner(tokenizers, Encoder(12, 1, 3), objectives)
        look = Watch(lambda m, _: m.model.encoder.blocks[0].attn.qkv.weight.grad.clone())
        fit(module, joint(), look, max_steps=1, limit_val_batches=0)
        return look.before[0]

    both = gradient(long=1.0, short=2.0)
    torch.testing.assert_close(both, gradient(long=1.0) + gradient(short=2.0))
    assert gradient(long=1.0).abs().sum() > 0 and gradient(short=2.0).abs().sum() > 0
