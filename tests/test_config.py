"""Merging configs: the rules, where keys come from, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from triptych.tasks import config as configs
from triptych.tasks.config import Merged, merge, packaged
from triptych.tasks.yaml12 import Origin, dump, parse_text, parse_value
from triptych.tokenizers.errors import UserError

BASE = """\
# A small model
# on nothing at all

seed: 1
model:
  objectives:
    first:
      class_path: package.First
      init_args: {weight: 1, layers: [1, 2]}
    second: {class_path: package.Second, init_args: {weight: 3}}
  encoder: {width: 4, depth: 2}
data:
  class_path: package.Data
  init_args:
    views:
      global: {ratio: 0.5}
      local: {ratio: 0.1}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in its own folder."""
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def merged(text: str, **overrides: Any) -> dict[str, Any]:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return merge([write("base.yaml", BASE), write("mine.yaml", text)], dotted).values


def origin(config: Merged, *path: str) -> str:
    node = config.tree
    for key in path:
        node = node.value[key]
    return str(node.origin)


def test_mappings_merge_deeply_and_later_values_win() -> None:
    values = merged("model: {encoder: {depth: 7}}\nseed: 2")
    assert values["model"]["encoder"] == {"width": 4, "depth": 7}
    assert values["seed"] == 2
    assert list(values["model"]["objectives"]) == ["first", "second"]


def test_lists_are_replaced_whole() -> None:
    values = merged("model: {objectives: {first: {init_args: {layers: [5]}}}}")
    assert values["model"]["objectives"]["first"]["init_args"] == {"weight": 1, "layers": [5]}


def test_another_class_drops_the_arguments_of_the_old_one() -> None:
    values = merged("model: {objectives: {first: {class_path: package.Other, init_args: {size: 3}}}}")
    assert values["model"]["objectives"]["first"] == {"class_path": "package.Other", "init_args": {"size": 3}}
    kept = merged("model: {objectives: {first: {class_path: package.First, init_args: {size: 3}}}}")
    assert kept["model"]["objectives"]["first"]["init_args"] == {"weight": 1, "layers": [1, 2], "size": 3}
    explicit = merged("model: {encoder: {class_path: package.Other}}")
    assert explicit["model"]["encoder"] == {"class_path": "package.Other"}


def test_keys_beside_class_path_are_its_arguments() -> None:
    in_file = merged("model: {objectives: {first: {weight: 9}}}")
    on_command_line = merged("", model__objectives__first__weight="9")
    assert in_file["model"]["objectives"]["first"]["init_args"]["weight"] == 9
    assert in_file == on_command_line
    assert merged("", data__path="DIR")["data"]["init_args"]["path"] == "DIR"
    views = merged("", data__views__global__ratio=".25")["data"]["init_args"]["views"]
    assert views == {"global": {"ratio": 0.25}, "local": {"ratio": 0.1}}


def test_class_overrides_come_before_their_arguments_in_any_order() -> None:
    expected = {"class_path": "package.Other", "init_args": {"size": 3}}
    for keys in (("class_path", "size"), ("size", "class_path")):
        texts = {"class_path": "package.Other", "size": "3"}
        overrides = {f"model.objectives.first.{key}": texts[key] for key in keys}
        values = merge([write("base.yaml", BASE)], overrides).values
        assert values["model"]["objectives"]["first"] == expected


def test_null_removes_a_named_entry_and_only_that() -> None:
    assert list(merged("model: {objectives: {second: null}}")["model"]["objectives"]) == ["first"]
    assert list(merged("", data__views__local="null")["data"]["init_args"]["views"]) == ["global"]
    assert merged("model: {encoder: {depth: null}}")["model"]["encoder"] == {"width": 4, "depth": None}
    message = "^mine.yaml:1: nothing called 'third' to remove from model.objectives, which has first, second$"
    with pytest.raises(UserError, match=message):
        merged("model: {objectives: {third: null}}")


def test_extends_comes_first_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "PACKAGED", Path("shipped").resolve())
    write("shipped/vision/base.yaml", "# Shipped\nseed: 1\nmodel: {a: 1, b: 1, c: 1}")
    write("here/middle.yaml", "extends: vision/base\nmodel: {b: 2}")
    write("here/other.yaml", "extends: [vision/base]\nmodel: {c: 3}")
    write("here/top.yaml", "extends: [middle.yaml, other.yaml]\nseed: 5")
    top = merge(["here/top.yaml"])
    assert top.values == {"seed": 5, "model": {"a": 1, "b": 2, "c": 3}}
    assert (top.name, top.header) == ("top", "")
    assert origin(top, "model", "a") == "configs/vision/base.yaml:3"
    assert origin(top, "model", "b") == "here/middle.yaml:2"
    assert merge(["vision/base", "here/top.yaml"]).values == top.values
    assert merge(["vision/base"]).header == "Shipped"
    assert list(packaged()) == ["vision/base"]


def test_extends_that_goes_round_is_refused() -> None:
    write("a.yaml", "extends: b.yaml")
    write("b.yaml", "extends: a.yaml")
    with pytest.raises(UserError, match=r"extends itself: a.yaml -> b.yaml -> a.yaml$"):
        merge(["a.yaml"])


def test_missing_configs_are_named_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "PACKAGED", Path("shipped").resolve())
    write("shipped/vision/dino.yaml", "seed: 1")
    with pytest.raises(UserError, match=r"is called 'vision/dinno'; did you mean 'vision/dino'\?$"):
        merge(["vision/dinno"])
    with pytest.raises(UserError, match=r"^a.yaml:2: no packaged config and no file is called 'zzz'; `tri"):
        merge([write("a.yaml", "seed: 1\nextends: zzz")])
    with pytest.raises(UserError, match="'shipped' is a folder"):
        merge(["shipped"])


def test_origins_are_file_and_line_or_the_command_line() -> None:
    mine = write("mine.yaml", "\nmodel:\n  encoder:\n    depth: 5")
    config = merge([write("base.yaml", BASE), mine], {"seed": "3"})
    assert origin(config, "model", "encoder", "depth") == "mine.yaml:4"
    assert origin(config, "model", "encoder", "width") == "base.yaml:11"
    assert origin(config, "model", "objectives", "first", "class_path") == "base.yaml:8"
    assert origin(config, "seed") == "command line"


def test_the_header_and_name_are_those_of_the_last_file() -> None:
    config = merge([write("other.yaml", "seed: 1"), write("base.yaml", BASE)])
    assert (config.name, config.header) == ("base", "A small model\non nothing at all")


def test_what_is_written_merges_to_itself() -> None:
    overrides = {"model.rate": "1e-3", "model.speaker": "007", "data.path": "'5'"}
    config = merge([write("base.yaml", BASE)], overrides)
    again = merge([write("again.yaml", config.yaml())])
    assert again.values == config.values
    assert config.values["model"]["rate"] == 1e-3
    assert (config.values["model"]["speaker"], config.values["data"]["init_args"]["path"]) == ("007", "5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nmodel: {a: 1}\nseed: 2", r"^a.yaml:3: the key 'seed' is here twice, first in line 1$"),
        ("seed: 1\nmodel:\n  - a\n  b", r"^a.yaml:\d: not valid YAML, "),
        ("- 1", r"^a.yaml:1: expected a mapping with model, data, trainer, seed, but got \[1\]$"),
        ("modle: {}", r"^a.yaml:1: unknown key 'modle'; did you mean 'model'\?$"),
        ("colour: 1", r"^a.yaml:1: unknown key 'colour'; expected one of model, data, trainer, seed$"),
        ("seed: 1\nmodel: 3", r"^a.yaml:2: expected 'model' to be a mapping, but got 3$"),
        ("model: !!python/object/apply:os.getcwd []", r"^a.yaml:1: not valid YAML, expected no tag"),
        ("seed: !!python/name:os.getcwd ''", r"^a.yaml:1: not valid YAML, could not determine"),
        ("seed: 1\nmodel: &a\n  b: *a", r"^a.yaml:3: this alias contains itself$"),
        ("? [1]\n: 2", r"^a.yaml:1: expected a name as a key$"),
        ("extends: 3", r"^a.yaml:1: expected `extends` to name configs, but got 3$"),
    ],
)
def test_bad_files_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        merge([write("a.yaml", text)])


def test_an_empty_config_is_empty_and_bytes_are_refused() -> None:
    assert merge([write("a.yaml", "# nothing\n")]).values == {}
    Path("b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"^cannot read the config b.yaml: "):
        merge(["b.yaml"])


def test_scalars_are_those_of_yaml_12() -> None:
    text = "[no, on, 1e-3, 1., .5, -3, 0x1f, 010, 1_0, 2020-01-01, 1:30, ~, true, .inf, '5', 5]"
    values = parse_text(text, "a.yaml").plain()
    assert values[:9] == ["no", "on", 1e-3, 1.0, 0.5, -3, 31, "010", "1_0"]
    assert values[9:] == ["2020-01-01", "1:30", None, True, float("inf"), "5", 5]
    assert parse_text(dump({"a": values}), "b.yaml").plain() == {"a": values}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("*.png", "*.png"),
        ("a #1", "a #1"),
        ("'7'", "7"),
    ],
)
def test_command_line_values_are_yaml_where_they_can_be(text: str, value: Any) -> None:
    assert parse_value(text, Origin("command line")).plain() == value


@pytest.mark.parametrize("key", ["", ".", "model.", "model..a"])
def test_a_broken_dotted_name_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=r"expected dotted names such as 'trainer.max_epochs', but got"):
        merge([], {key: "1"})
