"""Reconstructions drawn: what was shown, what was told, and each pixel in its place.

Shapes: n images, C channels, H x W pixels.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from triptych.cli import main
from triptych.tasks.report import report
from triptych.tasks.run import Run
from triptych.tasks.vision.masked import images
from triptych.tasks.vision.panel import pictures
from triptych.tasks.vision.reconstruct import draw_reconstruction, rebuild
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches

from .test_vision_panel import untrained


def test_patches_are_put_back_in_their_place() -> None:
    tokenizer, x = ImagePatches((2, 3)), torch.randn(5, 3, 8, 21)
    assert torch.equal(tokenizer.images_of(tokenizer.patches_of(x), x.shape), x)


def constant(run: Run, level: float) -> Run:
    """The run with a head that tells every pixel as `level`."""
    (member,) = (one for name, one in run.model.objective if name in ("mae", "reconstruction"))
    torch.nn.init.zeros_(member.head.weight)
    torch.nn.init.constant_(member.head.bias, level)
    return run


def test_mae_is_shown_half_of_the_patches_and_tells_the_others(tmp_path: Path) -> None:
    run = constant(untrained("vision/mae", tmp_path), 0.25)
    found = rebuild(run.model, images(run, {}), 6)
    assert (
        found.original.shape == found.shown.shape == found.rebuilt.shape == found.told.shape == (6, 1, 8, 8)
    )
    assert torch.equal(found.told, found.shown.isnan()) and found.told.float().mean() == 0.5
    patches = found.told.view(6, 4, 2, 4, 2).float().mean((2, 4))
    assert torch.equal(patches, patches.round())  # patches are hidden whole
    assert torch.equal(found.rebuilt, torch.where(found.told, torch.tensor(0.25), found.original))


def test_sit_is_shown_spoilt_pictures_and_tells_every_pixel(tmp_path: Path) -> None:
    found = rebuild((run := constant(untrained("vision/sit", tmp_path), -0.5)).model, images(run, {}), 5)
    assert found.told.all() and (found.rebuilt == -0.5).all() and len(found.told) == 5  # one of two copies
    assert not found.shown.isnan().any() and 0.1 < (found.shown != found.original).float().mean() < 0.9


def test_the_last_sit_tells_the_touched_pixels_alone(tmp_path: Path) -> None:
    run = constant(untrained("vision/sit-v3", tmp_path), 0.125)
    found = rebuild(run.model, images(run, {}), 7)
    assert torch.equal(found.rebuilt, torch.where(found.told, torch.tensor(0.125), found.shown))
    assert torch.equal(found.shown[~found.told], found.original[~found.told])
    assert 0.2 < found.told.float().mean() < 0.8


def test_targets_of_their_own_scale_are_scaled_back(tmp_path: Path) -> None:
    run = constant(untrained("vision/mae", tmp_path, model__objectives__mae__normalise=True), 0.0)
    found = rebuild(run.model, images(run, {}), 4)
    patches = found.original.view(4, 1, 4, 2, 4, 2)
    means = patches.mean((3, 5), keepdim=True).expand_as(patches).reshape_as(found.original)
    torch.testing.assert_close(found.rebuilt[found.told], means[found.told])


def test_command_page_and_caption(tmp_path: Path, capsys) -> None:
    run = untrained("vision/sit", tmp_path)
    assert list(pictures(run)) == ["reconstruction.png"]  # no class token, no attention
    assert (
        main(["reconstruct", "--run", str(tmp_path), "--output", str(tmp_path / "it.png"), "--count", "5"])
        == 0
    )
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("5 test images, what the encoder was shown of them") and "it.png" in told
    with Image.open(tmp_path / "it.png") as drawn:
        assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    page = report(str(tmp_path)).read_text()
    assert "<h2>reconstruction</h2>" in page and "mean absolute error" in page


def test_a_run_that_rebuilds_nothing(tmp_path: Path) -> None:
    run = untrained("vision/dino", tmp_path)
    assert list(pictures(run)) == ["panel.png"]
    with pytest.raises(UserError, match=r"learns to reconstruct, but its objectives are \['dino'\]"):
        draw_reconstruction(run, tmp_path / "it.png")
