"""What a config may ask of a view of images: plain data, all of it optional."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass
class Warp:
    """One smooth resampling of the picture: each sample draws its own, evenly from these ranges.

    Attributes:
        degrees: rotation, to either side.
        shift: along each axis, as a share of the side.
        zoom: magnification, from and to.
        shear: in degrees, to either side.
        outside: what lies beyond the border: black (`zeros`), the border's pixels or the mirrored picture.
        interpolation: between pixels; `bicubic` keeps small pictures sharp, which `bilinear` blurs.
    """

    degrees: float = 0.0
    shift: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    outside: Literal["zeros", "border", "reflection"] = "zeros"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass
class Colour:
    """Photometric distortion (He et al. 2020; Grill et al. 2020).

    Attributes:
        brightness, contrast, saturation: factors are drawn from 1 - x to 1 + x.
        hue: turn of the colour circle, to either side, at most .5; needs 3 channels.
        probability: share of entries that these four touch.
        grey: share of entries that lose their colour; needs 3 channels.
        blur: share of entries blurred by a Gaussian of .1 to 2 pixels at 224 pixels a side.
        solarize: share of entries whose bright half is inverted.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    probability: float = 0.8
    grey: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0


@dataclass
class RandAugment:
    """Operations drawn from torchvision's fourteen, one after another (Cubuk et al. 2020).

    Attributes:
        operations: how many each entry goes through.
        strength: of every operation, 0 to 30.
    """

    operations: int = 2
    strength: int = 9


@dataclass
class Mix:
    """Pairs of pictures made one; the target `label` becomes soft, `(n, K)`: the share of each.

    The partner is another entry of the batch, drawn like everything else. Where both kinds are given, each
    mixed entry is of either with even odds.

    Attributes:
        mixup: a of Beta(a, a), from which the weight of a picture is drawn (Zhang et al. 2018); 0 for none.
        cutmix: a of Beta(a, a), for the area that stays when a box comes from the partner (Yun et al. 2019);
            0 for none.
        share: share of the entries that are mixed.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    share: float = 1.0


@dataclass
class Corrupt:
    """What only the student sees: targets and the teacher read the clean picture (Atito et al. 2021, SiT).

    Shares given as a pair are drawn anew for each entry, evenly between the two.

    Attributes:
        grey: share of entries in which one block loses its colour; needs 3 channels.
        blur: share of entries in which one block is blurred by a Gaussian of .1 to 5.1 pixels.
        drop: share of the pixels that blocks of `fill` cover, from and to.
        fill: what dropped pixels become, in normalised units: Gaussian noise of deviation 1, or zeros.
        replace: share of the pixels that blocks of another picture of the batch cover, from and to.
        swap: share of entries that are corrupted by replacement alone, while the others are not replaced;
            0 does everything to all.
        side: sides of a block as a share of the picture's, from and to.
        align: pixels that all sides and places of blocks are multiples of.
    """

    grey: float = 0.0
    blur: float = 0.0
    drop: tuple[float, float] = (0.0, 0.0)
    fill: Literal["noise", "zeros"] = "noise"
    replace: tuple[float, float] = (0.0, 0.0)
    swap: float = 0.0
    side: tuple[float, float] = (0.05, 0.25)
    align: int = 1


@dataclass
class Mask:
    """Patches that the student does not see.

    Attributes:
        ratio: share of an entry's patches; of a range, each entry draws its own (iBOT: .1 to .5).
        share: share of the entries in which anything is masked.
        blocks: in rectangular blocks (BEiT, iBOT) instead of one by one.
        hide: drop them before the encoder (MAE) instead of replacing them by the mask token.
    """

    ratio: float | tuple[float, float] = 0.5
    share: float = 1.0
    blocks: bool = False
    hide: bool = False


@dataclass
class ImageView:
    """One named view: geometry, colour, mixing, then a quarter turn, corruption and a mask.

    Attributes:
        copies: crops of each sample.
        size: pixels a side; None takes the data's.
        crop: share of the picture's area that a random crop shows, from and to; None shows it whole.
        flip: share of entries mirrored left to right.
        warp: rotation, shift, zoom and shear.
        colour: photometric distortion.
        rand_augment: operations at random, before `colour`.
        mix: mixup and cutmix, with soft labels.
        rotate: turn each entry by 0, 90, 180 or 270 degrees, and give the turn as the target `rotation`.
        corrupt: blocks spoilt for the student alone.
        mask: patches masked or hidden from the student.
    """

    copies: int = 1
    size: int | None = None
    crop: tuple[float, float] | None = None
    flip: float = 0.0
    warp: Warp | None = None
    colour: Colour | None = None
    rand_augment: RandAugment | None = None
    mix: Mix | None = None
    rotate: bool = False
    corrupt: Corrupt | None = None
    mask: Mask | None = None

    def bare(self) -> ImageView:
        """The view without its augmentation; turns, corruption and masks stay, which are tasks."""
        return replace(self, crop=None, flip=0.0, warp=None, colour=None, rand_augment=None, mix=None)
