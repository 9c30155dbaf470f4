"""Parameter groups, slower and frozen layers, on a model that is never trained for long."""

import pytest
import torch
from triptych.tasks.config import merge
from triptych.tasks.optimization import Optimization, layer_of, trained
from triptych.tokenizers.errors import UserError

from .test_learner import SequenceData, Watch, fit, learner

# Teachers are in evaluation mode by design, which Lightning finds strange.
pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")


def built() -> torch.nn.Module:
    module = learner().model
    module.build(SequenceData().views(), SequenceData().facts())
    return module


def test_matrices_decay_and_nothing_else() -> None:
    model = built()
    decayed, spared = Optimization().optimizer(model).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [{names[id(parameter)] for parameter in group["params"]} for group in (decayed, spared)]
    assert groups[0] | groups[1] == {name for name, _ in trained(model)} and not groups[0] & groups[1]
    assert {"encoder.blocks.0.attn.qkv.weight", "objective.members.classify.head.weight"} <= groups[0]
    assert {"encoder.norm.weight", "encoder.blocks.0.mlp.fc1.bias", "objective.log_variance"} <= groups[1]
    assert not any("teacher" in name for name, _ in trained(model))


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", False)])
def test_gradients_are_clipped_in_any_precision(precision: str, fused: bool) -> None:
    """Lightning refuses to clip those of a fused optimiser in mixed precision."""
    module = fit(learner(), SequenceData(), precision=precision, gradient_clip_val=1.0, max_epochs=1)
    assert module.optimizers().param_groups[0]["fused"] == fused


def test_layers_learn_slower_towards_the_input() -> None:
    """Two blocks: heads 1, block 1 by .5, block 0 by .25, the tokenizer by .125."""
    model, settings = built(), Optimization(lr=0.8, layer_decay=0.5)
    optimizer = settings.optimizer(model)
    settings.follow(optimizer, 0.3)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {
        "tokenizers.rows.linear.weight": 0.1,
        "encoder.blocks.0.attn.qkv.weight": 0.2,
        "encoder.blocks.1.norm1.bias": 0.4,
        "encoder.norm.weight": 0.8,
        "objective.members.classify.head.weight": 0.8,
    }
    parameters = dict(model.named_parameters())
    for name, rate in expected.items():
        assert rates[id(parameters[name])] == pytest.approx(rate), name
    assert layer_of("encoder.blocks.11.mlp.fc1.weight", 24) == 12


def test_what_is_frozen_stays_until_its_time_and_for_good() -> None:
    """9 steps: the tokenizer never moves, block 0 not before a third of the run."""
    names = ["tokenizers.rows.linear.weight", "encoder.blocks.0.mlp.fc1.weight", "encoder.norm.weight"]
    seen = Watch(lambda module, _: [module.model.state_dict()[name].clone() for name in names])
    module = learner()
    module.optimization.lr, module.optimization.freeze = (
        0.01,
        {"tokenizers.*": 1.0, "encoder.blocks.0.*": 1 / 3},
    )
    fit(module, SequenceData(), seen)
    moved = [
        [not torch.equal(*pair) for pair in zip(*step, strict=True)]
        for step in zip(seen.before, seen.after, strict=True)
    ]
    assert [step[0] for step in moved] == [False] * 9
    assert [step[1] for step in moved] == [False] * 3 + [True] * 6
    assert [step[2] for step in moved] == [True] * 9


def test_a_pattern_that_freezes_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"'encodr\.\*' in `freeze` must match .*encoder\.blocks\.\*"):
        Optimization(freeze={"encodr.*": 1.0}).freeze_for_good(built())


def test_what_a_config_freezes_is_freed_by_null() -> None:
    """An empty mapping would merge with the config's and free nothing."""
    freed = merge(["series/finetune"], {"model.optimizer.freeze": "null"}).values["model"]["optimizer"]
    assert freed["freeze"] is None
    assert Optimization(freeze=freed["freeze"])._frozen_until("encoder.norm.weight") == 0.0
