"""Import and export from the command line: what a run of published weights is, and what is said about it."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from triptych.cli import main
from triptych.tasks.build import build_model
from triptych.tasks.run import load, load_weights
from triptych.tasks.weights.names import beneath, carry, restore
from triptych.tasks.weights.source import open_source
from triptych.tokenizers.errors import UserError

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """timm's names in a safetensors file."""
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", **SMALL).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face's layout: a config, a preprocessor, weights."""
    from transformers import Dinov2Config, Dinov2Model

    path = tmp_path_factory.mktemp("weights") / "dinov2"
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=24, patch_size=8
    )
    Dinov2Model(config).save_pretrained(path)
    preprocessor = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3], "resample": 2,
                    "size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}  # fmt: skip
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of two classes."""
    path, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, low in (("dark", 0), ("light", 128)):
            (path / split / name).mkdir(parents=True)
            for index in range(2):
                pixels = random.integers(low, low + 128, (19, 23, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path / split / name / f"{index}.png")
    return path


def spoken(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence of a mistake."""
    assert main(words) == 2
    return capsys.readouterr().err


def test_import_says_what_became_of_every_weight(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_file(file) | {"head.weight": torch.ones(1), "blocks.0.new": torch.ones(2)}
    save_file(state, tmp_path / "vit.safetensors")
    words = ["weights", "import", str(tmp_path / "vit.safetensors"), "--heads", "3"]
    assert main([*words, "--output", str(tmp_path / "run"), "--json", str(tmp_path / "report.json")]) == 0
    out = capsys.readouterr().out
    assert "of the family timm" in out and "matched     30 of the model's 31 weights" in out
    assert "missing     1 (start fresh): tokenizers.image.mask_token" in out
    assert "unexpected  1" in out and "blocks.0.new" in out and "set aside   1: head.weight" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["matched"]) == 30 and report["unexpected"] == ["blocks.0.new"]


def test_every_later_command_takes_the_run(
    folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = str(tmp_path / "run"), ["--data.path", str(photos)]
    assert main(["weights", "import", str(folder), "--output", run]) == 0
    assert main(["embed", "--run", run, *data, "--output", str(tmp_path / "e.parquet")]) == 0
    assert main(["evaluate", "knn", "--run", run, *data]) == 0
    assert main(["evaluate", "linear", "--run", run, *data]) == 0
    export = ["weights", "export", "--run", run, "--format", "hf-image", "--output"]
    assert main([*export, str(tmp_path / "back.safetensors")]) == 0
    theirs, back = load_file(folder / "model.safetensors"), load_file(tmp_path / "back.safetensors")
    assert back.keys() == theirs.keys()
    folded = ("embeddings.cls_token", "embeddings.position_embeddings")  # ours is their sum
    assert all(torch.equal(back[name], theirs[name]) for name in theirs if name not in folded)


def test_the_preprocessing_goes_along(folder: Path, photos: Path, tmp_path: Path) -> None:
    """Mean, deviation, interpolation and the cut are kept; pictures are read at the preprocessor's size."""
    assert main(["weights", "import", str(folder), "--output", str(tmp_path / "run")]) == 0
    data = load(tmp_path / "run").data({"data.path": str(photos)})
    facts = data.facts()["image"]
    pixels = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "interpolation": "bilinear", "cover": 0.8}
    assert facts["pixels"] == pixels and facts["size"] == [16, 16]
    (batch, *_) = data.plain("test")
    assert batch["plain"].data.shape[1:] == (3, 16, 16)


