"""DINO's loss, head, centre and phases against the paper's formulas.

Shapes: B samples, G global crops, M local crops, D width, V prototypes.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from triptych.backbones.schedule import Schedule
from triptych.backbones.teacher import Teacher
from triptych.objectives.objective import Read, Spec, Step, TokenSpec
from triptych.objectives.self_distillation import PrototypeHead, SelfDistillation, distillation
from triptych.tokenizers.tokens import Tokens
from triptych.tokenizers.view import View

from .helpers import random_tokens, randomise

B, G, M, D, V = 5, 2, 3, 7, 11


def objective(**settings: Any) -> SelfDistillation:
    """An objective with random heads, the teacher's unlike the student's."""
    made = SelfDistillation(**{"prototypes": V, "hidden": 13, "bottleneck": 4, **settings})
    spec = TokenSpec("image", None, None, ("class",))
    made.build(Spec(D, 1, {"global": spec, "local": spec}, {"image": {}}))
    randomise(made)
    return made.train()


def step(progress: float = 0.0, local: bool = True) -> Step:
    """Random tokens of 2 global crops and 3 local ones; those of the teacher are others."""
    sizes = {"global": (G * B, 4), "local": (M * B, 2)} if local else {"global": (G * B, 4)}
    views = {name: View("image", torch.empty(n, 1), copies=n // B) for name, (n, _) in sizes.items()}
    encoded: dict[Read, Tokens] = {}
    for name, (n, length) in sizes.items():
        tokens = random_tokens([length] * n, D, ("class",))
        encoded[Read(name)] = tokens.with_values(tokens.values.requires_grad_())
    encoded[Read("global", "teacher")] = random_tokens([4] * G * B, D, ("class",))
    return Step(views, encoded, progress)


def naive(made: SelfDistillation, at: Step, teacher_temperature: float) -> Tensor:
    """Algorithm 1 of Caron et al. 2021, crop by crop and sample by sample."""
    student, teacher = [], []
    for name in (name for name in ("global", "local") if name in at.views):
        scores = made.head(at[Read(name)].named("class"))
        student += [scores[c * B : (c + 1) * B] for c in range(at.views[name].copies)]
    scores = made.teacher_head(at[Read("global", "teacher")].named("class")).detach()
    teacher = [scores[c * B : (c + 1) * B] for c in range(G)]
    total, pairs = torch.zeros(()), 0
    for i, t in enumerate(teacher):
        p = torch.softmax((t - made.centring.centre) / teacher_temperature, dim=-1)
        for j, s in enumerate(student):
            if i == j:
                continue
            q = torch.softmax(s / made.student_temperature, dim=-1)
            total = total - (p * q.log()).sum(-1).mean()
            pairs += 1
    return total / pairs


@pytest.mark.parametrize("local", [True, False])
def test_loss_and_gradients_are_the_papers(local: bool) -> None:
    made = objective(locals="local" if local else None)
    at = step(local=local)
    inputs = [at[Read(name)].values for name in at.views]
    parameters = [*made.head.parameters(), *inputs]
    expected = naive(made, at, 0.04)
    wanted = torch.autograd.grad(expected, parameters)
    loss = made(at)
    torch.testing.assert_close(loss.total, expected)
    assert loss.terms["ce"].count == B * (G * (G + (M if local else 0)) - G)
    for found, want in zip(torch.autograd.grad(loss.total, parameters), wanted, strict=True):
        torch.testing.assert_close(found, want)


def test_the_teacher_is_not_trained() -> None:
    made, at = objective(), step()
    made(at).total.backward()
    assert all(p.grad is None and not p.requires_grad for p in made.teacher_head.parameters())
    assert all(p.grad is not None for p in made.head.parameters())


def test_the_teachers_temperature_follows_its_schedule() -> None:
    made = objective(teacher_temperature=Schedule(0.07, warmup=0.3, warmup_from=0.04))
    at = step(progress=0.1)
    torch.testing.assert_close(naive(made, at, 0.05), made(at).total)


def test_the_centre_is_an_average_of_the_teachers_scores() -> None:
    made, at = objective(centre_momentum=0.8), step()
    before = torch.randn(V)
    made.centring.centre.copy_(before)
    with torch.no_grad():
        batch = made.teacher_head(at[Read("global", "teacher")].named("class")).mean(0)
    expected = naive(made, at, 0.04)  # the centre of the step before
    torch.testing.assert_close(made(at).total, expected)
    torch.testing.assert_close(made.centring.centre, 0.8 * before + 0.2 * batch)
    held = made.eval().centring.centre.clone()
    made(at)
    assert torch.equal(made.centring.centre, held)


def test_scores_are_cosines_with_prototypes() -> None:
    head = PrototypeHead(D, 13, 4, V, batch_norm=False)
    randomise(head)
    x = torch.randn(B, D)
    scores = head(x)
    torch.testing.assert_close(
        scores, F.cosine_similarity(head.mlp(x)[:, None], head.prototypes[None], dim=-1)
    )
    with torch.no_grad():
        head.prototypes.mul_(3)
    torch.testing.assert_close(head(x), scores)


def test_batch_norm_stands_before_each_activation() -> None:
    kinds = [type(layer).__name__ for layer in PrototypeHead(D, 13, 4, V, batch_norm=True).mlp]
    assert kinds == ["Linear", "BatchNorm1d", "GELU"] * 2 + ["Linear"]


def test_the_teachers_batch_norm_goes_by_the_batch_in_training() -> None:
    """Also where a trainer keeps the mode in which it found each module."""
    made, at = objective(batch_norm=True), step()
    made.teacher_head.eval()
    told = made.head.mlp[:2](at[Read("global", "teacher")].named("class"))
    heard: list[Tensor] = []
    made.teacher_head.mlp[1].register_forward_hook(lambda _, __, out: heard.append(out))
    made.teacher_head.load_state_dict(made.head.state_dict())
    made(at)
    torch.testing.assert_close(heard[0], told)


def test_prototypes_wait_for_the_first_epochs() -> None:
    made, at = objective(freeze_last_layer=1.5), step()
    for epoch, moves in ((0.0, False), (1.49, False), (1.5, True)):
        made.zero_grad()
        made(at).total.backward()
        made.after_backward(0.0, epoch)
        assert (made.head.prototypes.grad is not None) == moves
        assert made.head.mlp[0].weight.grad is not None


def test_the_teachers_head_moves_with_the_teacher() -> None:
    made = objective()
    (pair,) = made.averaged()
    before, student = made.teacher_head.prototypes.clone(), made.head.prototypes
    Teacher(0.9).update([pair], 0.0)
    torch.testing.assert_close(made.teacher_head.prototypes, 0.9 * before + 0.1 * student)


def test_closed_form_uniform() -> None:
    loss, pairs = distillation(torch.full((G, B, V), 1 / V), torch.zeros(G + M, B, V))
    assert pairs == G * (G + M) - G
    assert loss.item() == pytest.approx(pairs * B * math.log(V), rel=1e-5)


@pytest.mark.parametrize(("scores", "entropy", "used"), [(0.0, math.log(V), 1), (50.0, 0.0, 3)])
def test_figures_tell_a_collapse(scores: float, entropy: float, used: int) -> None:
    """A teacher of equal scores is uniform; of one high score each, spread over three prototypes, certain."""
    made, at = objective(), step()
    told = torch.zeros(G * B, V)
    told[torch.arange(G * B), torch.arange(G * B) % 3] = scores
    made.teacher_head = torch.nn.Identity()
    at.encoded[Read("global", "teacher")] = _class_tokens(told)  # type: ignore[index]
    metrics = made(at).metrics
    assert metrics["teacher_entropy"].item() == pytest.approx(entropy, abs=1e-5)
    assert metrics["prototypes_used"].item() == pytest.approx(used / V)
    loss = made(at).total
    assert metrics["kl"].item() >= -1e-5
    assert loss.isfinite()


def _class_tokens(values: Tensor) -> Tokens:
    tokens = random_tokens([1] * len(values), values.shape[1], ("class",))
    return tokens.with_values(values)
