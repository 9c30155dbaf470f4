"""The model: one packed pass a step, however many objectives, views and modalities.

Shapes: n entries of a view, L tokens of one, D width.
"""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.backbones.schedule import Schedule
from triptych.backbones.teacher import Teacher
from triptych.objectives.classification import Classification
from triptych.objectives.contrastive import Contrastive
from triptych.objectives.objective import Loss, Objective, Predictor, Read, Spec, Step, Term, union
from triptych.objectives.reconstruction import Reconstruction
from triptych.objectives.rotation import Rotation
from triptych.objectives.self_distillation import SelfDistillation
from triptych.tasks.model import Model
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.tokens import Tokens
from triptych.tokenizers.view import View

from .helpers import Rows, assert_same, gradients, randomise

WIDTH, VALUES = 12, 3
FACTS = {"values": VALUES, "classes": ["a", "b", "c"]}


class Echo(Objective):
    """A linear head on everything it reads, squared and summed over tokens: a loss a token."""

    def __init__(self, *wanted: Read, weight: float | Schedule = 1.0) -> None:
        super().__init__(weight)
        self.wanted = wanted

    def reads(self) -> tuple[Read, ...]:
        return self.wanted

    def build(self, spec: Spec) -> None:
        self.head = nn.Linear(spec.width, 5)

    def forward(self, step: Step) -> Loss:
        tokens = {f"{read.view}{read.layer}{read.branch}": step[read].values for read in self.wanted}
        return Loss(
            {name: Term(self.head(values).square().sum(), len(values)) for name, values in tokens.items()}
        )


def small_encoder(**settings: Any) -> Encoder:
    return Encoder(WIDTH, 2, 3, mlp_ratio=2, **settings)


def model(objectives: dict[str, Objective], views: dict[str, str], **settings: Any) -> Model:
    """A model with a tokenizer for every modality of `views`, random weights throughout."""
    modalities = dict.fromkeys(views.values())
    made = Model({name: Rows(("class",)) for name in modalities}, small_encoder(), objectives, **settings)
    made.build(views, {name: FACTS | {"values": VALUES + i} for i, name in enumerate(modalities)})
    randomise(made)
    made.sync_teacher()
    return made


def view(n: int, length: int, **parts: Any) -> View:
    return View("rows", torch.randn(n, length, VALUES), **parts)


def count_calls(made: Model) -> Counter[str]:
    """Forward passes of each tokenizer and encoder, by branch."""
    calls: Counter[str] = Counter()
    for branch in ("student", "teacher") if made.teacher else ("student",):
        tokenizers, encoder = made.branch(branch)
        for name, module in [*tokenizers.items(), ("encoder", encoder)]:
            key = f"{branch} {name}"
            module.register_forward_hook(lambda *_, key=key: calls.update([key]))
    return calls


def three_objectives() -> tuple[dict[str, Objective], dict[str, View]]:
    """Supervised, self-distilled and per-token together, reading five views in seven ways."""
    batch = {
        "train": view(4, 7, targets={"label": torch.tensor([0, 2, -1, 1])}),
        "global": view(6, 5, copies=2),
        "local": view(9, 2, copies=3),
        "masked": view(3, 6, clean=torch.randn(3, 6, VALUES), masked=torch.rand(18) < 0.5),
    }
    objectives = {
        "classify": Classification("train"),
        "distil": SelfDistillation(prototypes=11, hidden=13, bottleneck=5),
        "echo": Echo(Read("masked"), Read("train", layer=1), Read("train"), Read("masked", "teacher", 0)),
    }
    return objectives, batch


def test_three_objectives_cost_one_pass_of_each_branch() -> None:
    objectives, batch = three_objectives()
    made = model(objectives, dict.fromkeys(batch, "rows"), teacher=Teacher())
    calls = count_calls(made)
    made(batch).total.backward()
    # The student's tokenizer reads four views, the teacher's the two that are read through it
    assert calls == {"student encoder": 1, "student rows": 4, "teacher encoder": 1, "teacher rows": 2}


