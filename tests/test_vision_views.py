"""Views of images: exact, and drawn from (seed, epoch, sample, view) alone."""

from typing import Any

import pytest
import torch
from triptych.tasks.data import PLAIN
from triptych.tasks.vision import augment
from triptych.tasks.vision.data import Images
from triptych.tasks.vision.options import Colour, Corrupt, ImageView, Mask, Mix, RandAugment, Warp
from triptych.tasks.vision.pixels import Pixels
from triptych.tasks.vision.views import Picture, ViewMaker, partners
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.view import View

EVERYTHING = ImageView(
    copies=2,
    crop=(0.5, 1.0),
    flip=0.5,
    warp=Warp(degrees=20, shift=0.1, zoom=(0.8, 1.2), shear=10),
    colour=Colour(brightness=0.4, contrast=0.4, blur=0.5, solarize=0.3),
    rand_augment=RandAugment(),
    rotate=True,
    corrupt=Corrupt(blur=0.5, drop=(0.0, 0.3), side=(0.2, 0.4)),
    mask=Mask(ratio=0.5),
)


def digits(**views: ImageView) -> Images:
    data = Images("digits", views=views)
    data.attach({"image": ImagePatches(2)})
    return data


def same(one: View, other: View) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("data", "clean", "masked", "hidden")]
    pairs += [(one.targets[name], other.targets[name]) for name in one.targets]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


def test_randomness_is_of_seed_epoch_sample_and_view_alone() -> None:
    samples = digits(a=EVERYTHING, b=EVERYTHING).samples("train")

    def batch(epoch: int, *indices: int) -> dict[str, View]:
        return samples.collate([samples[epoch, index] for index in indices])

    alone, among = batch(3, 11)["a"], batch(3, 2, 11, 5)["a"]
    for copy in range(2):
        assert torch.equal(alone.data[copy], among.data[3 * copy + 1])
    assert same(batch(3, 2, 11)["a"], batch(3, 2, 11)["a"])
    assert not same(batch(3, 2, 11)["a"], batch(4, 2, 11)["a"])
    assert not same(batch(3, 2, 11)["a"], batch(3, 2, 11)["b"])
    assert not torch.equal(alone.data[0], alone.data[1])


def test_a_view_holds_what_was_asked_for() -> None:
    samples = digits(a=EVERYTHING).samples("train")
    view = samples.collate([samples[0, index] for index in range(5)])["a"]
    assert view.data.shape == (10, 1, 8, 8) and view.copies == 2 and view.samples == 5
    assert view.ids == (0, 1, 2, 3, 4)
    assert view.clean is not None and not torch.equal(view.clean, view.data)
    assert view.clean.min() >= -1 and view.clean.max() <= 1
    assert view.masked is not None and view.masked.view(10, 16).sum(1).eq(8).all()
    assert set(view.targets) == {"label", "rotation"}
    assert torch.equal(view.targets["label"][:5], view.targets["label"][5:])


def test_hidden_patches() -> None:
    samples = digits(a=ImageView(mask=Mask(ratio=0.75, hide=True))).samples("train")
    view = samples.collate([samples[0, index] for index in range(3)])["a"]
    assert view.masked is None and view.hidden is not None
    assert view.hidden.view(3, 16).sum(1).eq(12).all()


def test_evaluation_sees_pictures_as_they_are_unless_copies_are_compared() -> None:
    data = digits(one=ImageView(warp=Warp(degrees=20)), two=ImageView(copies=2, warp=Warp(degrees=20)))
    test, plain = (data.samples("test", plain=p) for p in (False, True))
    views = test.collate([test[0, i] for i in range(4)])
    bare = plain.collate([plain[0, i] for i in range(4)])[PLAIN]
    assert torch.equal(views["one"].data, bare.data)
    assert not torch.equal(views["two"].data[:4], views["two"].data[4:])
    train = data.samples("train")
    assert not torch.equal(train.collate([train[0, 0]])["one"].data, train.collate([train[1, 0]])["one"].data)


