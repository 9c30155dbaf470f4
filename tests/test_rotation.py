"""Rotation: four-way cross-entropy on the token it is told to read.

Shapes: n entries, D width.
"""

import math

import pytest
import torch
from triptych.objectives.objective import Read, Spec, Step, TokenSpec
from triptych.objectives.rotation import Rotation
from triptych.tokenizers.view import View

from .helpers import random_tokens

N, D = 5, 7


def objective(pool: str) -> Rotation:
    made = Rotation(pool=pool)
    made.build(Spec(D, 1, {"train": TokenSpec("image", None, None, ("class", "rotation"))}, {"image": {}}))
    return made


@pytest.mark.parametrize(
    ("pool", "where"), [("rotation", slice(1, 2)), ("class", slice(0, 1)), ("mean", slice(2, 6))]
)
def test_loss_and_gradient(pool: str, where: slice) -> None:
    made, turn = objective(pool), torch.tensor([3, 0, 1, 2, 2])
    tokens = random_tokens([6] * N, D, ("class", "rotation"))
    tokens.values.requires_grad_()
    loss = made(
        Step({"train": View("image", torch.empty(N, 1), targets={"rotation": turn})}, {Read("train"): tokens})
    )
    features = tokens.values.view(N, 6, D)[:, where].mean(1)
    logits = features @ made.head.weight.T + made.head.bias
    expected = -(logits.softmax(1)[torch.arange(N), turn]).log().mean()
    torch.testing.assert_close(loss.total, expected)
    (wanted,) = torch.autograd.grad(expected, tokens.values, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss.total, tokens.values)[0], wanted)
    assert loss.metrics["accuracy"] == (logits.argmax(1) == turn).float().mean()
    assert loss.terms["ce"].count == N


def test_closed_form_of_an_ignorant_head() -> None:
    made = objective("rotation")
    torch.nn.init.zeros_(made.head.weight)
    torch.nn.init.zeros_(made.head.bias)
    tokens, turn = random_tokens([6] * N, D, ("class", "rotation")), torch.arange(N) % 4
    loss = made(
        Step({"train": View("image", torch.empty(N, 1), targets={"rotation": turn})}, {Read("train"): tokens})
    )
    assert loss.total.item() == pytest.approx(math.log(4))
