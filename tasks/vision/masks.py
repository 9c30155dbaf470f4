"""Which pixels belong to which object: from a folder, an alpha channel, or the arrays of an `.npz`.

A mask `(H, W)` holds 0 for the ground, `VOID` for pixels that do not count, and any other number for an
object (or a class).

Shapes: H x W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T

from ...tokenizers.errors import UserError
from ..data import Split
from ..files import files_below
from .data import Images
from .read import SUFFIXES, File, opened

#: VOC's label of pixels that do not count (borders, what is hard to tell).
VOID = 255
#: Instead of a folder: the pictures' own transparency.
ALPHA = "alpha"
OPAQUE = 128

#: The mask of the i-th image of a split, or None where it has none.
Masks = Callable[[int], Tensor | None]


def find_masks(where: str, data: Images, split: Split) -> Masks:
    """Masks of a split's images.

    Args:
        where: `alpha`; a folder with a picture for each image, of the same path or of the same name where no
            other has it, but for the suffix; or an `.npz` with `train_mask`, `val_mask`, `test_mask`
            `(m, H, W)` in the order of its images.
        data: set up.
        split: which part.

    Raises:
        UserError: there is nothing there, or what is there does not fit the images.
    """
    images = data.samples(split, plain=True).images
    if where == ALPHA:
        return lambda index: _alpha(images[index])
    path = Path(where).expanduser()
    if path.suffix == ".npz" and path.is_file():
        return _array(path, split, len(images))
    if not path.is_dir():
        raise UserError(f"masks must be 'alpha', a folder or an .npz file, but are {where!r}")
    files = files_below(path, SUFFIXES)
    exact = {file.relative_to(path).with_suffix("").as_posix(): file for file in files}
    names = [Path(name).with_suffix("") for name in data.names(split)]
    of_masks, of_images = Counter(file.stem for file in files), Counter(name.name for name in names)
    beside = {file.stem: file for file in files if of_masks[file.stem] == 1 and of_images[file.stem] <= 1}

    def of(index: int) -> Tensor | None:
        file = exact.get(names[index].as_posix()) or beside.get(names[index].name)
        return None if file is None else read_mask(file)

    return of


def read_mask(path: Path) -> Tensor:
    """A picture as a mask `(H, W)`.

    Palette pictures (VOC's) hold their indices. In grey ones each value above 0 is an object; 255 is void
    there too, unless it is the only one: then white is the object. Of colours each one is an object, black
    the ground.
    """
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":
            return torch.from_numpy(np.array(upright, dtype=np.int64))
        if upright.mode in ("1", "L", "I;16", "I"):
            values = np.array(upright.convert("L") if upright.mode == "1" else upright, dtype=np.int64)
            if not set(np.unique(values).tolist()) <= {0, VOID}:
                return torch.from_numpy(values)
            return torch.from_numpy((values > 0).astype(np.int64))
        colours = np.array(upright.convert("RGB"), dtype=np.int64) @ np.array([1, 256, 65536])
    kinds, number = np.unique(colours, return_inverse=True)
    number = number.reshape(colours.shape) + (kinds[0] != 0)
    return torch.from_numpy(number)


def fit_mask(mask: Tensor, size: tuple[int, int], cover: float = 1.0) -> Tensor:
    """A mask scaled and cut as `Pixels.fit` does its picture, by the nearest pixel; `(H, W)` of `size`."""
    height, width = mask.shape
    scale = max(size[0] / height, size[1] / width) / cover
    scaled = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
    resized = T.resize(mask[None], scaled, interpolation=InterpolationMode.NEAREST_EXACT)
    return T.center_crop(resized, list(size))[0]


def _alpha(image: Tensor | File) -> Tensor | None:
    if isinstance(image, Tensor):
        raise UserError("masks from the alpha channel need image files, but the images are arrays")
    with opened(image) as picture:
        upright = ImageOps.exif_transpose(picture)
        if "A" not in upright.getbands() and "transparency" not in upright.info:
            return None
        opacity = np.array(upright.convert("RGBA").getchannel("A"))
    return torch.from_numpy((opacity >= OPAQUE).astype(np.int64))


def _array(path: Path, split: Split, count: int) -> Masks:
    with np.load(path, allow_pickle=False) as file:
        name = f"{split}_mask"
        if name not in file:
            return lambda index: None
        values = torch.from_numpy(file[name].astype(np.int64))
    if len(values) != count:
        raise UserError(f"{name} in {str(path)!r} must hold {count} masks, but holds {len(values)}")
    return lambda index: values[index]
