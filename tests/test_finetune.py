"""Fine-tuning beside training from scratch: the same steps, the run's weights, slower layers for one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from triptych.tasks.evaluate import knn, linear
from triptych.tasks.evaluation.finetune import SCRATCH, TUNED, finetune
from triptych.tasks.evaluation.labels import tell
from triptych.tasks.run import load
from triptych.tokenizers.errors import UserError

from .test_evaluate import npz, untrained

QUICK = {
    "trainer.max_epochs": 2,
    "trainer.log_every_n_steps": 1,
    "trainer.enable_progress_bar": False,
    "data.batch_size": 25,
}


def test_a_recipe_without_a_classifier_is_refused_before_it_trains(tmp_path: Path) -> None:
    run = untrained("vision/dino", tmp_path / "run", npz(tmp_path))
    with pytest.raises(UserError, match="a recipe that classifies, but 'speech/ctc' does not"):
        finetune(run, {}, config="speech/ctc")
    assert not (tmp_path / "run" / "finetune-1").exists()


def test_a_run_is_tuned_and_its_shape_trained_from_scratch(tmp_path: Path) -> None:
    run = untrained("vision/dino", tmp_path / "run", npz(tmp_path))
    # at a learning rate of zero the weights that training starts from are there to see
    still = QUICK | {"model.optimizer.lr": 0.0}
    rows = finetune(run, still, seeds=2, json=str(tmp_path / "out.json"))
    assert [row.system for row in rows] == [TUNED, SCRATCH, "largest class"]
    assert rows[2].value == pytest.approx(8 / 25, abs=0.05)
    folder = tmp_path / "run" / "finetune-1"
    theirs = load(run).model.branch("teacher")[1].state_dict()
    tuned, scratch = load(folder / "tuned-1"), load(folder / "scratch-1")
    for name, tensor in tuned.model.encoder.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    assert not torch.equal(
        scratch.model.encoder.blocks[0].attn.qkv.weight, theirs["blocks.0.attn.qkv.weight"]
    )
    assert tuned.config["model"]["optimizer"]["layer_decay"] == 0.75
    assert "layer_decay" not in scratch.config["model"]["optimizer"]
    assert tuned.config["seed"] == 1 and tuned.config["data"]["init_args"]["path"] == str(tmp_path / "0.npz")
    steps = [
        len(pd.read_csv(one.directory / "metrics.csv")["train/loss"].dropna()) for one in (tuned, scratch)
    ]
    assert steps == [4, 4]
    told = [tell(load(folder / f"tuned-{seed}")) for seed in (0, 1)]
    each = [(classes == truth.label).double().mean() for classes, truth in told]
    assert rows[0].value == pytest.approx(float(sum(each) / 2))
    written = json.loads((tmp_path / "out.json").read_text())["fine-tuning, finetune-1"]
    assert [row["value"] for row in written] == [row.value for row in rows]


def test_other_data_at_another_size_and_another_folder(tmp_path: Path) -> None:
    run = untrained("vision/dino", tmp_path / "run", npz(tmp_path))
    other = npz(tmp_path, seed=1, classes=5, size=12)
    rows = finetune(run, QUICK | {"data.path": other}, seeds=1, output=str(tmp_path / "tuned"))
    assert rows[2].value == pytest.approx(0.2, abs=0.05)
    tuned = load(tmp_path / "tuned" / "tuned-0").model
    assert tuned.tokenizers["image"].grid == (6, 6)
    log = (tmp_path / "tuned" / "tuned-0" / "log.txt").read_text()
    assert "weights taken from" in log


def test_series_with_labels_are_probed_and_tuned_as_pictures_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    label = np.arange(60) % 2
    x = random.normal(size=(60, 3, 48)).astype("float32") + 2 * label[:, None, None]
    np.savez(
        tmp_path / "x.npz",
        **{"train_x": x[:30], "train_y": label[:30], "val_x": x[30:42], "val_y": label[30:42]},
        **{"test_x": x[42:], "test_y": label[42:]},
    )
    run = untrained("series/classify", tmp_path / "run", str(tmp_path / "x.npz"))
    assert linear(run, {}, epochs=5, seeds=1)[0].value > 0.8  # the level tells the classes
    assert knn(run, {})[0].value > 0.8
    rows = finetune(run, QUICK, seeds=1)
    assert [row.system for row in rows] == [TUNED, SCRATCH, "largest class"]
    assert rows[2].value == pytest.approx(0.5)
