"""iBOT's loss, heads and averages against the papers' formulas.

Shapes: B samples, G large crops, L tokens of a crop (the first the class token), D width, V prototypes.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from triptych.backbones.teacher import Teacher
from triptych.objectives.masked_distillation import MaskedDistillation
from triptych.objectives.objective import Read, Spec, Step, TokenSpec
from triptych.objectives.self_distillation import SelfDistillation
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View

from .helpers import random_tokens, randomise

B, G, L, D, V = 3, 2, 6, 7, 11
SPEC = TokenSpec("image", None, None, ("class",))


def objective(separate: bool = False, centre: float | None = 0.9, **settings: Any) -> MaskedDistillation:
    crops = SelfDistillation(
        locals=None, prototypes=V, hidden=13, bottleneck=4, centre_momentum=centre, **settings
    )
    made = MaskedDistillation(crops, separate, teacher_temperature=0.06, patches=0.7)
    made.build(Spec(D, 1, {"global": SPEC}, {"image": {}}))
    randomise(made)
    return made.train()


def step() -> Step:
    """Entries of which two have nothing masked, and the others 1 to 4 patches."""
    tokens = random_tokens([L] * G * B, D, ("class",))
    masked = torch.zeros(G * B, L, dtype=torch.bool)
    for entry, count in enumerate((2, 0, 4, 1, 0, 3)):
        masked[entry, 1 + torch.randperm(L - 1)[:count]] = True
    student = replace(tokens, values=tokens.values.requires_grad_(), masked=masked.flatten())
    teacher = random_tokens([L] * G * B, D, ("class",))
    view = View("image", torch.empty(G * B, 1), copies=G)
    return Step({"global": view}, {Read("global"): student, Read("global", "teacher"): teacher})


def naive(made: MaskedDistillation, at: Step) -> Tensor:
    """Eq. 2, picture by picture: the mean over its masked patches, then over all pictures."""
    student, teacher = at[Read("global")], at[Read("global", "teacher")]
    own = made if made.separate else made.crops
    assert student.masked is not None
    centre, losses = made.centring.centre, []
    for entry in range(G * B):
        here = [entry * L + i for i in range(L) if student.masked[entry * L + i]]
        patches = []
        for i in here:
            score = own.teacher_head(teacher.values[i : i + 1])[0].detach()
            p = ((score - centre) / 0.06).softmax(-1)
            q = (own.head(student.values[i : i + 1])[0] / made.crops.student_temperature).softmax(-1)
            patches.append(-(p * q.log()).sum())
        losses.append(torch.stack(patches).mean() if patches else torch.zeros(()))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("separate", [False, True])
def test_loss_and_gradients_are_the_papers(separate: bool) -> None:
    made, at = objective(separate), step()
    made.centring.centre.normal_()
    parameters = [*made.heads()[0].parameters(), at[Read("global")].values]
    expected = naive(made, at)
    wanted = torch.autograd.grad(expected, parameters)
    loss = made(at)
    torch.testing.assert_close(loss.terms["patches"].mean, expected)
    found = torch.autograd.grad(loss.terms["patches"].mean, parameters, retain_graph=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_crops_are_distilled_as_without_patches() -> None:
    made, at = objective(), step()
    alone = made.crops.eval()(at).terms["ce"].mean
    loss = made.eval()(at)
    torch.testing.assert_close(loss.terms["ce"].mean, alone)
    torch.testing.assert_close(loss.total, alone + 0.7 * loss.terms["patches"].mean)


def test_patches_and_crops_are_centred_apart() -> None:
    made, at = objective(), step()
    made(at)
    student, teacher = at[Read("global")], at[Read("global", "teacher")]
    head = made.crops.teacher_head
    torch.testing.assert_close(made.crops.centring.centre, 0.1 * head(teacher.named("class")).mean(0))
    torch.testing.assert_close(made.centring.centre, 0.1 * head(teacher.values[student.masked]).mean(0))


def test_sinkhorn_spreads_the_patches_over_the_prototypes() -> None:
    made, at = objective(centre=None), step()
    assert not dict(made.named_buffers())
    assert made(at).total.isfinite()


@pytest.mark.parametrize("separate", [False, True])
def test_heads_are_averaged_and_frozen_once_each(separate: bool) -> None:
    made, at = objective(separate, freeze_last_layer=1.0), step()
    pairs = made.averaged()
    assert len(pairs) == 1 + separate
    before = [average.prototypes.clone() for _, average in pairs]
    made(at).total.backward()
    made.after_backward(0.0, 0.5)
    assert all(head.prototypes.grad is None and head.mlp[0].weight.grad is not None for head, _ in pairs)
    Teacher(0.75).update(pairs, 0.0)
    for (head, average), old in zip(pairs, before, strict=True):
        torch.testing.assert_close(average.prototypes, 0.75 * old + 0.25 * head.prototypes)


def test_a_batch_in_which_nothing_is_masked() -> None:
    made, at = objective(batch_norm=True), step()
    student = replace(at[Read("global")], masked=torch.zeros(G * B * L, dtype=torch.bool))
    at.encoded[Read("global")] = student  # type: ignore[index]
    loss = made(at)
    assert loss.terms["patches"].mean == 0 and loss.total.isfinite()


def test_a_view_without_a_mask() -> None:
    made, at = objective(), step()
    at.encoded[Read("global")] = replace(at[Read("global")], masked=None)  # type: ignore[index]
    with pytest.raises(UserError, match="needs a view with a mask, but 'global' has none"):
        made(at)
