"""Classification: cross-entropy with smoothing, soft labels and unlabelled samples; pooling.

Shapes: n entries, D width, K classes.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from triptych.objectives.classification import Classification, pooled
from triptych.objectives.objective import Loss, Read, Spec, Step, TokenSpec
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.tokens import Tokens
from triptych.tokenizers.view import View

from .helpers import random_tokens

N, D, K, L = 5, 7, 3, 4


def objective(classes: list[str] | None = None, **settings: object) -> Classification:
    made = Classification(**settings)  # type: ignore[arg-type]
    facts = {"any": {"classes": ["a", "b", "c"] if classes is None else classes}}
    made.build(Spec(D, 1, {"train": TokenSpec("any", None, None, ("class",))}, facts))
    return made


def tokens() -> Tokens:
    made = random_tokens([L] * N, D, ("class",))
    return made.with_values(made.values.requires_grad_())


def run(made: Classification, of: Tokens, label: Tensor, **targets: Tensor) -> Loss:
    view = View("any", torch.empty(len(label), 1), targets={"label": label, **targets})
    return made(Step({"train": view}, {Read("train"): of}))


def naive(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """`-sum_k ((1 - e) y_k + e / K) log p_k`, summed over the entries (Szegedy et al. 2016, section 7)."""
    mixed = (1 - smoothing) * target + smoothing / K
    return -(mixed * logits.softmax(1).log()).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_loss_and_gradient_of_hard_labels(pool: str, smoothing: float) -> None:
    made, given, label = (
        objective(pool=pool, label_smoothing=smoothing),
        tokens(),
        torch.tensor([2, 0, 1, 1, 0]),
    )
    each = given.values.view(N, L, D)
    features = each[:, 0] if pool == "class" else each[:, 1:].mean(1)
    logits = features @ made.head.weight.T + made.head.bias
    expected = naive(logits, torch.eye(K)[label], smoothing) / N
    loss = run(made, given, label)
    torch.testing.assert_close(loss.total, expected)
    (wanted,) = torch.autograd.grad(expected, given.values, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss.total, given.values)[0], wanted)
    assert loss.metrics["accuracy"].mean == (logits.argmax(1) == label).float().mean()


def test_soft_labels() -> None:
    made, given, label = objective(label_smoothing=0.1), tokens(), torch.rand(N, K).softmax(1)
    logits = made.head(given.named("class"))
    loss = run(made, given, label)
    torch.testing.assert_close(loss.total, naive(logits, label, 0.1) / N)
    assert loss.metrics == {}


def test_soft_labels_of_zeros_are_left_out() -> None:
    made, given, label = objective(label_smoothing=0.1), tokens(), torch.rand(N, K).softmax(1)
    label[[1, 3]] = 0
    known = label.sum(1) > 0
    loss = run(made, given, label)
    torch.testing.assert_close(
        loss.terms["ce"].sum, naive(made.head(given.named("class"))[known], label[known], 0.1)
    )
    assert loss.terms["ce"].count == 3


def test_unlabelled_samples_are_left_out() -> None:
    made, given = objective(label_smoothing=0.1), tokens()
    label = torch.tensor([2, -1, 1, -1, 0])
    known = label >= 0
    logits = made.head(given.named("class"))[known]
    loss = run(made, given, label)
    torch.testing.assert_close(loss.terms["ce"].sum, naive(logits, torch.eye(K)[label[known]], 0.1))
    assert loss.terms["ce"].count == 3
    assert loss.metrics["accuracy"].mean == (logits.argmax(1) == label[known]).float().mean()


def test_real_labels_count_any_class_that_is_right_and_leave_out_what_has_none() -> None:
    made, given = objective(), tokens()
    told = made.head(given.named("class")).argmax(1)
    label = (told + 1) % K  # none is right by the label
    accepted = torch.zeros(N, K, dtype=torch.bool)
    accepted[0, [told[0], label[0]]] = True  # right
    accepted[1, label[1]] = True  # wrong
    accepted[2, told[2]] = True  # right; the others have none
    loss = run(made, given, label, accepted=accepted)
    assert loss.metrics["accuracy"].mean == 0 and loss.metrics["accuracy"].count == N
    assert loss.metrics["real_accuracy"].mean == pytest.approx(2 / 3)
    assert loss.metrics["real_accuracy"].count == 3
    assert "real_accuracy" not in run(made, given, label, accepted=torch.zeros_like(accepted)).metrics


def test_a_batch_without_labels_is_a_loss_of_zero() -> None:
    loss = run(objective(), tokens(), torch.full((N,), -1))
    assert loss.total == 0 and loss.metrics == {}


def test_closed_form_of_an_ignorant_head() -> None:
    made = objective()
    torch.nn.init.zeros_(made.head.weight)
    loss = run(made, tokens(), torch.tensor([0, 1, 2, 0, 1]))
    assert loss.total.item() == pytest.approx(math.log(K))


def test_an_entry_of_several_sequences_is_their_mean() -> None:
    """Two channels of the first entry, one of the second."""
    given = replace(random_tokens([L, L, L], D, ("class",)), sample=(0, 0, 1))
    first = given.named("class")
    expected = torch.stack([(first[0] + first[1]) / 2, first[2]])
    torch.testing.assert_close(pooled(given, "class", 2), expected)


@pytest.mark.parametrize(("classes", "found"), [([], "no labels"), (["cat"], "only 'cat'")])
def test_fewer_than_two_classes(classes: list[str], found: str) -> None:
    with pytest.raises(UserError, match=f"at least 2 classes, but the data has {found}"):
        objective(classes)


def test_a_class_the_model_does_not_know() -> None:
    made = objective().eval()
    with pytest.raises(UserError, match="classes besides the 3 that the model was trained on"):
        run(made, tokens(), torch.tensor([0, 1, 2, 3, 0]))
