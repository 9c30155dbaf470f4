"""The folder of a run: free again after one that failed before it learnt, kept after one that trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.learner import Learner
from triptych.tokenizers.errors import UserError

QUICK = {"trainer.max_steps": 1, "trainer.limit_val_batches": 1, "trainer.enable_progress_bar": False}


def test_a_folder_is_free_until_something_was_learnt(tmp_path: Path) -> None:
    output = str(tmp_path / "run")
    with pytest.raises(UserError, match="nowhere"):
        fit(merge(["vision/dino"], {**QUICK, "data.path": str(tmp_path / "nowhere")}), output=output)
    assert (tmp_path / "run" / "config.yaml").is_file()
    weights = fit(merge(["vision/dino"], QUICK), output=output) / "model.safetensors"
    learnt = weights.read_bytes()
    with pytest.raises(UserError, match="holds a run already"):
        fit(merge(["vision/dino"], {**QUICK, "seed": 7}), output=output)
    assert weights.read_bytes() == learnt


@pytest.mark.parametrize("every", [1, 5])
def test_an_interrupted_run_goes_on_from_its_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """With what the command line trains: a checkpoint is there after each epoch, validated or not."""
    config = merge(
        ["vision/vit"],
        {
            "trainer.max_epochs": 4,
            "trainer.limit_train_batches": 2,
            "trainer.limit_val_batches": 1,
            "trainer.check_val_every_n_epoch": every,
            "trainer.enable_progress_bar": False,
        },
    )
    whole = fit(config, output=str(tmp_path / "whole"))
    step = Learner.training_step

    def interrupted(self: Learner, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 5:
            raise RuntimeError("the power went")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as context:
        context.setattr(Learner, "training_step", interrupted)
        with pytest.raises(RuntimeError, match="the power went"):
            fit(config, output=str(tmp_path / "run"))
    assert [file.name for file in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
    (tmp_path / "run").rename(tmp_path / "moved")
    steps: list[int] = []
    with monkeypatch.context() as context:
        count = lambda self, batch, index: (steps.append(self.global_step), step(self, batch, index))[1]  # noqa: E731
        context.setattr(Learner, "training_step", count)
        resumed = fit(config, resume=str(tmp_path / "moved"))
    assert steps == [4, 5, 6, 7]
    assert [file.name for file in (resumed / "checkpoints").iterdir()] == ["last.ckpt"]
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
