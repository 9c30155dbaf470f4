"""Probes on a weighted sum of layers: against a naive one, and each as if it were trained alone."""

import pytest
import torch
from torch import Tensor
from triptych.backbones.encoder import Encoder
from triptych.objectives.classification import UNLABELLED
from triptych.objectives.layer_classification import LayerClassification
from triptych.objectives.objective import Read, Spec, Step, TokenSpec
from triptych.tasks.model import Model
from triptych.tokenizers.audio import Positions
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.tokens import Tokens
from triptych.tokenizers.view import View

from .helpers import random_tokens

WIDTH, DEPTH, CLASSES = 5, 2, ["a", "b", "c"]


def probe(rates: tuple[float, ...]) -> LayerClassification:
    objective = LayerClassification(rates)
    objective.build(
        Spec(WIDTH, DEPTH, {"train": TokenSpec("audio", None, None, ())}, {"audio": {"classes": CLASSES}})
    )
    return objective


def step(labels: list[int]) -> Step:
    view = View("audio", [torch.zeros(1)] * len(labels), targets={"label": torch.tensor(labels)})
    lengths = [3 + i % 4 for i in range(len(labels))]
    generator = torch.Generator().manual_seed(5)
    encoded = {}
    for layer in range(DEPTH + 1):
        tokens = random_tokens(lengths, WIDTH)
        values = torch.randn(tokens.values.shape, generator=generator)
        values[:, layer] += torch.tensor(labels).clamp(min=0).repeat_interleave(torch.tensor(lengths))
        encoded[Read("train", layer=layer)] = tokens.with_values(values)
    return Step({"train": view}, encoded)


def naive(objective: LayerClassification, number: int, layers: list[Tokens]) -> Tensor:
    """SUPERB: h = sum_y softmax(w)_y LN(h_y), logits = W mean_t(h) + b, one utterance at a time."""
    rate = objective.rates[number]
    share = (rate * objective.layers[number]).exp() / (rate * objective.layers[number]).exp().sum()
    logits = []
    for utterance in zip(*(tokens.values.split(tokens.lengths) for tokens in layers), strict=True):
        normed = [
            (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
            for x in utterance
        ]
        mixed = sum(p * x for p, x in zip(share, normed, strict=True)).mean(0)
        logits.append(rate * (objective.heads[number] @ mixed + objective.biases[number]))
    return torch.stack(logits)


def test_each_probe_is_superbs() -> None:
    objective, batch = probe((0.5, 2.0)), step([0, 2, 1, 1])
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter)
    layers = [batch[read] for read in objective.reads()]
    found = objective.logits(layers, batch.views["train"])
    expected = torch.stack([naive(objective, number, layers) for number in range(2)])
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found.square().sum(), list(objective.parameters()))
    theirs = torch.autograd.grad(expected.square().sum(), list(objective.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_probes_trained_together_are_those_trained_alone() -> None:
    """The probe of factor r after AdamW at rate lr is the probe alone at r * lr, weight decay included."""

    def trained(rates: tuple[float, ...], lr: float) -> tuple[Tensor, Tensor]:
        objective = probe(rates)
        optimiser = torch.optim.AdamW(objective.parameters(), lr, eps=1e-12, weight_decay=0.0)
        for _ in range(7):
            optimiser.zero_grad()
            objective(step([0, 2, 1, 1, 0])).total.backward()
            optimiser.step()
        factor = torch.tensor(rates)
        return factor[:, None, None] * objective.heads, factor[:, None] * objective.layers

    together = trained((0.3, 1.0, 3.0), 0.01)
    for number, factor in enumerate((0.3, 1.0, 3.0)):
        for joint, alone in zip(together, trained((1.0,), 0.01 * factor), strict=True):
            torch.testing.assert_close(joint[number], alone[0], rtol=1e-4, atol=1e-5)


def test_the_best_probe_of_the_latest_validation_predicts() -> None:
    objective, batch = probe((0.1, 1.0)), step([2, 2, 1, UNLABELLED])
    with torch.no_grad():
        objective.biases[0, 1], objective.biases[1, 2] = 5.0, 5.0
    loss = objective.eval()(batch)
    assert loss.terms["ce"].count == 3
    assert loss.metrics["accuracy_0.1"] == pytest.approx(1 / 3)
    assert loss.metrics["accuracy_1"] == pytest.approx(2 / 3)
    layers = [batch[read] for read in objective.reads()]
    assert int(objective.best) == 1
    assert objective.predict_from(layers, batch.views["train"]).argmax(1).tolist() == [2] * 4
    objective.train()(batch)
    objective.eval()(step([1, 1, 1]))  # counted anew after training
    assert int(objective.best) == 0


def test_a_model_reads_all_layers_in_one_pass_and_predicts() -> None:
    tokenizer = LogMelFrames(8, 50, 20, positions=Positions(3, 1))
    model = Model({"audio": tokenizer}, Encoder(8, DEPTH, 2), {"probe": LayerClassification()})
    model.build({"train": "audio"}, {"audio": {"rate": 1000, "classes": CLASSES}})
    view = View("audio", [torch.randn(400), torch.randn(300)], targets={"label": torch.tensor([0, 1])})
    assert model({"train": view}).terms["probe/ce"].count == 2
    assert model.predict(view).shape == (2, 3)


def test_data_without_classes_is_refused() -> None:
    spec = Spec(WIDTH, DEPTH, {"train": TokenSpec("audio", None, None, ())}, {"audio": {"rate": 8000}})
    with pytest.raises(UserError, match="at least 2 classes, but the data has no labels"):
        LayerClassification().build(spec)
