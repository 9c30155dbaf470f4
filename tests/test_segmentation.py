"""Attention against masks: the 60 % rule, Jaccard per object, the oracle, mask formats, the dense probe."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from triptych.tasks.config import merge
from triptych.tasks.evaluation.intervals import bootstrap
from triptych.tasks.run import load
from triptych.tasks.vision.attend import attend
from triptych.tasks.vision.attention import attention, enlarge, mass_mask, principal_colours
from triptych.tasks.vision.data import Images
from triptych.tasks.vision.masks import VOID, find_masks, fit_mask, read_mask
from triptych.tasks.vision.pixels import Pixels
from triptych.tasks.vision.segment import segmentation
from triptych.tasks.vision.segmentation import (
    best_head,
    box,
    jaccard,
    mean_iou,
    objects,
    oracle,
    overlaps,
    patch_classes,
)
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View

from .test_evaluate import untrained

SIDE, PATCH = 24, 4


def discs(folder: Path, count: int = 40) -> tuple[str, str]:
    """Bright discs on dark noise as PNGs, whose masks are in another folder; the last has no mask."""
    random = np.random.default_rng(0)
    photos, masks = folder / "photos", folder / "masks"
    masks.mkdir(parents=True)
    grid = np.arange(SIDE)
    for index in range(count):
        part = ("train", "val", "test")[min(index // 16, 2)]
        (photos / part).mkdir(parents=True, exist_ok=True)
        y, x = random.integers(6, SIDE - 6, 2)
        inside = (grid[:, None] - y) ** 2 + (grid - x) ** 2 <= 25
        pixels = random.integers(0, 80, (SIDE, SIDE, 3)) + 150 * inside[:, :, None]
        Image.fromarray(pixels.astype("uint8")).save(photos / part / f"{index:02}.png")
        if index < count - 1:
            Image.fromarray((255 * inside).astype("uint8")).save(masks / f"{index:02}.png")
    return str(photos), str(masks)


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, str]:
    """A run that was never trained on discs, and the folder of their masks."""
    photos, masks = discs(tmp_path)
    torch.manual_seed(5)  # other weights than those that an untrained encoder is given
    patched = merge(["vision/dino"], {"model.tokenizers.image.patch": PATCH})
    (tmp_path / "base.yaml").write_text(patched.yaml())
    return untrained(str(tmp_path / "base.yaml"), tmp_path / "run", photos), masks


def naive_mass(look: Tensor, share: float) -> Tensor:
    """DINO's words: sort, add up from the weakest, and keep what lies above the first 1 - share."""
    values = look.flatten()
    keep, total = torch.zeros(len(values), dtype=torch.bool), 0.0
    for index in sorted(range(len(values)), key=lambda i: float(values[i])):
        total += float(values[index])
        keep[index] = total > (1 - share) * float(values.sum()) + 1e-9
    return keep.view_as(look)


def test_the_mask_holds_the_mass_with_the_fewest_patches() -> None:
    looks = torch.rand(2, 3, 5, 7)
    looks = looks / looks.sum((2, 3), keepdim=True)
    found = mass_mask(looks, 0.6)
    for look, mask in zip(looks.flatten(0, 1), found.flatten(0, 1), strict=True):
        assert torch.equal(mask, naive_mass(look, 0.6))
        assert look[mask].sum() >= 0.6 > look[mask].sum() - look[mask].min()
    even = mass_mask(torch.full((1, 1, 2, 5), 0.1), 0.55)
    assert even.sum() == 6
    one = torch.zeros(1, 1, 2, 2)
    one[..., 1, 0] = 1
    assert torch.equal(mass_mask(one), one > 0)


def test_jaccard_per_object_takes_the_best_head_and_leaves_out_void() -> None:
    mask = torch.zeros(4, 6, dtype=torch.long)
    mask[0, :4], mask[3, :2], mask[1] = 3, 7, VOID
    assert objects(mask).sum((1, 2)).tolist() == [4, 2]
    heads = torch.zeros(3, 4, 6, dtype=torch.bool)
    heads[0, :2] = True  # all of object 3, 2 pixels of ground, and void that does not count
    heads[1, 3, :3] = True  # all of object 7 and 1 of ground
    assert jaccard(heads[0], mask == 3, mask != VOID) == pytest.approx(4 / 6)
    assert best_head(heads, mask) == pytest.approx((4 / 6 + 2 / 3) / 2)
    assert jaccard(heads[2], mask == 9, mask != VOID) == 1
    assert best_head(heads, torch.zeros(4, 6, dtype=torch.long)) is None