def test_turns_are_what_the_target_says() -> None:
    turned = digits(a=ImageView(rotate=True)).samples("train")
    plain = digits(a=ImageView()).samples("train")
    rotated, upright = (s.collate([s[0, index] for index in range(20)])["a"] for s in (turned, plain))
    assert set(rotated.targets["rotation"].tolist()) == {0, 1, 2, 3}
    for picture, original, turn in zip(rotated.data, upright.data, rotated.targets["rotation"], strict=True):
        assert torch.equal(picture, torch.rot90(original, int(turn), (1, 2)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_warp_of_nothing_changes_nothing(interpolation: Any) -> None:
    x, draws = torch.rand(3, 1, 8, 8), torch.rand(3, augment.WARP_DRAWS)
    found = augment.warp(x, Warp(interpolation=interpolation), draws)
    torch.testing.assert_close(found, x, atol=1e-5, rtol=0)


def test_a_warp_by_whole_pixels_is_a_shift() -> None:
    x, draws = torch.rand(1, 1, 8, 8), torch.full((1, augment.WARP_DRAWS), 0.5)
    draws[0, 3] = 1.0  # the far end of the range: two of eight pixels to the right
    found = augment.warp(x, Warp(shift=0.25), draws)
    torch.testing.assert_close(found[..., :6], x[..., 2:], atol=1e-5, rtol=0)
    assert found[..., 6:].abs().max() < 1e-5


def test_a_bicubic_warp_is_sharper_and_stays_within_range() -> None:
    x = (torch.rand(50, 1, 8, 8) > 0.5).float()
    draws = torch.rand(50, augment.WARP_DRAWS)
    blurred, sharp = (
        augment.warp(x, Warp(degrees=10, shift=0.05, interpolation=mode), draws)
        for mode in ("bilinear", "bicubic")
    )
    assert sharp.min() >= 0 and sharp.max() <= 1
    assert sharp.var() > 1.2 * blurred.var()


def test_a_warp_of_a_quarter_turn() -> None:
    x, draws = torch.rand(1, 1, 8, 8), torch.full((1, augment.WARP_DRAWS), 0.5)
    draws[0, 0] = 1.0
    found = augment.warp(x, Warp(degrees=90), draws)
    torch.testing.assert_close(found, torch.rot90(x, 1, (2, 3)), atol=1e-5, rtol=0)


def test_pictures_are_scaled_to_cover_and_cut() -> None:
    wide = torch.arange(24.0).repeat(6, 1)[None] / 24
    found = Pixels().fit(wide, (6, 6))
    torch.testing.assert_close(found, wide[:, :, 9:15])
    assert Pixels().fit(torch.full((3, 31, 17), 0.3), (8, 5)).shape == (3, 8, 5)


def test_pictures_are_scaled_further_and_cut_where_the_model_was_judged_so() -> None:
    """timm's crop_pct: at .5 the shorter side of 12 stays 12, and its middle 6 are read."""
    picture = torch.rand(3, 12, 24)
    found = Pixels(cover=0.5).fit(picture, (6, 6))
    torch.testing.assert_close(found, picture[:, 3:9, 9:15])


def test_colours_are_normalised_channel_by_channel_and_back() -> None:
    pixels = Pixels(mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2.0])
    found = pixels.normalise(torch.full((2, 3, 5, 7), 0.6))
    torch.testing.assert_close(found[1, :, 4, 6], torch.tensor([1.0, 1.6, 0.15]))
    torch.testing.assert_close(pixels.restore(found), torch.full((2, 3, 5, 7), 0.6))
    with pytest.raises(UserError, match=r"data.pixels.mean must be one number or 1"):
        pixels.check(1)


def test_crops_show_the_share_that_was_asked_for() -> None:
    picture = torch.linspace(0, 1, 32).expand(1, 32, 32)
    whole = augment.random_crop(picture, (8, 8), (1.0, 1.0), torch.tensor([0.3, 0.5, 0.9, 0.9]))
    assert whole.max() - whole.min() > 0.8
    part = augment.random_crop(picture, (8, 8), (0.25, 0.25), torch.tensor([0.3, 0.5, 0.0, 0.0]))
    assert part.max() < 0.52 and part.min() < 0.05


def test_corruption_is_seen_by_the_student_alone() -> None:
    samples = digits(a=ImageView(corrupt=Corrupt(drop=(0.5, 0.5)))).samples("train")
    view = samples.collate([samples[0, 0]])["a"]
    plain = digits(a=ImageView()).samples("train")
    assert torch.equal(view.whole().data, plain.collate([plain[0, 0]])["a"].data)
    assert not torch.equal(view.data, view.whole().data)


def mixed(options: Mix, count: int = 12, copies: int = 1) -> tuple[View, View]:
    """The same entries mixed and not, through the data module."""
    made = [digits(a=ImageView(copies=copies, mix=of)).samples("train").collate for of in (options, None)]
    items = digits(a=ImageView()).samples("train")
    pictures = [items[3, index] for index in range(count)]
    return made[0](pictures)["a"], made[1](pictures)["a"]


@pytest.mark.parametrize("copies", [1, 2])
def test_mixup_weighs_picture_and_label_alike(copies: int) -> None:
    """Every mixed picture is w times itself and 1 - w times one other of the batch, and so is its label."""
    view, plain = mixed(Mix(mixup=0.8), copies=copies)
    label = torch.eye(10)[plain.targets["label"]]
    assert view.targets["label"].shape == (12 * copies, 10)
    torch.testing.assert_close(view.targets["label"].sum(1), torch.ones(12 * copies))
    flat = plain.data.flatten(1)
    for i, (picture, soft) in enumerate(zip(view.data.flatten(1), view.targets["label"], strict=True)):
        fits = []
        for j in range(12 * copies):
            difference = flat[i] - flat[j]
            if j == i or not difference.any():
                continue
            weight = (picture - flat[j]) @ difference / (difference @ difference)
            rest = (weight * flat[i] + (1 - weight) * flat[j] - picture).abs().max()
            if rest < 1e-4:
                fits.append((weight * label[i] + (1 - weight) * label[j] - soft).abs().max())
        assert fits and min(fits) < 1e-4


def test_cutmix_counts_the_pixels_that_came_from_the_partner() -> None:
    """Pictures of one shade each: how much of a shade is seen is what the label says."""
    n, classes = 40, 7
    pictures = [Picture(torch.full((1, 11, 13), i / n), i % classes, i) for i in range(n)]
    options = ImageView(mix=Mix(cutmix=1.0))
    view = ViewMaker("a", options, (11, 13), Pixels(0.0, 1.0), 0, classes)(pictures)
    several = 0
    for i, (picture, soft) in enumerate(zip(view.data, view.targets["label"], strict=True)):
        shades, counts = picture.unique(return_counts=True)
        expected = torch.zeros(classes)
        for shade, count in zip(shades, counts, strict=True):
            expected[round(shade.item() * n) % classes] += count / (11 * 13)
        torch.testing.assert_close(soft, expected)
        several += len(shades) == 2
        rows, columns = torch.where((picture[0] - i / n).abs() > 1e-6)
        if len(rows):  # what came from the partner is one full box
            assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    assert several > n / 2


def test_the_share_of_mixup_and_cutmix_is_what_was_asked_for() -> None:
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)); half of what is mixed is cut."""
    n, a = 4000, 0.4
    images, others = torch.zeros(n, 1, 8, 8), torch.ones(n, 1, 8, 8)
    draws = torch.rand(n, augment.MIX_DRAWS, generator=torch.Generator().manual_seed(0))
    everyone = torch.ones(n, dtype=torch.bool)
    _, kept = augment.mix(images, others, Mix(mixup=a), draws, everyone)
    assert kept.mean().item() == pytest.approx(0.5, abs=0.02)
    assert kept.var().item() == pytest.approx(1 / (4 * (2 * a + 1)), abs=0.01)
    found, kept = augment.mix(images, others, Mix(mixup=a, cutmix=1.0, share=0.6), draws, everyone)
    torch.testing.assert_close(1 - found.mean((1, 2, 3)), kept)
    assert (kept < 1).float().mean().item() == pytest.approx(0.6, abs=0.05)
    blended = ((found > 0) & (found < 1)).flatten(1).any(1)
    assert blended.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_partners_are_others_of_the_same_copy_and_all_alike_likely() -> None:
    draws = torch.rand(5 * 3 * 400, generator=torch.Generator().manual_seed(0)).view(400, 15)
    found = torch.stack([partners(row, copies=3) for row in draws])
    own = torch.arange(15)
    assert (found != own).all() and (found // 5 == own // 5).all()
    counts = torch.stack([(found == j).sum(0) for j in range(15)])
    assert counts[counts > 0].min() > 60 and counts.max() < 145  # of 400, 100 expected
    assert partners(torch.tensor([0.5]), 1).tolist() == [0]  # alone, it is its own


def test_a_partner_is_drawn_from_seed_epoch_and_sample() -> None:
    samples = digits(a=ImageView(mix=Mix(mixup=1.0))).samples("train")

    def batch(epoch: int) -> View:
        return samples.collate([samples[epoch, index] for index in range(9)])["a"]

    assert torch.equal(batch(2).targets["label"], batch(2).targets["label"])
    assert same(batch(2), batch(2)) and not same(batch(2), batch(3))


def test_what_has_no_label_is_not_mixed() -> None:
    pictures = [Picture(torch.rand(1, 4, 6), label, i) for i, label in enumerate((2, -1, -1, 0, 1))]
    made = [
        ViewMaker("a", ImageView(mix=mix), (4, 6), Pixels(0.0, 1.0), 0, 3)(pictures)
        for mix in (Mix(mixup=1.0, cutmix=1.0), None)
    ]
    soft = made[0].targets["label"]
    assert torch.equal(soft.sum(1), torch.tensor([1.0, 0, 0, 1, 1]))
    assert torch.equal(made[0].data[1:3], made[1].data[1:3])


def test_evaluation_is_neither_mixed_nor_distorted() -> None:
    view = ImageView(mix=Mix(mixup=1.0), rand_augment=RandAugment())
    test, plain = digits(a=view).samples("test"), digits(a=ImageView()).samples("test")
    found, expected = (s.collate([s[0, i] for i in range(4)])["a"] for s in (test, plain))
    assert torch.equal(found.data, expected.data)
    assert torch.equal(found.targets["label"], expected.targets["label"])


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_keeps_shape_and_range_and_leaves_the_global_generator_alone(channels: int) -> None:
    picture = torch.rand(channels, 12, 10)
    before = torch.random.get_rng_state()
    found = [augment.rand_augment(picture, RandAugment(2, 20), seed) for seed in range(40)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(found[7], augment.rand_augment(picture, RandAugment(2, 20), 7))
    assert all(one.shape == picture.shape and one.min() >= 0 and one.max() <= 1 for one in found)
    assert len({one.sum().item() for one in found}) > 20
    assert torch.equal(augment.rand_augment(picture, RandAugment(0), 3), picture)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (ImageView(mix=Mix()), "mix of view 'a' needs mixup or cutmix above 0, but has 0.0 and 0.0"),
        (ImageView(rotate=True), "'a' is 6x4 pixels"),
        (ImageView(mask=Mask(ratio=1.5)), "mask ratio of view 'a' must lie between 0 and 1, but is 1.5"),
    ],
)
def test_options_that_do_not_fit(view: ImageView, message: str) -> None:
    data = Images("digits", size=(6, 4), views={"a": view})
    with pytest.raises(UserError, match=message):
        data.samples("train")
