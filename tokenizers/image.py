"""Images cut into patches (Dosovitskiy et al. 2021).

Shapes: n images, C channels, H x W pixels, R x Q patches (rows, columns), P = C * patch height *
patch width, O pixels of overlap, S = n * R * Q packed content tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError
from .positions import sincos
from .tokenizer import Embedded, Tokenizer
from .view import View

#: Deviation of learnt positions at the start: as strong as the content, which starts near 1. With the
#: customary .02 an encoder of small patches is blind to where they lie for tens of epochs: 25 epochs of
#: DINO on digits give a kNN of .79 with weak positions, .92 with a deviation of .5 and .95 with this one.
POSITION_STD = 1.0


@dataclass
class Resampling:
    """How learnt positions are resampled, bicubically, for images of another size.

    Attributes:
        antialias: True in timm and in DINOv2 with registers; False in DINO, DINOv2 and Hugging Face's ViT.
        offset: added to the new rows and columns before the scale is taken: .1 in DINO and DINOv2.
    """

    antialias: bool = True
    offset: float = 0.0


@dataclass(frozen=True)
class Patches(Embedded):
    """Embedded patches of images of one size, which know their grid (rows, columns)."""

    grid: tuple[int, int] = (0, 0)


class ImagePatches(Tokenizer):
    """Patches, one linear projection, and a position for each patch.

    A class token with a position of its own (ViT, DINO) is the sum of the two, so published
    weights are carried over by adding that position to the prefix token; registers have none.

    Args:
        patch: height and width of a patch in pixels, or one number for both.
        prefix: names of learnt tokens before the patches: `class`, `register0`, `rotation` ...
        positions: `learned`, resampled for images of another size than the data's; `sincos`,
            fixed, of any size (He et al. 2022, MAE); `none` where attention is rotary.
        overlap: O, pixels beyond each side of a patch that its projection reads too (Wang et al. 2022,
            PVTv2); beyond the picture its border is repeated. Patches that are masked or hidden need 0,
            for their neighbours would see into them.
        resampling: of learnt positions, for images of another size.
    """

    def __init__(
        self,
        patch: int | tuple[int, int],
        prefix: Sequence[str] = ("class",),
        positions: Literal["learned", "sincos", "none"] = "learned",
        overlap: int = 0,
        resampling: Resampling | None = None,
    ) -> None:
        super().__init__(prefix)
        self.overlap = overlap
        self.patch = (patch, patch) if isinstance(patch, int) else (patch[0], patch[1])
        self.positions, self.resampling = positions, resampling or Resampling()

    def setup(self, data: Mapping[str, Any]) -> None:
        """Make the projection for the data's `channels`, and positions for its `size` (H, W) in pixels."""
        self.grid = self.grid_of(data["size"])
        self.source_dim = data["channels"] * self.patch[0] * self.patch[1]
        height, width = (side + 2 * self.overlap for side in self.patch)
        read = data["channels"] * height * width
        self.proj = nn.Linear(read, self.width)
        nn.init.trunc_normal_(self.proj.weight, std=read**-0.5)
        nn.init.zeros_(self.proj.bias)
        if self.positions == "learned":
            self.position_embedding = nn.Parameter(torch.empty(self.grid[0] * self.grid[1], self.width))
            nn.init.trunc_normal_(self.position_embedding, std=POSITION_STD)

    def embed(self, view: View) -> Patches:
        """Project the patches of `(n, C, H, W)`; `source` is the clean patch `(S, P)`, channels first.

        `corrupted` is laid out like it.

        Raises:
            UserError: patches are masked or hidden, but their neighbours overlap them.
        """
        assert isinstance(view.data, Tensor)
        if self.overlap and (view.masked is not None or view.hidden is not None):
            raise UserError(
                f"views that mask or hide patches need an overlap of 0 in ImagePatches, not {self.overlap}"
            )
        n, grid = len(view.data), self.grid_of(view.data.shape[-2:])
        patches = self.patches_of(view.data)
        clean = view.data if view.clean is None else view.clean
        assert isinstance(clean, Tensor)
        return Patches(
            values=self.proj(self._windows(view.data) if self.overlap else patches),
            lengths=(grid[0] * grid[1],) * n,
            position=_positions(n, *grid, patches.device),
            sample=tuple(range(n)),
            channel=(0,) * n,
            source=patches if view.clean is None else self.patches_of(clean),
            corrupted=None
            if view.corrupted is None
            else self.patches_of(view.corrupted.expand_as(view.data)),
            grid=grid,
        )

    def place(self, embedded: Embedded) -> Tensor:
        """Add the position of each patch."""
        assert isinstance(embedded, Patches)
        if self.positions == "none":
            return embedded.values
        grid = self.position_grid(*embedded.grid).to(embedded.values)
        return (embedded.values.view(-1, *grid.shape) + grid).flatten(0, 1)

    def position_grid(self, rows: int, columns: int) -> Tensor:
        """Positions `(R * Q, D)` of a grid; learnt ones are resampled if it is not the data's."""
        if self.positions == "sincos":
            return sincos(_positions(1, rows, columns, self.proj.weight.device), self.width)
        return self._resample(self.position_embedding, self.grid, (rows, columns))

    def adapt(self, weights: Mapping[str, Tensor], data: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learnt positions for images of `data`'s size, resampled for those of this tokenizer's."""
        adapted = dict(weights)
        learned = adapted.get("position_embedding")
        if learned is not None and self.positions == "learned":
            rows, columns = data["size"][0] // self.patch[0], data["size"][1] // self.patch[1]
            if rows * columns == len(learned):  # the patches are of one size
                adapted["position_embedding"] = self._resample(learned, (rows, columns), self.grid)
        return adapted

    def _resample(self, learned: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Positions `(N, D)` of one grid (rows, columns) -> those of another."""
        if new == old:
            return learned
        how, scale = self.resampling, None
        if how.offset:
            scale = [(to + how.offset) / side for to, side in zip(new, old, strict=True)]
        size = new if scale is None else None
        grid = learned.T.reshape(1, -1, *old)
        resampled = F.interpolate(grid, size, scale, mode="bicubic", antialias=how.antialias)
        return resampled.flatten(2)[0].T

    def num_tokens(self, shape: Sequence[int]) -> int:
        """Patches in an image of `shape` (..., H, W)."""
        rows, columns = self.grid_of(shape[-2:])
        return rows * columns

    def grid_of(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of patches in an image of `size` (H, W) pixels.

        Raises:
            UserError: the patch does not divide it.
        """
        if size[0] % self.patch[0] or size[1] % self.patch[1] or min(size) < 1:
            raise UserError(
                f"the image size must be a multiple of the patch ({self.patch[0]}x{self.patch[1]} pixels), "
                f"but is {size[0]}x{size[1]}"
            )
        return size[0] // self.patch[0], size[1] // self.patch[1]

    def patches_of(self, images: Tensor) -> Tensor:
        """`(n, C, H, W)` -> `(n * R * Q, P)`, rows of patches from the top left."""
        n, channels, height, width = images.shape
        ph, pw = self.patch
        cut = images.reshape(n, channels, height // ph, ph, width // pw, pw)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels * ph * pw)

    def images_of(self, patches: Tensor, shape: Sequence[int]) -> Tensor:
        """Undo `patches_of` for images of `shape` (n, C, H, W)."""
        n, channels, height, width = shape
        ph, pw = self.patch
        cut = patches.reshape(n, height // ph, width // pw, channels, ph, pw)
        return cut.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, height, width)

    def _windows(self, images: Tensor) -> Tensor:
        """`(n, C, H, W)` -> `(n * R * Q, C * (patch height + 2 O) * (patch width + 2 O))`."""
        padded = F.pad(images, (self.overlap,) * 4, mode="replicate")
        size = (self.patch[0] + 2 * self.overlap, self.patch[1] + 2 * self.overlap)
        return F.unfold(padded, size, stride=self.patch).transpose(1, 2).flatten(0, 1)


@lru_cache(maxsize=64)
def _positions(n: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """`(n * R * Q, 3)`: time 0, row, column of every patch.

    Made outside inference mode: autograd could not save what a later training step finds here.
    """
    with torch.inference_mode(False):
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        one = torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1)
        return one.repeat(n, 1).to(device)
