"""The folder of a run: free again after one that failed before it learnt, kept after one that trained."""

from pathlib import Path

import pytest
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
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
