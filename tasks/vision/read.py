"""One image file, of any kind, as a tensor.

Shapes: C channels, H x W pixels.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))

#: What PIL raises for a file that is no image, cut short, too large, or broken inside.
UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)

ORIENTATION = 0x0112
"""The EXIF tag of how a picture was held; from 5 on, on its side."""

DEEP = {"I": 65535.0, "I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I;16N": 65535.0, "F": 1.0}
"""Modes of more than 8 bits a pixel, and what counts as white in them."""


@dataclass(frozen=True)
class Packed:
    """An image file inside an uncompressed archive: `size` bytes from `offset` on."""

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive.name}/{self.name}"


#: A file of its own, or one in an archive.
File: TypeAlias = Path | Packed


def opened(file: File) -> Image.Image:
    """The image, of which only the header has been read."""
    if isinstance(file, Path):
        return Image.open(file)
    with file.archive.open("rb") as archive:
        archive.seek(file.offset)
        return Image.open(io.BytesIO(archive.read(file.size)))


def read_image(path: File, channels: int) -> Tensor:
    """Pixels `(C, H, W)` between 0 and 1, upright as EXIF says, with 1 (grey) or 3 (RGB) channels.

    Palettes and CMYK become RGB; 16-bit grey keeps its depth; what is transparent lies on black.

    Raises:
        OSError, ValueError: the file is no image, or is broken (see `UNREADABLE`).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata do not make a picture unreadable
        with opened(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return pixels(upright, channels)


def pixels(image: Image.Image, channels: int) -> Tensor:
    """`(C, H, W)` between 0 and 1 of a PIL image of any mode."""
    if image.mode in DEEP:
        grey = torch.from_numpy(np.asarray(image, dtype=np.float32) / DEEP[image.mode]).clamp(0, 1)
        return grey.expand(channels, -1, -1).clone()
    if image.mode in ("PA", "LA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over)
    values = np.array(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    return torch.from_numpy(values).reshape(*values.shape[:2], channels).permute(2, 0, 1).contiguous()


def is_grey(path: File) -> bool:
    """Whether a file's header says that it has no colour."""
    with opened(path) as image:
        return image.mode in DEEP or image.mode in ("1", "L", "LA", "La")


def size_of(path: File) -> tuple[int, int]:
    """(H, W) in pixels, upright."""
    with opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) >= 5
    return (width, height) if turned else (height, width)


def check(path: File, thorough: bool) -> str | None:
    """What is wrong with an image file, or None: decoded whole if `thorough`, else its header alone."""
    try:
        if thorough:
            read_image(path, 1)
        else:
            with opened(path):
                pass
    except UNREADABLE as error:
        return str(error).split(": '")[0] or type(error).__name__
    return None
