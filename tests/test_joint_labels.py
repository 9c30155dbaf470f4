"""Labels and self-supervision together: any subset of five kinds of term, one pass of the student.

Shapes: n entries of a view, C channels, H x W pixels.
"""

from itertools import combinations

import pytest
import torch
from triptych.backbones.encoder import Encoder
from triptych.backbones.teacher import Teacher
from triptych.objectives.classification import Classification
from triptych.objectives.contrastive import Contrastive
from triptych.objectives.objective import Objective
from triptych.objectives.reconstruction import Reconstruction
from triptych.objectives.rotation import Rotation
from triptych.objectives.self_distillation import SelfDistillation
from triptych.tasks.build import build_data, build_model
from triptych.tasks.config import merge
from triptych.tasks.model import Model
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.view import Batch, View

from .test_model import count_calls

KINDS = ("classification", "rotation", "contrastive", "reconstruction", "distillation")
FACTS = {"image": {"channels": 2, "size": [4, 6], "classes": ["a", "b", "c"]}}


def batch() -> Batch:
    """A labelled view, and a pair of turned and corrupted ones."""
    clean, touched = torch.randn(10, 2, 4, 6), torch.rand(10, 1, 4, 6) < 0.4
    pair = View(
        "image",
        clean.masked_fill(touched, 0.0),
        clean=clean,
        corrupted=touched,
        copies=2,
        targets={"rotation": torch.randint(4, (10,))},
    )
    label = torch.tensor([0, 2, -1, 1, 1])
    return {"labelled": View("image", torch.randn(5, 2, 4, 6), targets={"label": label}), "pair": pair}


def five() -> dict[str, Objective]:
    return {
        "classification": Classification("labelled"),
        "rotation": Rotation("pair"),
        "contrastive": Contrastive("pair", pool="contrastive", projection=7),
        "reconstruction": Reconstruction("pair", "l1", "corrupted"),
        "distillation": SelfDistillation("pair", None, prototypes=11, hidden=13, bottleneck=5),
    }


def model(objectives: dict[str, Objective]) -> Model:
    tokenizer = ImagePatches(2, ("class", "rotation", "contrastive"))
    made = Model({"image": tokenizer}, Encoder(12, 2, 3), objectives, teacher=Teacher())
    made.build({"labelled": "image", "pair": "image"}, FACTS)
    return made


def test_every_subset_of_the_five_kinds_gives_the_losses_it_gives_with_the_others() -> None:
    views, made = batch(), model(five()).eval()
    together = made(views).terms
    assert {name.split("/")[0] for name in together} == set(KINDS)
    for size in range(1, 5):
        for names in combinations(KINDS, size):
            chosen = {name: made.objective[name] for name in names}
            some = Model(made.tokenizers, made.encoder, chosen, teacher=made.teacher)
            calls = count_calls(some)
            terms = some(views).terms
            assert calls["student encoder"] == 1
            assert calls["teacher encoder"] == int("distillation" in names)
            assert {name.split("/")[0] for name in terms} == set(names)
            for name, term in terms.items():
                torch.testing.assert_close(term.mean, together[name].mean, msg=name)


def test_corrupted_values_are_counted_beforehand() -> None:
    views, made = batch(), model(five())
    known, found = made.objective.counts(views), made(views).terms
    touched = views["pair"].corrupted
    assert touched is not None
    assert known["reconstruction/l1"] == found["reconstruction/l1"].count == 2 * int(touched.sum())


@pytest.mark.parametrize("name", ["vision/joint-labels", "vision/sit", "vision/dinov2"])
def test_the_packaged_config_costs_one_pass_of_each_branch(name: str) -> None:
    merged = merge([name], {"data.batch_size": 4})
    made, data = build_model(merged.values["model"]), build_data(merged)
    data.attach(dict(made.tokenizers.items()))
    data.setup("fit")
    made.build(data.views(), data.facts())
    calls = count_calls(made)
    samples = data.samples("train")
    loss = made(samples.collate([samples[0, index] for index in range(4)]))
    loss.total.backward()
    assert calls["student encoder"] == 1 and calls["teacher encoder"] == int(made.teacher is not None)
    assert calls["student image"] == len(data.views())
    if name == "vision/joint-labels":
        assert {term.split("/")[0] for term in loss.terms} == set(KINDS)