def test_an_encoder_gives_prefix_tokens_alone_where_no_objective_reads_others() -> None:
    """DINO alone leaves the last block's other tokens out, in both branches; its loss stays what it was."""
    objectives, batch = three_objectives()
    batch = {name: batch[name] for name in ("global", "local")}
    made = model({"distil": objectives["distil"]}, dict.fromkeys(batch, "rows"), teacher=Teacher()).eval()
    sizes: dict[str, int] = {}
    for branch in ("student", "teacher"):
        mlp = made.branch(branch)[1].blocks[-1].mlp
        mlp.register_forward_pre_hook(lambda _, inputs, name=branch: sizes.update({name: len(inputs[0])}))
    parameters = [parameter for parameter in made.parameters() if parameter.requires_grad]
    found = made(batch).total
    assert sizes == {"student": 6 + 9, "teacher": 6}
    of_found = torch.autograd.grad(found, parameters, allow_unused=True)
    echo = Echo(Read("global"), Read("local"), Read("global", "teacher"))
    made.objective.members["echo"] = echo
    echo.head = nn.Linear(WIDTH, 5)
    expected = made(batch).terms["distil/ce"].mean
    assert sizes == {"student": 6 * 6 + 9 * 3, "teacher": 6 * 6}
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(of_found, torch.autograd.grad(expected, parameters, allow_unused=True))


def test_a_read_of_all_tokens_outweighs_one_of_the_prefix() -> None:
    some, all_ = Read("train", prefix=True), Read("train")
    for reads in ([some, all_], [all_, some], [all_]):
        assert [(read.view, read.prefix) for read in union(reads)] == [("train", False)]
    assert union([some, some])[0].prefix


def test_sit_dino_and_mae_at_once_cost_one_pass_of_each_branch() -> None:
    """Six objectives that ship, over image patches: six heads and a decoder, two passes."""
    targets = {"rotation": torch.tensor([0, 3, 1, 2, 0, 1]), "label": torch.tensor([2, 1, 0, 2, 1, 0])}
    batch = {
        "sit": View(
            "image", torch.randn(6, 3, 8, 12), copies=2, masked=torch.rand(36) < 0.5, targets=targets
        ),
        "mae": View("image", torch.randn(3, 3, 8, 12), hidden=torch.rand(18) < 0.5),
        "global": View("image", torch.randn(6, 3, 8, 12), copies=2),
        "local": View("image", torch.randn(9, 3, 4, 4), copies=3),
    }
    objectives = {
        "classification": Classification("sit", pool="mean"),
        "rotation": Rotation("sit"),
        "contrastive": Contrastive("sit", pool="contrastive"),
        "reconstruction": Reconstruction("sit", "l1"),
        "mae": Reconstruction("mae", decoder=Encoder(8, 1, 2)),
        "distillation": SelfDistillation(prototypes=11, hidden=13, bottleneck=5),
    }
    tokenizer = ImagePatches(4, ("class", "rotation", "contrastive"))
    made = Model({"image": tokenizer}, small_encoder(), objectives, "learned", Teacher())
    facts = {"channels": 3, "size": [8, 12], "classes": ["a", "b", "c"]}
    made.build(dict.fromkeys(batch, "image"), {"image": facts})
    calls = count_calls(made)
    loss = made(batch)
    loss.total.backward()
    assert calls == {"student encoder": 1, "student image": 4, "teacher encoder": 1, "teacher image": 1}
    assert {name.split("/")[0] for name in loss.terms} == set(objectives)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters() if p.requires_grad)


def test_a_teacher_that_nothing_reads_never_runs() -> None:
    objectives, batch = three_objectives()
    del objectives["distil"]
    objectives["echo"] = Echo(Read("masked"))
    made = model(objectives, dict.fromkeys(batch, "rows"), teacher=Teacher())
    calls = count_calls(made)
    made(batch)
    assert calls == {"student encoder": 1, "student rows": 2}  # and views that nothing reads cost nothing


def test_objectives_together_give_the_losses_they_give_alone() -> None:
    objectives, batch = three_objectives()
    views = dict.fromkeys(batch, "rows")
    made = model(objectives, views, teacher=Teacher()).eval()
    together = made(batch)
    for name, objective in objectives.items():
        alone = Model(made.tokenizers, made.encoder, {name: objective}, teacher=made.teacher)
        for key, term in alone(batch).terms.items():
            torch.testing.assert_close(term.mean, together.terms[key].mean, msg=key)
        assert {key for key in together.terms if key.startswith(f"{name}/")} == set(alone(batch).terms)