def test_the_oracle_is_the_best_of_all_unions_of_patches() -> None:
    random = torch.Generator().manual_seed(1)
    mask = (torch.rand(4, 9, generator=random) < 0.4).long()
    mask[0, 0] = VOID
    grid = (2, 3)
    best = 0.0
    for chosen in itertools.product([False, True], repeat=6):
        patches = torch.tensor(chosen).view(1, 1, *grid)
        found = enlarge(patches, (4, 9))[0, 0]
        best = max(best, float(jaccard(found, mask == 1, mask != VOID)))
    assert oracle(mask, grid) == pytest.approx(best)
    aligned = torch.zeros(4, 9, dtype=torch.long)
    aligned[:2, 3:6] = 1
    assert oracle(aligned, grid) == 1


def test_a_box_in_the_middle_has_its_share() -> None:
    found = box(0.25, (8, 12))
    assert found.shape == (1, 8, 12) and found.sum() == 4 * 6 and found[0, 2:6, 3:9].all()


def test_patches_take_the_class_of_most_pixels() -> None:
    mask = torch.tensor([[1, 1, 0, VOID], [1, 0, VOID, VOID]])
    assert patch_classes(mask, (1, 2), 2).tolist() == [1, VOID]


def test_mean_iou_adds_up_over_images_and_leaves_out_void_and_absent_classes() -> None:
    found = torch.tensor([[0, 1, 1, 1]])
    true = torch.tensor([[0, 1, 0, VOID]])
    one = overlaps(found, true, 3)
    assert one.tolist() == [[1, 1, 0], [2, 2, 0]]
    two = overlaps(torch.tensor([[1, 1, 1, 1]]), torch.tensor([[1, 1, 1, 1]]), 3)
    assert mean_iou(torch.stack([one, two])) == pytest.approx((1 / 2 + 5 / 6) / 2)


def test_the_bootstrap_of_a_mean_comes_close_to_its_standard_error() -> None:
    values = torch.arange(101, dtype=torch.float64)
    low, high = bootstrap(values, lambda some: float(some.mean()))
    half = 1.96 * float(values.std(correction=0)) / 101**0.5
    assert (low, high) == pytest.approx((50 - half, 50 + half), abs=0.1 * half)
    assert bootstrap(torch.ones(5), lambda some: float(some.mean())) == (1, 1)


def test_masks_are_read_as_they_come(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 2], [VOID, 1]], dtype="uint8")).convert("P")
    palette = Image.frombytes("P", (2, 2), bytes([0, 2, VOID, 1]))
    palette.putpalette(list(range(256)) * 3)
    cases = {
        "voc": (palette, [[0, 2], [VOID, 1]]),
        "white": (Image.fromarray(np.array([[0, 255]], dtype="uint8")), [[0, 1]]),
        "grey": (Image.fromarray(np.array([[0, 3, 255]], dtype="uint8")), [[0, 3, VOID]]),
        "bit": (Image.fromarray(np.array([[False, True]])), [[0, 1]]),
        "colours": (
            Image.fromarray(np.array([[[0, 0, 0], [9, 0, 0], [0, 9, 0]]], dtype="uint8")),
            [[0, 1, 2]],
        ),
    }
    for name, (picture, expected) in cases.items():
        picture.save(tmp_path / f"{name}.png")
        assert read_mask(tmp_path / f"{name}.png").tolist() == expected, name


def test_a_mask_is_cut_as_its_picture() -> None:
    mask = torch.zeros(30, 50, dtype=torch.long)
    mask[4:24, 20:40] = 2
    pixels = Pixels(interpolation="bilinear", cover=0.8)
    picture = pixels.fit((mask > 0).float()[None], (12, 16))[0]
    assert ((picture > 0.5) == (fit_mask(mask, (12, 16), 0.8) > 0)).float().mean() > 0.97
    assert torch.equal(fit_mask(mask, (30, 50)), mask)


def test_principal_colours_find_the_plane_of_the_features() -> None:
    place = torch.rand(2, 3, 5, 2)
    features = place @ torch.tensor([[3.0, 0, 4, 0], [0, 0.5, 0, 0]]) + 7
    colours = principal_colours(features)
    assert colours.shape == (2, 3, 5, 3) and colours.min() >= 0 and colours.max() <= 1
    flat = torch.corrcoef(torch.stack([colours[..., 0].flatten(), place[..., 0].flatten()]))
    assert flat[0, 1] > 0.98  # only the ends are cut
    assert principal_colours(torch.randn(1, 1, 2, 5)).shape == (1, 1, 2, 3)