def test_training_starts_from_imported_weights(folder: Path, photos: Path, tmp_path: Path) -> None:
    """The encoder and its normalisation are taken over, at the new run's own size."""
    assert main(["weights", "import", str(folder), "--output", str(tmp_path / "run")]) == 0
    config = {
        "model": {
            "tokenizers": {"image": {"class_path": "triptych.tokenizers.image.ImagePatches", "patch": 8}},
            "encoder": {"width": 24, "depth": 1, "heads": 2, "block": {"layer_scale": 1.0}},
            "objectives": {"c": {"class_path": "triptych.objectives.classification.Classification"}},
            "optimizer": {"lr": 0.0, "weight_decay": 0.0},
        },
        "data": {"class_path": "triptych.tasks.vision.data.Images", "path": str(photos), "size": 24},
        "trainer": {"max_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    words = ["fit", "--config", str(tmp_path / "config.yaml"), "--init", str(tmp_path / "run")]
    assert main([*words, "--output", str(tmp_path / "new")]) == 0
    new, old = load(tmp_path / "new"), load(tmp_path / "run")
    assert new.description["spec"]["data"]["image"]["pixels"]["mean"] == [0.4, 0.5, 0.6]
    before, after = old.model.encoder.state_dict(), new.model.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_positions_are_resized_for_training_at_another_size(folder: Path, tmp_path: Path) -> None:
    """The 3 x 3 positions of `fit --init`'s run become 5 x 5, as the tokenizer itself would resample them."""
    assert main(["weights", "import", str(folder), "--output", str(tmp_path / "run")]) == 0
    old = load(tmp_path / "run")
    arguments = {"patch": 8, "resampling": {"antialias": False}}
    grid = {"class_path": "triptych.tokenizers.image.ImagePatches", "init_args": arguments}
    model = {"tokenizers": {"image": grid}, "encoder": old.description["model"]["encoder"], "objectives": {}}
    new = build_model(model)
    new.build({"train": "image"}, {"image": {"channels": 3, "size": [40, 40], "classes": []}})
    said = load_weights(new, tmp_path / "run")
    assert "1 resampled (tokenizers.image.position_embedding)" in said and "another shape" not in said
    expected = old.model.tokenizers["image"].position_grid(5, 5)
    assert torch.equal(new.tokenizers["image"].position_embedding, expected)


def test_positions_can_be_resized_at_import(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    words = ["weights", "import", str(file), "--heads", "3", "--size", "24", "--output", run]
    assert main(words) == 0
    assert "resized     1: tokenizers.image.position_embedding (4, 24) -> (9, 24)" in capsys.readouterr().out
    assert load(run).model.tokenizers["image"].grid == (3, 3)


def test_mistakes_are_one_sentence(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "run")]
    save_file({"a.b": torch.ones(2)}, tmp_path / "strange.safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.safetensors").write_bytes(b"12345678901")
    torch.save({"model": {"w": torch.ones(1)}, "args": nn.Linear(2, 3)}, tmp_path / "module.pth")
    for source, *more, sentence in (
        ("none.pth", "there is no 'none.pth'"),
        (str(tmp_path / "strange.safetensors"), "are of no known family"),
        (str(tmp_path / "empty"), "has no *.safetensors or *.bin"),
        (str(tmp_path / "bad.safetensors"), "cannot be read"),
        (str(tmp_path / "module.pth"), "holds more than weights"),
        (str(file), "--family", "tim", "did you mean 'timm'?"),
        (str(file), "the heads must divide the width 24"),
        (str(file), "--family", "hf-image", "must hold"),
    ):
        assert sentence in spoken(capsys, "weights", "import", source, *more, *output), source
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["timm:vit_small_patch16_224", "hf:facebook/dinov2-small"])
def test_a_hub_out_of_reach_is_told(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    sentence = spoken(capsys, "weights", "import", name, "--output", str(tmp_path / "run"))
    assert "cannot be had from its hub" in sentence and sentence.count("\n") == 1


def test_a_model_of_another_project_must_be_saved_first() -> None:
    with pytest.raises(
        UserError, match="expected a model of timm, transformers or torchaudio, but got a Linear"
    ):
        open_source(nn.Linear(2, 3))


def test_names_are_carried_there_and_back() -> None:
    table = {("l.*.q.*", "l.*.k.*"): "blocks.*.qk.*", "n.*": "norm.*"}
    state = {"l.0.q.weight": torch.randn(2, 3), "l.0.k.weight": torch.randn(2, 3), "n.bias": torch.ones(5)}
    ours, rest = carry(state | {"l.1.q.weight": torch.ones(1)}, table)
    assert ours["blocks.0.qk.weight"].shape == (4, 3) and list(rest) == ["l.1.q.weight"]
    back, left = restore(ours | {"x": torch.ones(1)}, table)
    assert list(left) == ["x"] and back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    inside, outside = beneath({"m.vit.n.bias": torch.ones(1), "m.head": torch.ones(1)}, "n.bias")
    assert list(inside) == ["n.bias"] and list(outside) == ["m.head"]
