"""Configs against the classes they name: mistakes with file and line, trust, and what is built."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from triptych.backbones.encoder import Encoder
from triptych.backbones.schedule import Schedule
from triptych.tasks import trust as trusting
from triptych.tasks.build import build_data, build_model
from triptych.tasks.config import merge
from triptych.tasks.schema import check, describe
from triptych.tasks.trust import find_class, trust
from triptych.tasks.yaml12 import Node, Origin, parse_value
from triptych.tokenizers.errors import UserError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in its own folder, from which packages can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


@pytest.fixture(autouse=True)
def trusted() -> Iterator[None]:
    """Each test has its own list of trusted packages."""
    before = list(trusting.TRUSTED)
    yield
    trusting.TRUSTED[:] = before


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


LABELS = "model.objectives.labels"
MODEL = """\
model:
  tokenizers: {}
  encoder:
    width: 6
    depth: 1
    heads: 2
  objectives:
    labels:
      class_path: triptych.objectives.classification.Classification
      init_args:
        pool: mean
"""


def build(text: str = MODEL, **overrides: str) -> Any:
    """Check a model as `fit` does, with file and line, and build it."""
    from triptych.tasks.model import Model
    from triptych.tasks.schema import check_arguments

    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    config = merge([write("mine.yaml", text)], dotted)
    node = config.tree.value["model"]
    check_arguments(node, Model, ("model",), owner=node)
    return build_model(config.values["model"])


def test_a_model_is_built_from_plain_values() -> None:
    model = build(model__objectives__labels__weight="0.5", model__teacher="{momentum: {start: 0.9}}")
    assert (model.encoder.width, model.encoder.depth) == (6, 1)
    assert model.objective["labels"].pool == "mean" and model.objective["labels"].weight == 0.5
    assert model.teacher.momentum.start == 0.9
    learned = build(MODEL + "  weighting: learned\n")
    assert any("log_variance" in name for name, _ in learned.named_parameters())


def test_build_model_leaves_out_what_only_the_learner_reads() -> None:
    values = merge([write("mine.yaml", MODEL)]).values["model"]
    assert build_model({**values, "optimizer": {"lr": 1}}).encoder.width == 6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    depth: 1", "    dept: 1", "5: unknown key 'dept' in model.encoder; did you mean 'depth'?"),
        ("    depth: 1\n", "", "3: model.encoder (Encoder) needs 'depth': a whole number"),
        ("width: 6", "width: six", "4: expected model.encoder.width to be a whole number, but got 'six'"),
        ("width: 6", "width: 6.5", "4: expected model.encoder.width to be a whole number, but got 6.5"),
        ("pool: mean", "pool: men", f"11: expected {LABELS}.pool to be 'class' or 'mean', but got 'men'"),
        ("pool: mean", "poll: mean", f"11: unknown key 'poll' in {LABELS}; did you mean 'pool'?"),
        (
            "  encoder:",
            "  encodr: {}\n  encoder:",
            "3: unknown key 'encodr' in model; did you mean 'encoder'?",
        ),
        (
            "classification.Classification",
            "clasification.Classification",
            f"9: {LABELS}: no module 'triptych.objectives.clasification' for the class "
            "'triptych.objectives.clasification.Classification'; did you mean 'classification'?",
        ),
        (
            "classification.Classification",
            "classification.Clasification",
            f"9: {LABELS}: triptych.objectives.classification has no class 'Clasification'; "
            "did you mean 'Classification'?",
        ),
        (
            "triptych.objectives.classification.Classification",
            "triptych.backbones.encoder.Encoder",
            f"9: expected {LABELS} to be of class Objective, but triptych.backbones.encoder.Encoder is not",
        ),
        (
            "triptych.objectives.classification.Classification",
            "Classification",
            f"9: {LABELS}: expected class_path to be a dotted name such as "
            "triptych.backbones.encoder.Encoder, but got 'Classification'",
        ),
    ],
)
def test_mistakes_name_file_line_and_the_nearest_right_name(old: str, new: str, message: str) -> None:
    assert old in MODEL
    with pytest.raises(UserError) as caught:
        build(MODEL.replace(old, new, 1))
    assert str(caught.value) == f"mine.yaml:{message}"


def test_text_stays_text_where_the_type_wants_it() -> None:
    node = parse_value("2020", Origin("command line"))
    assert check(node, str, ("data", "path")) == "2020"
    assert check(node, int | None, ("data", "year")) == 2020
    with pytest.raises(UserError, match=r"^a.yaml:3: expected data.path to be text, but got 2020$"):
        check(Node(2020, Origin("a.yaml", 3)), str, ("data", "path"))


def test_a_scalar_is_no_mapping_of_fields() -> None:
    node = Node(3, Origin("a.yaml", 2))
    fields = "start, end, warmup, warmup_from, shape, hold"
    message = rf"^a.yaml:2: expected model.lr to be a mapping of {fields}, but got 3$"
    with pytest.raises(UserError, match=message):
        check(node, Schedule, ("model", "lr"))
    assert check(node, Schedule | float, ("model", "lr")) == 3
    half = Node({"start": node, "shpe": node}, node.origin)
    with pytest.raises(
        UserError, match=r"^a.yaml:2: unknown key 'shpe' in model.lr; did you mean 'shape'\?$"
    ):
        check(half, Schedule | float, ("model", "lr"))


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "a whole number or null"),
        (list[float], "a list, each a number"),
        (tuple[int, int], "a list of 2: a whole number, a whole number"),
        (dict[str, Encoder], "named entries, each of class Encoder"),
    ],
)
def test_types_are_described_in_words(hint: Any, words: str) -> None:
    assert describe(hint) == words


OUTSIDER = """\
from pathlib import Path
Path("imported").touch()
from triptych.tasks.data import Data

