"""Views of series: crops, noise and masks follow from (seed, epoch, sample, view) alone."""

from __future__ import annotations

import pytest
import torch
from triptych.tasks.series.views import SeriesView, ViewMaker, random_crop, stretched
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.series import SeriesWindows
from triptych.tokenizers.view import View

B, C, T = 5, 3, 34


def plain(ids=tuple(range(B))) -> View:
    values = torch.randn(B, C, T, generator=torch.Generator().manual_seed(1))
    return View("series", values[list(ids)], targets={"label": torch.arange(B)[list(ids)]}, ids=tuple(ids))


def maker(**options) -> ViewMaker:
    return ViewMaker("train", SeriesView(**options), 7, SeriesWindows(8, 8, "align").num_tokens)


def test_what_is_drawn_follows_from_seed_epoch_and_sample() -> None:
    make = maker(copies=2, crop=(0.4, 0.8), steps=24, jitter=0.3, mask=0.4)
    view, again = make(plain(), [0] * B), make(plain(), [0] * B)
    assert torch.equal(view.data, again.data) and torch.equal(view.masked, again.masked)
    alone = make(plain((3,)), [0])
    assert torch.equal(alone.data[0], view.data[3]) and torch.equal(alone.data[1], view.data[B + 3])
    other = make(plain(), [1] * B)
    assert not torch.equal(view.data, other.data) and not torch.equal(view.masked, other.masked)


def test_copies_are_laid_out_copy_major_with_their_targets() -> None:
    view = maker(copies=2)(plain(), [0] * B)
    assert view.data.shape == (2 * B, C, T) and view.copies == 2 and view.samples == B
    assert torch.equal(view.data[:B], view.data[B:])
    assert view.targets["label"].tolist() == [*range(B), *range(B)]


def test_each_channel_masks_its_own_windows_as_many_as_asked() -> None:
    masked = maker(mask=0.5)(plain(), [0] * B).masked.view(B * C, 4)
    assert masked.sum(1).tolist() == [2] * (B * C)
    assert len({tuple(row) for row in masked.tolist()}) > 1
    assert maker(mask=0.01)(plain(), [0] * B).masked.view(-1, 4).sum(1).unique().tolist() == [1]


def test_a_crop_is_a_run_of_the_series_and_may_keep_its_own_length() -> None:
    series = torch.arange(T, dtype=torch.float).expand(C, T)
    crop = random_crop(series, (0.5, 0.9), torch.Generator().manual_seed(3))
    assert T // 2 <= crop.shape[1] <= round(0.9 * T) and (crop.diff(dim=1) == 1).all()
    view = maker(crop=(0.3, 0.9))(plain(), [0] * B)
    assert isinstance(view.data, list) and len({entry.shape[1] for entry in view.data}) > 1


def test_a_crop_may_be_stretched_to_the_length_it_was_cut_from() -> None:
    view = maker(crop=(0.3, 0.6), steps="own")(plain(), [0] * B)
    assert view.data.shape == (B, C, T) and not torch.equal(view.data, plain().data)


def test_stretching_keeps_ends_and_straight_lines() -> None:
    line = torch.linspace(-1, 1, 7).unsqueeze(0)
    assert torch.allclose(stretched(line, 13), torch.linspace(-1, 1, 13).unsqueeze(0), atol=1e-6)


def test_missing_values_stay_missing() -> None:
    whole = plain()
    observed = torch.rand(B, C, T, generator=torch.Generator().manual_seed(2)) < 0.7
    gappy = View("series", whole.data, observed=observed, ids=whole.ids)
    view = maker(jitter=0.1)(gappy, [0] * B)
    assert torch.equal(torch.isfinite(view.data), observed)


@pytest.mark.parametrize("options", [{"mask": 1.0}, {"crop": (0.8, 0.4)}, {"crop": (0.0, 0.4)}])
def test_shares_that_cannot_be_drawn_are_refused(options) -> None:
    with pytest.raises(UserError, match="share"):
        SeriesView(**options)


def test_a_mask_needs_two_windows() -> None:
    with pytest.raises(UserError, match="at least 2 windows"):
        ViewMaker("train", SeriesView(mask=0.5), 7, SeriesWindows(T, T, "align").num_tokens)(plain(), [0] * B)
