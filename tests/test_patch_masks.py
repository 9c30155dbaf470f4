"""Masks over patches: how many, in which shape, in how many entries.

Shapes: R x Q patches of an entry.
"""

import pytest
import torch
from torch import Tensor
from triptych.tasks.vision.data import Images
from triptych.tasks.vision.options import ImageView, Mask
from triptych.tasks.vision.patch_masks import block_patches, draw_mask, random_patches
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches

GRID = (11, 13)
RANDOM = torch.Generator()


def drawn(options: Mask, entries: int, grid: tuple[int, int] = GRID) -> Tensor:
    """`(entries, R, Q)`."""
    random = torch.Generator().manual_seed(0)
    return torch.stack([draw_mask(options, grid, random).view(grid) for _ in range(entries)])


@pytest.mark.parametrize("blocks", [False, True])
def test_every_entry_of_a_fixed_ratio_has_the_same_number(blocks: bool) -> None:
    masks = drawn(Mask(0.4, blocks=blocks), 60)
    assert (masks.sum((1, 2)) == round(0.4 * 143)).all()
    everywhere = masks.float().mean(0)
    assert everywhere.min() > 0 and everywhere.max() < 0.85  # every patch has its turn, corners less often


def test_at_least_one_and_never_all() -> None:
    for make in (lambda ratio: random_patches(4, ratio, RANDOM), lambda r: block_patches((2, 2), r, RANDOM)):
        assert int(make(0.01).sum()) == 1
        assert int(make(0.99).sum()) == 3


def test_half_of_the_entries_are_masked_by_a_tenth_to_a_half() -> None:
    """iBOT's rule: U(.1, .5) has mean .3 and deviation .4 / sqrt(12)."""
    shares = drawn(Mask((0.1, 0.5), share=0.5, blocks=True), 1500).float().mean((1, 2))
    masked = shares[shares > 0]
    assert len(masked) / 1500 == pytest.approx(0.5, abs=0.04)
    assert masked.min().item() >= 0.09 and masked.max().item() <= 0.51
    assert masked.mean().item() == pytest.approx(0.3, abs=0.012)
    assert masked.std().item() == pytest.approx(0.4 / 12**0.5, abs=0.01)


def neighbours(masks: Tensor) -> float:
    """Share of the masked patches' right and lower neighbours that are masked too."""
    right = masks[:, :, :-1] & masks[:, :, 1:]
    down = masks[:, :-1] & masks[:, 1:]
    of = masks[:, :, :-1].sum() + masks[:, :-1].sum()
    return float((right.sum() + down.sum()) / of)


def test_blocks_hang_together() -> None:
    """Neighbours of independent patches are masked as often as any; those in blocks far more often."""
    scattered, blocks = drawn(Mask(0.3), 200), drawn(Mask(0.3, blocks=True), 200)
    assert neighbours(scattered) == pytest.approx(0.3, abs=0.03)
    assert neighbours(blocks) > 0.6


def test_four_patches_are_often_one_rectangle() -> None:
    """A block of three of them is filled by one elsewhere; a block of six is drawn again."""
    full = 0
    for seed in range(200):
        mask = block_patches((9, 9), 4 / 81, torch.Generator().manual_seed(seed)).view(9, 9)
        rows, columns = torch.where(mask)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        full += (height, width) in {(2, 2), (1, 4), (4, 1)}
    assert full > 60  # of four patches one by one, one in a thousand would be


def test_views_draw_masks_from_seed_epoch_and_sample() -> None:
    data = Images("digits", views={"a": ImageView(copies=2, mask=Mask((0.1, 0.5), 0.5, blocks=True))})
    data.attach({"image": ImagePatches(2)})
    samples = data.samples("train")

    def masked(epoch: int) -> Tensor:
        found = samples.collate([samples[epoch, index] for index in range(24)])["a"].masked
        assert found is not None
        return found.view(48, 16)

    assert torch.equal(masked(1), masked(1)) and not torch.equal(masked(1), masked(2))
    counts = masked(1).sum(1)
    assert 12 < (counts > 0).sum() < 36 and counts.max() <= 8


@pytest.mark.parametrize("ratio", [1.5, (0.0, 0.5), (0.6, 0.4)])
def test_a_ratio_that_is_none(ratio: float | tuple[float, float]) -> None:
    data = Images("digits", views={"a": ImageView(mask=Mask(ratio))})
    data.attach({"image": ImagePatches(2)})
    with pytest.raises(UserError, match="mask ratio of view 'a' must lie between 0 and 1"):
        data.samples("train")
