"""Every packaged config: it says what it is, trains, repeats its golden losses, and is loaded again.

After a change that is meant to change numbers, write them anew:
`TRIPTYCH_GOLDEN=write python -m pytest tests/test_packaged_configs.py`.
"""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from triptych.tasks.config import header, merge, packaged
from triptych.tasks.data import PLAIN
from triptych.tasks.fit import fit
from triptych.tasks.run import load

GOLDEN = Path(__file__).parent / "golden"
STEPS = 5

#: The one override under which every config is tried: a few steps, one batch of validation.
TINY = {
    "trainer.max_steps": STEPS,
    "trainer.log_every_n_steps": 1,
    "trainer.limit_val_batches": 1,
    "trainer.enable_progress_bar": False,
}
LEFT_BEHIND = (
    "config.yaml",
    "model.safetensors",
    "model.json",
    "metrics.json",
    "checkpoints/last.ckpt",
    "log.txt",
)


@pytest.mark.parametrize("name", packaged())
def test_header_says_source_figure_time_and_command(name):
    text = header(packaged()[name])
    for word in ("Source", "Reaches", "Time", f"triptych fit --config {name}"):
        assert word in text, f"{name}: the header lacks {word!r}"


@pytest.mark.parametrize("name", packaged())
def test_golden_losses_then_load(name, tmp_path):
    directory = fit(merge([name], TINY), output=str(tmp_path / "run"))
    for file in LEFT_BEHIND:
        assert (directory / file).is_file(), file
    losses = pd.read_csv(directory / "metrics.csv")["train/loss"].dropna().tolist()[:STEPS]
    golden = GOLDEN / f"{name.replace('/', '-')}.txt"
    if os.environ.get("TRIPTYCH_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text("".join(f"{loss:.6f}\n" for loss in losses))
    # processors differ in the last digits, and five steps let them grow a little
    assert losses == pytest.approx([float(line) for line in golden.read_text().split()], rel=2e-3)

    run = load(directory)
    several = {"data.only": "images"} if name.startswith("joint/") else {}
    batch = next(iter(run.data(several).plain("test")))
    assert list(batch) == [PLAIN]
    tokens = run.model.embed(batch[PLAIN])
    assert tokens.values.shape == (sum(tokens.lengths), run.model.encoder.width)
    assert torch.isfinite(tokens.values).all()