@pytest.mark.parametrize("weighting", ["fixed", "learned"])
def test_three_modalities_in_one_pass_give_the_losses_and_gradients_of_each_alone(weighting: Any) -> None:
    """Images, series and speech stand-ins of other lengths, values and options, packed into one batch."""
    batch = {
        "picture": View("image", torch.randn(4, 7, 3), targets={"label": torch.tensor([0, 1, 2, 0])}),
        "table": View("series", torch.randn(5, 3, 4), hidden=torch.rand(15) < 0.4),
        "sound": View("audio", [torch.randn(length, 5) for length in (6, 2, 7)]),
    }
    for name, tokens in (("picture", 28), ("table", 15), ("sound", 15)):
        batch[name] = replace(batch[name], masked=torch.rand(tokens) < 0.4)
    views = {name: of.modality for name, of in batch.items()}
    objectives = {
        "classify": Classification("picture"),
        "table": Echo(Read("table"), Read("table", layer=1)),
        "sound": Echo(Read("sound", layer=0), Read("sound"), weight=0.3),
    }
    made = model(objectives, views, weighting=weighting)
    calls = count_calls(made)
    packed = gradients(made, lambda: made(batch).total)
    assert calls == {f"student {name}": 1 for name in ("encoder", "image", "series", "audio")}
    alone = [made({name: batch[name]}) for name in batch]
    for loss in alone:
        for key, term in loss.terms.items():
            torch.testing.assert_close(term.mean, made(batch).terms[key].mean, msg=key)
    assert_same(gradients(made, lambda: sum(loss.total for loss in alone)), packed, atol=1e-4, rtol=1e-4)


def test_the_teacher_sees_the_whole_clean_view_and_gets_no_gradient() -> None:
    clean = torch.randn(3, 5, VALUES)
    corrupted = View(
        "rows",
        torch.randn(3, 5, VALUES),
        clean=clean,
        masked=torch.rand(15) < 0.5,
        hidden=torch.rand(15) < 0.5,
    )
    made = model({"echo": Echo(Read("x"), Read("x", "teacher"))}, {"x": "rows"}, teacher=Teacher())
    found = made.encode({"x": corrupted}, [Read("x", "teacher")])[Read("x", "teacher")]
    expected = made.encode({"x": View("rows", clean)}, [Read("x")])[Read("x")]
    torch.testing.assert_close(found.values, expected.values)
    student = made.encode({"x": corrupted}, [Read("x")])[Read("x")]
    assert len(student.values) < len(found.values)
    made({"x": corrupted}).total.backward()
    assert all(p.grad is None for p in made.teacher.parameters())
    assert all(p.grad is not None for p in made.tokenizers.parameters())