def test_rows_of_attention_and_of_the_probe(run: tuple[str, str]) -> None:
    rows = segmentation(run[0], {}, run[1])
    names = [row.system for row in rows]
    assert names[:3] == ["this run", "untrained encoder", "random maps"]
    assert names[3].startswith("box in the middle (1") and names[4] == "best of whole patches"
    by_name = {row.system: row for row in rows}
    assert by_name["this run"].value != by_name["untrained encoder"].value
    best = by_name["best of whole patches"].value
    assert all(row.value <= best for row in rows[:4]) and 0.6 < best < 0.95
    assert [row.metric for row in rows[5:]] == ["mean IoU of 2 classes"] * 3
    assert by_name["raw pixels of patches"].value > 0.7  # bright discs: pixels tell them
    assert all(row.low <= row.value <= row.high for row in rows)  # type: ignore[operator]


def test_masks_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for value, folder in enumerate(("a", "b")):
        for of in ("photos", "masks"):
            (tmp_path / of / "test" / folder).mkdir(parents=True)
            picture = Image.new("L", (8, 8), 10 * (value + 1))
            picture.save(tmp_path / of / "test" / folder / "1.png")
    data = Images(str(tmp_path / "photos"), size=8)
    data.setup()
    find = find_masks(str(tmp_path / "masks"), data, "test")
    assert [int(found.max()) for index in range(2) if (found := find(index)) is not None] == [10, 20]
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("L", (8, 8), 30).save(flat / "1.png")  # of which of the two?
    assert [find_masks(str(flat), data, "test")(index) for index in range(2)] == [None, None]


def test_masks_from_alpha_arrays_and_nowhere(run: tuple[str, str], tmp_path: Path) -> None:
    photos = tmp_path / "cut"
    for part, count in (("train", 6), ("test", 6)):
        (photos / part).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((SIDE, SIDE, 4), 90, dtype="uint8")
            pixels[:, :, 3] = 0
            pixels[4:12, 8:16, 3] = 255
            Image.fromarray(pixels).save(photos / part / f"{index}.png")
    rows = segmentation(run[0], {"data.path": str(photos)}, "alpha")
    oracle_row = next(row for row in rows if row.system == "best of whole patches")
    assert oracle_row.value == 1  # the square lies on whole patches
    x, mask = np.zeros((8, SIDE, SIDE)), np.zeros((8, SIDE, SIDE), dtype="uint8")
    mask[:, :PATCH] = 5
    np.savez(tmp_path / "x.npz", train_x=x, val_x=x, test_x=x, test_mask=mask)
    arrays = segmentation(run[0], {"data.path": str(tmp_path / "x.npz")}, str(tmp_path / "x.npz"))
    assert len(arrays) == 5 and arrays[4].value == 1
    for where, sentence in (
        (str(tmp_path / "none"), "masks must be 'alpha', a folder"),
        (str(photos), "has none"),
    ):
        with pytest.raises(UserError, match=sentence):
            segmentation(run[0], {}, where)


def test_pictures_for_files_and_for_data(run: tuple[str, str], tmp_path: Path) -> None:
    photo = tmp_path / "cat.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype("uint8")).save(photo)
    folder = attend(run[0], {"data.size": "48"}, [str(photo)], str(tmp_path / "one"))
    assert sorted(file.name for file in folder.iterdir()) == ["cat.png", "overview.png"]
    folder = attend(run[0], {}, (), str(tmp_path / "own"), layer=1, count=3)
    assert sorted(file.name for file in folder.iterdir()) == [
        "overview.png",
        "test-32.png",
        "test-33.png",
        "test-34.png",
    ]
    with Image.open(folder / "test-33.png") as drawn:
        assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    for paths, sentence in (
        (["a.png"], "cannot read the image 'a.png'"),
        (["a", "b.png"], "expected image files, or one"),
    ):
        with pytest.raises(UserError, match=sentence):
            attend(run[0], {}, paths, str(tmp_path / "x"))


def test_attention_of_a_layer_is_the_layer_s(run: tuple[str, str]) -> None:
    model = load(run[0]).model
    view = View("image", torch.randn(2, 3, SIDE, SIDE))
    assert not torch.equal(attention(model, view, 1), attention(model, view))
    assert torch.equal(attention(model, view, 3), attention(model, view))
