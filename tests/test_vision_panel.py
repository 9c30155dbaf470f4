"""The panel of images: rows beside their baselines, attention maps, and the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from triptych.tasks.build import build_data, build_model
from triptych.tasks.config import merge
from triptych.tasks.run import Run, load, save
from triptych.tasks.vision import panel
from triptych.tasks.vision.attention import attention
from triptych.tasks.vision.picture import some_of_each
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View


def untrained(config: str, folder: Path, **overrides: object) -> Run:
    """A run directory of a model that was never trained, on 60 small images of three classes."""
    random = np.random.default_rng(0)
    label = np.arange(60) % 3
    x = (random.random((60, 8, 8)) * 0.2 + label[:, None, None] * 0.4).astype("float32")
    np.savez(folder / "x.npz", train_x=x[:40], train_y=label[:40], test_x=x[40:], test_y=label[40:])
    given = {
        "data.path": str(folder / "x.npz"),
        **{key.replace("__", "."): value for key, value in overrides.items()},
    }
    merged = merge([config], given)
    data, model = build_data(merged), build_model(merged.values["model"])
    data.setup("fit")
    model.build(data.views(), data.facts())
    (folder / "config.yaml").write_text(merged.yaml())
    save(model, merged.values, folder)
    return load(folder)


def test_a_classifier_beside_what_needs_no_network(tmp_path: Path) -> None:
    rows = {row.system: row for row in panel.measure(untrained("vision/vit", tmp_path))}
    assert list(rows) == ["this run", "3-NN on pixels", "RBF-SVM on pixels, tuned"]
    assert {row.metric for row in rows.values()} == {"accuracy"}
    assert [row.baseline for row in rows.values()] == [False, True, True]
    assert (
        rows["3-NN on pixels"].value == rows["RBF-SVM on pixels, tuned"].value == 1
    )  # the classes lie apart
    assert rows["3-NN on pixels"].low == pytest.approx(0.839, abs=1e-3)  # Wilson, 20 of 20


def test_frozen_features_beside_untrained_ones_and_pixels(tmp_path: Path) -> None:
    rows = {row.system: row for row in panel.measure(untrained("vision/dino", tmp_path))}
    assert [name for name, row in rows.items() if not row.baseline] == [
        "this run, class token",
        "this run, mean of patches",
        "this run, both",
    ]
    assert rows["raw pixels"].metric == "kNN accuracy (k=20, T=0.07)"
    assert all(0 <= row.value <= 1 for row in rows.values()) and len(rows) == 7


def test_features_are_named_by_the_tokens_there_are() -> None:
    assert panel.pools(["class", "register0"]) == {
        "class token": "class",
        "mean of patches": "mean",
        "both": "class+mean",
    }
    assert list(panel.pools(["rotation", "contrastive"])) == [
        "rotation token",
        "contrastive token",
        "mean of patches",
        "all",
    ]
    assert panel.pools([]) == {"mean of patches": "mean"}


def test_attention_without_queries_is_even(tmp_path: Path) -> None:
    run = untrained("vision/vit", tmp_path)
    view = View("image", torch.randn(3, 1, 8, 12))
    looks = attention(run.model, view)
    assert looks.shape == (3, 4, 4, 6)
    torch.testing.assert_close(looks.sum((2, 3)), torch.ones(3, 4))
    assert looks.std() > 1e-4
    _, encoder = run.model.branch(run.model.evaluate_with)
    last = encoder.blocks[-1].attn.qkv
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    torch.testing.assert_close(attention(run.model, view), torch.full((3, 4, 4, 6), 1 / 24))


def test_the_picture_shows_all_classes_in_turn(tmp_path: Path) -> None:
    run = untrained("vision/dino", tmp_path)
    data = run.data()
    assert some_of_each(data, 7).targets["label"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    caption = panel.picture(run, tmp_path / "panel.png")
    assert "4 x 4 cells" in caption
    with Image.open(tmp_path / "panel.png") as drawn:
        assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_no_class_token_no_attention(tmp_path: Path) -> None:
    run = untrained(
        "vision/vit",
        tmp_path,
        model__tokenizers__image__prefix="[]",
        model__objectives__classification__pool="mean",
    )
    with pytest.raises(UserError, match="need a class token, but the prefix is"):
        panel.picture(run, tmp_path / "panel.png")


def test_figures_need_labels(tmp_path: Path) -> None:
    run = untrained("vision/dino", tmp_path)
    np.savez(tmp_path / "x.npz", train_x=np.zeros((5, 8, 8)), test_x=np.zeros((5, 8, 8)))
    with pytest.raises(UserError, match="need labelled images"):
        panel.measure(run)