def test_a_step_moves_the_teacher_and_the_heads_that_objectives_name() -> None:
    objectives, batch = three_objectives()
    made = model(objectives, dict.fromkeys(batch, "rows"), teacher=Teacher(Schedule(0.5, 1.0)))
    randomise(made.encoder)
    nn.init.normal_(objectives["distil"].head.prototypes)
    pairs = {
        "tokenizers": (made.tokenizers, made.teacher.tokenizers),
        "encoder": (made.encoder, made.teacher.encoder),
        "head": (objectives["distil"].head, objectives["distil"].teacher_head),
    }
    expected = {
        name: [p + 0.75 * (q - p) for p, q in zip(new.parameters(), old.parameters(), strict=True)]
        for name, (new, old) in pairs.items()
    }
    made.update_teacher(0.5)
    for name, (_, average) in pairs.items():
        torch.testing.assert_close(list(average.parameters()), expected[name], msg=name)
    made.sync_teacher()
    for student, average in pairs.values():
        assert_same(student.state_dict(), average.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize(("branch", "layer"), [("student", -1), ("teacher", -1), ("teacher", 1)])
def test_embed_uses_the_branch_that_the_config_names(branch: Any, layer: int) -> None:
    made = model({"echo": Echo(Read("x"))}, {"x": "rows"}, teacher=Teacher(), evaluate_with=branch)
    randomise(made.encoder)
    x = view(3, 5)
    found = made.eval().embed(x, layer)
    read = Read("x", branch, layer)
    torch.testing.assert_close(found.values, made.encode({"x": x}, [read])[read].values)
    assert not found.values.requires_grad


class Mean(Predictor):
    """Predicts the mean of the tokens that it reads."""

    def __init__(self, read: Read) -> None:
        super().__init__()
        self.read = read

    def reads(self) -> tuple[Read, ...]:
        return (self.read,)

    def predict(self, tokens: Tokens, view: View) -> Tensor:
        return tokens.mean()


@pytest.mark.parametrize("read", [Read("x"), Read("x", layer=1), Read("x", "teacher")])
def test_predict_reads_what_the_head_was_trained_on(read: Read) -> None:
    made = model({"echo": Echo(Read("x")), "mean": Mean(read)}, {"x": "rows"}, teacher=Teacher())
    randomise(made.encoder)
    other = view(3, 5)  # later commands give the view under another name
    expected = made.encode({"x": other}, [read])[read].mean()
    torch.testing.assert_close(made.predict(other), expected)
    torch.testing.assert_close(made.predict(other, "mean"), expected)


def test_an_average_is_used_whole_tokenizer_encoder_and_head() -> None:
    """EMA of weights, supervised: the average says what a student of its weights says."""
    batch = {"train": view(4, 7, targets={"label": torch.tensor([0, 2, -1, 1])})}

    def fresh() -> Model:
        return model({"classify": Classification("train")}, {"train": "rows"}, teacher=Teacher(0.75))

    made, twin = fresh(), fresh()
    start = {name: p.detach().clone() for name, p in made.named_parameters() if p.requires_grad}
    randomise(made.objective)
    randomise(made.encoder)
    made.update_teacher(0.0)
    moved = {name: p for name, p in made.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in twin.named_parameters():
            if name in start:
                p.copy_(0.75 * start[name] + 0.25 * moved[name])
    student = made.eval().predict(batch["train"])
    made.evaluate_with = "teacher"
    found = made.predict(batch["train"])
    torch.testing.assert_close(found, twin.eval().predict(batch["train"]))
    assert not torch.allclose(found, student, atol=1e-3)
    judged, expected = made(batch), twin(batch)  # held-out losses are those of what is used later
    torch.testing.assert_close(judged.total, expected.total)
    assert judged.terms.keys() == expected.terms.keys()
    assert not torch.allclose(made.train()(batch).total, expected.total, atol=1e-3)


def test_predict_wants_to_know_which_head() -> None:
    none = model({"echo": Echo(Read("x"))}, {"x": "rows"})
    with pytest.raises(UserError, match=r"one objective that predicts .*, but has none"):
        none.predict(view(2, 3))
    two = model({"a": Mean(Read("x")), "b": Mean(Read("x", layer=1))}, {"x": "rows"})
    with pytest.raises(UserError, match=r"but has \['a', 'b'\]"):
        two.predict(view(2, 3))
    assert two.predict(view(2, 3), "b").shape == (2, WIDTH)


@pytest.mark.parametrize(
    ("read", "views", "message"),
    [
        (Read("globl"), {"global": "rows"}, r"reads the view 'globl', but the data gives \['global'\]"),
        (Read("x", "teacher"), {"x": "rows"}, "but the model has no teacher"),
        (Read("x"), {"x": "rows", "y": "image"}, r"gives 'image', but the model's tokenizers are \['rows'\]"),
    ],
)
def test_what_does_not_fit_together_is_refused(read: Read, views: dict[str, str], message: str) -> None:
    made = Model({"rows": Rows()}, small_encoder(), {"echo": Echo(read)})
    with pytest.raises(UserError, match=message):
        made.build(views, {"rows": FACTS, "image": FACTS})


def test_describe_is_plain_data_that_rebuilds_the_model() -> None:
    objectives, batch = three_objectives()
    made = model(objectives, dict.fromkeys(batch, "rows"), teacher=Teacher())
    described = json.loads(json.dumps(made.describe()))
    again = Model({"rows": Rows(("class",))}, small_encoder(), three_objectives()[0], teacher=Teacher())
    again.build(described["views"], described["data"])
    again.load_state_dict(made.state_dict())
    for one, other in zip(made.eval()(batch).terms.values(), again.eval()(batch).terms.values(), strict=True):
        torch.testing.assert_close(one.mean, other.mean)
    again.build({}, {})  # a second call changes nothing
    assert_same(again.state_dict(), made.state_dict(), atol=0, rtol=0)


def test_the_anchor_reaches_every_trained_parameter_and_weighs_nothing() -> None:
    objectives, batch = three_objectives()
    made = model(objectives, dict.fromkeys(batch, "rows"), teacher=Teacher(), weighting="learned")
    anchor = made.anchor()
    anchor.backward()
    assert anchor == 0
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() == 0, name
        else:
            assert parameter.grad is None, name


def test_packing_and_layers_survive_stochastic_depth_and_checkpointing() -> None:
    """A step in training mode with every costly option on: finite, and every parameter has a gradient."""
    objectives, batch = three_objectives()
    encoder = small_encoder(drop_path=0.5, checkpoint=True, block=BlockOptions(layer_scale=0.1, rotary=1))
    made = Model({"rows": Rows(("class",))}, encoder, objectives, teacher=Teacher())
    made.build(dict.fromkeys(batch, "rows"), {"rows": FACTS})
    made.train()(batch).total.backward()
    trained = [p for p in made.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
