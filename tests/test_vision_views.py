"""Views of images: exact, and drawn from (seed, epoch, sample, view) alone."""

import pytest
import torch
from triptych.tasks.data import PLAIN
from triptych.tasks.vision import augment
from triptych.tasks.vision.data import Images
from triptych.tasks.vision.options import Colour, Corrupt, ImageView, Mask, Warp
from triptych.tasks.vision.pixels import Pixels
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.view import View

EVERYTHING = ImageView(
    copies=2,
    crop=(0.5, 1.0),
    flip=0.5,
    warp=Warp(degrees=20, shift=0.1, zoom=(0.8, 1.2), shear=10),
    colour=Colour(brightness=0.4, contrast=0.4, blur=0.5, solarize=0.3),
    rotate=True,
    corrupt=Corrupt(noise=0.3, erase=0.5),
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


def test_a_warp_of_nothing_changes_nothing() -> None:
    x, draws = torch.rand(3, 1, 8, 8), torch.rand(3, augment.WARP_DRAWS)
    found = augment.warp(x, Warp(), draws)
    torch.testing.assert_close(found, x, atol=1e-5, rtol=0)


def test_a_warp_by_whole_pixels_is_a_shift() -> None:
    x, draws = torch.rand(1, 1, 8, 8), torch.full((1, augment.WARP_DRAWS), 0.5)
    draws[0, 3] = 1.0  # the far end of the range: two of eight pixels to the right
    found = augment.warp(x, Warp(shift=0.25), draws)
    torch.testing.assert_close(found[..., :6], x[..., 2:], atol=1e-5, rtol=0)
    assert found[..., 6:].abs().max() < 1e-5


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


def test_erased_blocks_lie_inside_and_are_of_the_right_size() -> None:
    n = 200
    found = augment.erase(torch.zeros(n, 1, 8, 8), torch.ones(n, 1, 8, 8), torch.rand(n, 5), 0.5)
    touched = found.flatten(1).sum(1)
    assert 60 < (touched > 0).sum() < 140
    assert touched[touched > 0].min() >= 4 and touched.max() <= 16


def test_noise_is_seen_by_the_student_alone() -> None:
    samples = digits(a=ImageView(corrupt=Corrupt(noise=0.5))).samples("train")
    view = samples.collate([samples[0, 0]])["a"]
    plain = digits(a=ImageView()).samples("train")
    assert torch.equal(view.whole().data, plain.collate([plain[0, 0]])["a"].data)
    assert not torch.equal(view.data, view.whole().data)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (ImageView(rotate=True), "'a' is 6x4 pixels"),
        (ImageView(mask=Mask(ratio=1.5)), "mask ratio of view 'a' must lie between 0 and 1, but is 1.5"),
    ],
)
def test_options_that_do_not_fit(view: ImageView, message: str) -> None:
    data = Images("digits", size=(6, 4), views={"a": view})
    with pytest.raises(UserError, match=message):
        data.samples("train")
