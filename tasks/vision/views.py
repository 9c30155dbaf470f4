"""From pictures to the named views of a batch, with all randomness from (seed, epoch, sample, view).

Each entry draws its numbers from a generator of its own; the arithmetic that is cheap a pixel is then done
for a whole batch at once, which on 8 x 8 digits is some twenty times faster than transforms a sample.

Shapes: B samples, n = copies * B entries, C channels, H x W pixels, L patches of an entry, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...objectives.classification import UNLABELLED
from ...tokenizers.errors import UserError
from ...tokenizers.view import View
from ..data import generator
from . import augment
from .corrupt import Draw, corrupt, draw
from .options import ImageView, Mix
from .patch_masks import draw_mask, limits
from .pixels import Pixels

#: Modality of every view here.
MODALITY = "image"


@dataclass(frozen=True)
class Picture:
    """One sample: `pixels` `(C, H, W)` between 0 and 1, its label (-1 unknown), its index and the epoch.

    `accepted` are all the classes that are right for it, where the data say so (ReaL labels).
    """

    pixels: Tensor
    label: int
    index: int
    epoch: int = 0
    accepted: tuple[int, ...] | None = None


class ViewMaker:
    """Makes one named view of a batch of pictures.

    Args:
        name: of the view; part of what its randomness is drawn from.
        options: what the config asks of it.
        size: (H, W) in pixels, of what the model reads.
        pixels: how pictures are scaled and normalised.
        seed: of the run.
        classes: K; the view carries the target `label` if there are any.
        grid: rows and columns of patches that the model's tokenizer makes of (H, W); for masks alone.

    Raises:
        UserError: the options do not fit the size.
    """

    def __init__(
        self,
        name: str,
        options: ImageView,
        size: tuple[int, int],
        pixels: Pixels,
        seed: int,
        classes: int,
        grid: Callable[[Sequence[int]], tuple[int, int]] | None = None,
    ) -> None:
        self.name, self.options, self.pixels = name, options, pixels
        self.size = size if options.size is None else (options.size, options.size)
        self.seed, self.classes = seed, classes
        self._check()
        if options.mask is not None:
            assert grid is not None
            self.grid = grid(self.size)

    def __call__(self, pictures: Sequence[Picture]) -> View:
        """The view `(n, C, H, W)`, copy-major, with its targets and masks."""
        options, entries = self.options, [picture for _ in range(self.options.copies) for picture in pictures]
        draws = self._draw(pictures)
        images = torch.stack([self._one(p.pixels, d) for p, d in zip(entries, draws, strict=True)])
        targets = self._labels(entries) if self.classes else {}
        if options.warp is not None:
            images = augment.warp(images, options.warp, _stack(draws, "warp"))
        if options.mix is not None:
            images, targets["label"] = self._mix(options.mix, images, targets["label"], draws)
        if options.rotate:
            targets["rotation"] = _stack(draws, "turns")
            images = augment.quarter_turns(images, targets["rotation"])
        clean = self.pixels.normalise(images)
        corrupted, touched = (None, None) if options.corrupt is None else self._corrupt(clean, draws)
        mask = None if options.mask is None else _stack(draws, "mask").flatten()
        hide = options.mask is not None and options.mask.hide
        return View(
            MODALITY,
            clean if corrupted is None else corrupted,
            clean=None if corrupted is None else clean,
            corrupted=touched,
            copies=options.copies,
            masked=None if hide else mask,
            hidden=mask if hide else None,
            targets=targets,
            ids=tuple(picture.index for picture in pictures),
        )

    def _labels(self, entries: Sequence[Picture]) -> dict[str, Tensor]:
        """`label` `(n,)`, and `accepted` `(n, K)` bool where every picture has ReaL labels."""
        targets = {"label": torch.tensor([p.label for p in entries])}
        if all(p.accepted is not None for p in entries):
            targets["accepted"] = torch.zeros(len(entries), self.classes, dtype=torch.bool)
            for row, picture in zip(targets["accepted"], entries, strict=True):
                row[list(picture.accepted or ())] = True
        return targets

    def _one(self, pixels: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """The geometry and the colour of one entry."""
        options = self.options
        if options.crop is None:
            image = self.pixels.fit(pixels, self.size)
        else:
            image = augment.random_crop(pixels, self.size, options.crop, draws["crop"], self.pixels.mode)
        if options.flip and draws["flip"] < options.flip:
            image = image.flip(2)
        if options.rand_augment is not None:
            image = augment.rand_augment(image, options.rand_augment, int(draws["policy"]))
        return (
            image
            if options.colour is None
            else augment.distort_colour(image, options.colour, draws["colour"])
        )

    def _mix(
        self, mix: Mix, images: Tensor, label: Tensor, draws: list[dict[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """Mixed pictures and soft labels `(n, K)`; what has no label stays as it is, with a row of zeros."""
        drawn = _stack(draws, "mix")
        partner = partners(drawn[:, 0], self.options.copies)
        known = label != UNLABELLED
        images, kept = augment.mix(images, images[partner], mix, drawn[:, 1:], known & known[partner])
        hard = one_hot(label.clamp(min=0), self.classes) * known[:, None].float()
        return images, kept[:, None] * hard + (1 - kept[:, None]) * hard[partner]

    def _corrupt(self, clean: Tensor, draws: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        """Corrupted pictures, and which pixels were touched."""
        drawn: list[Draw] = [draw["corrupt"] for draw in draws]
        partner = partners(torch.stack([one.partner for one in drawn]), self.options.copies)
        return corrupt(clean, clean[partner], drawn)

    def _draw(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        """The random numbers of every entry, copy-major; only those that the options need."""
        drawn = []
        for picture in pictures:
            random = generator(self.seed, picture.epoch, picture.index, self.name)
            channels = len(picture.pixels)
            drawn.append([self._draw_one(random, channels) for _ in range(self.options.copies)])
        return [copies[c] for c in range(self.options.copies) for copies in drawn]

    def _draw_one(self, random: torch.Generator, channels: int) -> dict[str, Any]:
        options = self.options
        draws: dict[str, Any] = {}
        if options.crop is not None:
            draws["crop"] = torch.rand(augment.CROP_DRAWS, generator=random)
        if options.flip:
            draws["flip"] = torch.rand((), generator=random)
        if options.colour is not None:
            draws["colour"] = torch.rand(augment.COLOUR_DRAWS, generator=random)
        if options.rand_augment is not None:
            draws["policy"] = torch.randint(2**62, (), generator=random)
        if options.mix is not None:
            draws["mix"] = torch.rand(1 + augment.MIX_DRAWS, generator=random)
        if options.warp is not None:
            draws["warp"] = torch.rand(augment.WARP_DRAWS, generator=random)
        if options.rotate:
            draws["turns"] = torch.randint(4, (), generator=random)
        if options.corrupt is not None:
            draws["corrupt"] = draw(options.corrupt, channels, self.size, random)
        if options.mask is not None:
            draws["mask"] = draw_mask(options.mask, self.grid, random)
        return draws

    def _check(self) -> None:
        height, width = self.size
        mask, mix, corrupt = self.options.mask, self.options.mix, self.options.corrupt
        for what in ("drop", "replace", "side") if corrupt is not None else ():
            low, high = getattr(corrupt, what)
            if not 0 <= low <= high <= 1:
                raise UserError(
                    f"corrupt.{what} of view {self.name!r} must be two shares from 0 to 1, the smaller one "
                    f"first, but is {low} and {high}"
                )
        if mix is not None and not self.classes:
            raise UserError(f"a view with mix needs labels to mix, but the data of {self.name!r} has none")
        if mix is not None and (min(mix.mixup, mix.cutmix) < 0 or max(mix.mixup, mix.cutmix) == 0):
            given = f"{mix.mixup} and {mix.cutmix}"
            raise UserError(f"the mix of view {self.name!r} needs mixup or cutmix above 0, but has {given}")
        if self.options.rotate and height != width:
            raise UserError(
                f"a view with rotate must be square, but {self.name!r} is {height}x{width} pixels"
            )
        if mask is not None and not 0 < limits(mask)[0] <= limits(mask)[1] < 1:
            raise UserError(
                f"the mask ratio of view {self.name!r} must lie between 0 and 1, but is {mask.ratio}"
            )


def partners(draws: Tensor, copies: int) -> Tensor:
    """`(n,)` index of another entry of the same copy for each of `copies * B`, by draws `(n,)` in [0, 1)."""
    samples = len(draws) // copies
    own = torch.arange(len(draws))
    ahead = 1 + (draws * (samples - 1)).long()
    return own - own % samples + (own + ahead) % samples


def _stack(draws: Sequence[dict[str, Any]], name: str) -> Tensor:
    return torch.stack([draw[name] for draw in draws])