class Outside(Data):
    def __init__(self, path: str, names: dict[str, list[int]] | None = None, **rest) -> None:
        super().__init__(**rest)
        self.path, self.names = path, names
"""


@pytest.mark.parametrize("place", ["data.class_path", "model.encoder", "model.encoder.class_path"])
def test_a_foreign_class_is_refused_before_its_package_is_imported(place: str) -> None:
    write("foreign_house/__init__.py", OUTSIDER)
    config = merge([write("mine.yaml", MODEL)], {place: "foreign_house.Outside"})
    with pytest.raises(UserError, match="foreign_house"):
        build_data(config) if place.startswith("data") else build_model(config.values["model"])
    assert not Path("imported").exists()


def test_a_trusted_package_is_imported_and_built() -> None:
    write("friendly_house/__init__.py", OUTSIDER)
    text = "seed: 11\ndata:\n  class_path: friendly_house.Outside\n  path: here\n  names: {a: [1, 2]}\n"
    config = merge([write("mine.yaml", text)])
    with pytest.raises(UserError, match=r"^mine.yaml:3: data: .* trust it, add --trust friendly_house$"):
        build_data(config)
    trust(["friendly_house"])
    data = build_data(config)
    assert (data.path, data.names, data.seed, data.batch_size) == ("here", {"a": [1, 2]}, 11, 64)
    with pytest.raises(UserError, match=r"5: expected data.names.a.1 to be a whole number, but got 'x'$"):
        build_data(merge([write("mine.yaml", text.replace("2]", "x]"))]))


def test_a_trusted_module_is_no_back_door() -> None:
    with pytest.raises(UserError, match=r"is really pathlib.Path, not from triptych"):
        find_class("triptych.tasks.doctor.Path")
    with pytest.raises(UserError, match=r"expected --trust to name a package such as my_package, but"):
        trust(["*"])
    with pytest.raises(UserError, match=r"not from triptych, lightning.pytorch, torch.optim or torch.nn"):
        find_class("triptychon.Thing")


def test_the_data_section_must_be_there() -> None:
    with pytest.raises(UserError, match=r"'mine' must have a section 'data', but has \['model'\]$"):
        build_data(merge([write("mine.yaml", MODEL)]))


def test_training_is_built_by_lightning_cli_and_its_trainer_is_checked() -> None:
    from lightning.pytorch.plugins import TorchCheckpointIO
    from triptych.tasks.fitting import build_training

    write("third_house/__init__.py", OUTSIDER)
    trust(["third_house"])
    text = MODEL + "data:\n  class_path: third_house.Outside\n  path: here\ntrainer:\n  max_epochs: 3\n"
    config = merge([write("mine.yaml", text)])
    cli = build_training(config, max_epochs=5, logger=False, enable_checkpointing=False)
    given = TorchCheckpointIO()
    trainer = build_training(config, logger=False, plugins=[given]).trainer
    assert trainer.strategy.checkpoint_io is given
    assert (cli.trainer.max_epochs, cli.datamodule.path, cli.model.model.encoder.width) == (3, "here", 6)
    message = r"^mine.yaml:16: unknown key 'max_epoch' in trainer; did you mean 'max_epochs'\?$"
    with pytest.raises(UserError, match=message):
        build_training(merge([write("mine.yaml", text.replace("max_epochs", "max_epoch"))]))
    with pytest.raises(UserError, match=r"invalid accelerator name: `accelerator='qpu'`"):
        build_training(merge([write("mine.yaml", text)], {"trainer.accelerator": "qpu"}))
