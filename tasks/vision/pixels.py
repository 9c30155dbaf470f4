"""How a picture becomes what a model reads; kept with the model's facts, so that later data are read so too.

Shapes: n images, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T

from ...tokenizers.errors import UserError


@dataclass
class Pixels:
    """Scaling to the model's size and normalisation of the colours.

    Attributes:
        mean: subtracted from values between 0 and 1: one number, or one a channel.
        std: what the difference is divided by: one number, or one a channel.
        interpolation: by which pictures are scaled, antialiased.
        cover: share of the scaled picture's shorter side that is kept, in its middle (timm's crop_pct).
    """

    mean: float | list[float] = 0.5
    std: float | list[float] = 0.5
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    cover: float = 1.0

    def check(self, channels: int) -> None:
        """Raise UserError for means and deviations that are not one, or one a channel."""
        for name, given in (("mean", self.mean), ("std", self.std)):
            if isinstance(given, list) and len(given) not in (1, channels):
                raise UserError(
                    f"data.pixels.{name} must be one number or {channels}, one a channel, but is {given}"
                )

    def normalise(self, images: Tensor) -> Tensor:
        """`(..., C, H, W)` between 0 and 1 -> what the model reads."""
        return (images - _columns(self.mean)) / _columns(self.std)

    def restore(self, images: Tensor) -> Tensor:
        """Undo `normalise`, within 0 and 1."""
        return (images * _columns(self.std) + _columns(self.mean)).clamp(0, 1)

    def fit(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Scale `(C, H, W)` until `cover` of it is as large as `size` (height, width), and cut that out."""
        height, width = image.shape[-2:]
        if (height, width) == size and self.cover == 1:
            return image
        scale = max(size[0] / height, size[1] / width) / self.cover
        scaled = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
        resized = T.resize(image, scaled, interpolation=self.mode, antialias=True)
        return T.center_crop(resized, list(size)).clamp(0, 1)

    @property
    def mode(self) -> InterpolationMode:
        """The interpolation, as torchvision calls it."""
        return InterpolationMode(self.interpolation)


def _columns(values: float | list[float]) -> Tensor:
    """One number, or one a channel, to be broadcast over `(..., C, H, W)`."""
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
