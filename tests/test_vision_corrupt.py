"""Group masking: how many pixels, in blocks of which size, in which way, and drawn from what.

Shapes: n entries, C channels, H x W pixels.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur
from triptych.tasks.vision.corrupt import Draw, blocks, corrupt, draw
from triptych.tasks.vision.data import Images
from triptych.tasks.vision.options import Corrupt, ImageView, Warp
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.view import View

SIZE = (37, 53)
AREA = SIZE[0] * SIZE[1]
#: SiT's first version: one block grey, one blurred, up to .3 noise, up to .3 of another picture.
SIT = Corrupt(grey=1.0, blur=1.0, drop=(0.0, 0.3), replace=(0.0, 0.3))
#: Its last: half of the pixels zero, or in half of the entries .3 of another picture.
SIT_V3 = Corrupt(drop=(0.5, 0.5), fill="zeros", replace=(0.3, 0.3), swap=0.5, side=(0.0, 0.3))


def draws(options: Corrupt, count: int, channels: int = 3, size: tuple[int, int] = SIZE) -> list[Draw]:
    random = torch.Generator().manual_seed(0)
    return [draw(options, channels, size, random) for _ in range(count)]


def share(masks: list[Tensor]) -> Tensor:
    """Share of the pixels of each mask."""
    return torch.stack(masks).float().mean((1, 2))


@pytest.mark.parametrize("wanted", [0.05, 0.3, 0.7])
def test_blocks_cover_the_share_and_at_most_one_block_more(wanted: float) -> None:
    options, random = Corrupt(side=(0.05, 0.25)), torch.Generator().manual_seed(0)
    covered = share([blocks(options, wanted, SIZE, random) for _ in range(50)])
    largest = round(0.25 * SIZE[0]) * round(0.25 * SIZE[1]) / AREA
    assert covered.min() >= wanted - 1e-6
    assert covered.max() < wanted + largest
    assert not blocks(options, 0.0, SIZE, random).any()


def sides(mask: Tensor) -> tuple[int, int]:
    """Height and width of one block, which must be full."""
    rows, columns = torch.where(mask)
    height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
    assert len(rows) == height * width
    return height, width


def test_blocks_are_of_5_to_25_percent_of_the_side_and_not_aligned() -> None:
    found = [sides(one.blur) for one in draws(SIT, 400)]
    for axis in (0, 1):
        lengths = {size[axis] for size in found}
        low, high = round(0.05 * SIZE[axis]), round(0.25 * SIZE[axis])
        assert lengths == set(range(low, high + 1))
    tops = {int(torch.where(one.blur)[0].min()) for one in draws(SIT, 400)}
    assert len(tops) > 25


def test_aligned_blocks_lie_on_the_grid() -> None:
    options = Corrupt(drop=(0.4, 0.4), side=(0.1, 0.5), align=4)
    for one in draws(options, 30, size=(24, 32)):
        cells = one.drop.view(6, 4, 8, 4).float().mean((1, 3))
        assert set(cells.unique().tolist()) <= {0.0, 1.0}


def test_the_first_version_chains_all_four() -> None:
    found = draws(SIT, 600)
    assert all(one.grey.any() and one.blur.any() for one in found)
    for kind in ("drop", "replace"):
        covered = share([getattr(one, kind) for one in found])
        # U(0, .3), and half a block of about .02 more
        assert covered.mean().item() == pytest.approx(0.16, abs=0.01)
        assert covered.max() < 0.3 + 0.07
    assert min(one.sigma for one in found) >= 0.1 and 4.5 < max(one.sigma for one in found) <= 5.1


def test_the_last_version_drops_half_or_replaces_a_third() -> None:
    found = draws(SIT_V3, 600)
    dropped, replaced = (share([getattr(one, kind) for one in found]) for kind in ("drop", "replace"))
    assert ((dropped > 0) ^ (replaced > 0)).all()
    assert (replaced > 0).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert dropped[dropped > 0].min() >= 0.5 and dropped.max() < 0.6
    assert replaced[replaced > 0].min() >= 0.3 - 1e-6 and replaced.max() < 0.4


def test_each_kind_does_what_it_says_and_nothing_else_changes() -> None:
    n, images = 12, torch.randn(12, 3, *SIZE)
    others = images.roll(1, 0)

    def spoilt(**settings: Any) -> tuple[Tensor, Tensor, list[Draw]]:
        made = draws(Corrupt(**settings), n)
        return *corrupt(images, others, made), made

    for settings in (
        {"grey": 1.0},
        {"blur": 1.0},
        {"drop": (0.2, 0.4)},
        {"drop": (0.2, 0.4), "fill": "zeros"},
        {"replace": (0.2, 0.4)},
    ):
        found, touched, made = spoilt(**settings)
        assert touched.shape == (n, 1, *SIZE) and touched.flatten(1).any(1).all()
        assert torch.equal(found.where(~touched, 0), images.where(~touched, 0))
        if "grey" in settings:
            expected = images.mean(1, keepdim=True).expand_as(images)
        elif "replace" in settings:
            expected = others
        elif settings.get("fill") == "zeros":
            expected = torch.zeros_like(images)
        elif "drop" in settings:
            expected = torch.stack([one.noise for one in made])
            assert expected.std().item() == pytest.approx(1, abs=0.05)
        else:  # blur: in its block alone, smoother than before
            assert (found - images).abs().sum() > 0
            assert found[touched.expand_as(found)].std() < 0.8
            continue
        assert torch.equal(found.where(touched, 0), expected.where(touched, 0))


def test_one_channel_has_no_colour_to_lose() -> None:
    assert not any(one.grey.any() for one in draws(SIT, 20, channels=1))


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (31, 17)])
def test_the_blur_is_torchvisions(size: tuple[int, int]) -> None:
    sigmas, images = torch.tensor([0.1, 0.77, 1.9, 5.1]), torch.randn(4, 3, *size)
    none = torch.zeros(size, dtype=torch.bool)
    made = [
        Draw(none, ~none, none, none, torch.zeros(3, *size), torch.tensor(0.0), float(sigma))
        for sigma in sigmas
    ]
    found, touched = corrupt(images, images, made)
    assert touched.all()
    for image, blurred, sigma in zip(images, found, sigmas.tolist(), strict=True):
        kernel = min(15, 2 * min(size) - 1, 2 * max(1, round(2 * sigma)) + 1)
        torch.testing.assert_close(blurred, gaussian_blur(image, [kernel, kernel], [sigma, sigma]))


def test_small_pictures_are_blurred_too() -> None:
    made = draws(Corrupt(blur=1.0, side=(0.5, 1.0)), 20, channels=1, size=(4, 4))
    found, _ = corrupt(x := torch.randn(20, 1, 4, 4), x, made)
    assert found.isfinite().all() and not torch.equal(found, x)


def sit_view(**settings: Any) -> View:
    options = ImageView(copies=2, corrupt=Corrupt(side=(0.2, 0.4), **settings), rotate=True, warp=Warp(10))
    data = Images("digits", views={"a": options})
    data.attach({"image": ImagePatches(2)})
    samples = data.samples("train")
    return samples.collate([samples[0, index] for index in range(9)])["a"]


@pytest.mark.parametrize("wrong", [{"replace": (0.5, 1.5)}, {"drop": (0.6, 0.3)}, {"drop": (-0.1, 0.2)}])
def test_shares_that_no_blocks_can_cover_are_refused(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(UserError, match="must be two shares from 0 to 1, the smaller one first, but is"):
        sit_view(**wrong)


def test_a_view_tells_what_was_touched_and_the_tokens_carry_it() -> None:
    view = sit_view(drop=(0.3, 0.5), fill="zeros")
    assert view.corrupted is not None and view.clean is not None
    assert torch.equal(view.data.where(~view.corrupted, 0), view.clean.where(~view.corrupted, 0))
    assert view.whole().corrupted is None
    tokenizer = ImagePatches(2, ("rotation", "contrastive"))
    tokenizer.build(12, {"channels": 1, "size": (8, 8)})
    content = tokenizer(view).content()
    patches = tokenizer.patches_of(view.data)
    assert content.corrupted is not None and content.source is not None
    assert torch.equal(content.corrupted, tokenizer.patches_of(view.corrupted.float()).bool())
    assert torch.equal(patches.where(~content.corrupted, 0), content.source.where(~content.corrupted, 0))


def test_pictures_are_turned_after_all_other_augmentation_and_before_corruption() -> None:
    """The same draws without the turn, turned, are the clean picture: warp and mirror came before."""
    view = sit_view(drop=(0.3, 0.5))
    turns = view.targets["rotation"]
    assert set(turns.tolist()) == {0, 1, 2, 3}
    options = ImageView(copies=2, warp=Warp(10))
    data = Images("digits", views={"a": options})
    samples = data.samples("train")
    upright = samples.collate([samples[0, index] for index in range(9)])["a"].data
    # a copy's first numbers are the warp's; those of the first copy are not shifted by other draws
    for clean, original, turn in zip(view.clean[:9], upright[:9], turns[:9], strict=True):  # type: ignore[index]
        torch.testing.assert_close(clean, torch.rot90(original, int(turn), (1, 2)))


def test_replaced_pixels_come_from_another_sample_of_the_batch() -> None:
    view = sit_view(replace=(0.3, 0.3))
    assert view.corrupted is not None and view.clean is not None
    for i, (picture, touched) in enumerate(zip(view.data, view.corrupted, strict=True)):
        fits = [j for j in range(18) if torch.equal(picture[touched], view.clean[j][touched])]
        assert any(j != i and j // 9 == i // 9 for j in fits)
