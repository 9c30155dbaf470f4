"""Pictures distorted: crops and colours one by one through torchvision, cheap operations a batch at once.

Everything takes its random numbers as arguments, uniform in [0, 1) unless said otherwise, so that they can
be drawn from (seed, epoch, sample, view). Pixels lie in [0, 1].

Shapes: n images, C channels, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T

from .options import Colour, Mix, RandAugment, Warp

#: Random numbers that `random_crop`, `distort_colour`, `warp_matrices` and `mix` take for an entry.
CROP_DRAWS, COLOUR_DRAWS, WARP_DRAWS, MIX_DRAWS = 4, 9, 5, 5


def random_crop(
    image: Tensor,
    size: tuple[int, int],
    area: tuple[float, float],
    draws: Tensor,
    interpolation: InterpolationMode = InterpolationMode.BICUBIC,
) -> Tensor:
    """A crop of a share of the picture's area, with sides in a ratio of 3:4 to 4:3, scaled to `size`.

    As in Szegedy et al. 2015, but a box that would not fit is cut to the picture, so that one draw does.
    """
    height, width = image.shape[-2:]
    share, aspect, down, right = draws.tolist()
    pixels = (area[0] + (area[1] - area[0]) * share) * height * width
    ratio = math.exp(math.log(4 / 3) * (2 * aspect - 1))
    h = min(height, max(1, round(math.sqrt(pixels / ratio))))
    w = min(width, max(1, round(math.sqrt(pixels * ratio))))
    top, left = int(down * (height - h + 1)), int(right * (width - w + 1))
    resized = T.resized_crop(image, top, left, h, w, list(size), interpolation, antialias=True)
    return resized.clamp(0, 1)


def distort_colour(image: Tensor, colour: Colour, draws: Tensor) -> Tensor:
    """Brightness, contrast, saturation, hue, grey, blur and solarization of one `(C, H, W)` picture."""
    jitter, brightness, contrast, saturation, hue, grey, blur, sigma, solarize = draws.tolist()
    rgb = len(image) == 3
    if jitter < colour.probability:
        image = T.adjust_brightness(image, 1 + colour.brightness * (2 * brightness - 1))
        image = T.adjust_contrast(image, 1 + colour.contrast * (2 * contrast - 1))
        if rgb:
            image = T.adjust_saturation(image, 1 + colour.saturation * (2 * saturation - 1))
            image = T.adjust_hue(image, colour.hue * (2 * hue - 1))
    if rgb and grey < colour.grey:
        image = T.rgb_to_grayscale(image, 3)
    if blur < colour.blur:
        deviation = (0.1 + 1.9 * sigma) * image.shape[-1] / 224
        kernel = 2 * max(1, math.ceil(2 * deviation)) + 1
        image = T.gaussian_blur(image, [kernel, kernel], [deviation, deviation])
    return T.solarize(image, 0.5) if solarize < colour.solarize else image


def rand_augment(image: Tensor, options: RandAugment, seed: int) -> Tensor:
    """torchvision's RandAugment of a `(C, H, W)` picture, which draws from torch's generator, seeded here."""
    transform = v2.RandAugment(options.operations, options.strength, interpolation=InterpolationMode.BILINEAR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        distorted: Tensor = transform(image)
    return distorted.clamp(0, 1)


def warp(images: Tensor, options: Warp, draws: Tensor) -> Tensor:
    """Resample `(n, C, H, W)` along a random affine map, each entry its own; `draws` is `(n, WARP_DRAWS)`."""
    matrices = warp_matrices(options, draws, images.shape[-2] / images.shape[-1])
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    mode, outside = options.interpolation, options.outside
    warped = F.grid_sample(images, grid, mode=mode, padding_mode=outside, align_corners=False)
    return warped.clamp(0, 1)  # bicubic overshoots


def warp_matrices(options: Warp, draws: Tensor, aspect: float = 1.0) -> Tensor:
    """`(n, 2, 3)` maps from where a pixel goes to where it comes from, in half-sides.

    Args:
        draws: `(n, WARP_DRAWS)`.
        aspect: height over width, so that a rotation stays one.
    """
    spread = 2 * draws - 1
    angle, shear = (
        spread[:, i] * math.radians(limit) for i, limit in ((0, options.degrees), (1, options.shear))
    )
    low, high = options.zoom
    shrink = 1 / (low + (high - low) * draws[:, 2])
    cos, sin, slant = angle.cos() * shrink, angle.sin() * shrink, shear.tan()
    rows = [
        torch.stack([cos, (cos * slant - sin) * aspect, 2 * options.shift * spread[:, 3]], dim=1),
        torch.stack([sin / aspect, sin * slant + cos, 2 * options.shift * spread[:, 4]], dim=1),
    ]
    return torch.stack(rows, dim=1)


def quarter_turns(images: Tensor, turns: Tensor) -> Tensor:
    """Turn each of `(n, C, H, H)` by `turns` `(n,)` times 90 degrees, against the clock."""
    turned = torch.empty_like(images)
    for turn in range(4):
        which = turns == turn
        turned[which] = torch.rot90(images[which], turn, (2, 3))
    return turned


def mix(
    images: Tensor, partners: Tensor, options: Mix, draws: Tensor, allowed: Tensor
) -> tuple[Tensor, Tensor]:
    """Each of `(n, C, H, W)` mixed with its partner, and the share of itself that it kept, `(n,)`.

    Args:
        partners: `(n, C, H, W)`.
        draws: `(n, MIX_DRAWS)`.
        allowed: `(n,)` bool; the others stay as they are.
    """
    from scipy.special import betaincinv

    chosen, kind, level, down, right = draws.unbind(1)
    odds = 0.0 if not options.cutmix else 0.5 if options.mixup else 1.0
    cut = kind < odds
    alpha = torch.where(cut, options.cutmix, options.mixup).double()
    kept = torch.from_numpy(betaincinv(alpha.numpy(), alpha.numpy(), level.double().numpy())).float()
    sides, ratio = images.shape[-2:], (1 - kept).sqrt()
    extents = [(side * ratio).round() for side in sides]
    centres = (down * sides[0], right * sides[1])
    starts = [(centre - extent / 2).round() for centre, extent in zip(centres, extents, strict=True)]
    box = boxes(starts, extents, sides)  # cut to the picture, so that its area is counted again
    kept = torch.where(cut, 1 - box.float().mean((1, 2)), kept)
    weight = torch.where(cut[:, None, None], (~box).float(), kept[:, None, None])
    touched = (chosen < options.share) & allowed
    weight = torch.where(touched[:, None, None], weight, 1.0)[:, None]
    return weight * images + (1 - weight) * partners, torch.where(touched, kept, 1.0)


def boxes(starts: Sequence[Tensor], extents: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """`(n, H, W)` bool, True inside one box an entry; starts and extents `(n,)` of rows, then of columns."""
    rows, columns = (
        (torch.arange(side) >= start[:, None]) & (torch.arange(side) < (start + extent)[:, None])
        for start, extent, side in zip(starts, extents, size, strict=True)
    )
    return rows[:, :, None] & columns[:, None, :]
