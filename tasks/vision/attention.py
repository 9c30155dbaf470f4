"""Where the class token looks, and what the patches hold.

Shapes: n images, A heads, R x Q patches (rows, columns), D width, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...tokenizers.errors import UserError
from ...tokenizers.image import ImagePatches
from ...tokenizers.tokens import concat
from ...tokenizers.view import View
from ..model import Model
from .views import MODALITY

#: Share of the attention that a mask keeps (Caron et al. 2021, section 4.2.2).
SHARE = 0.6


@torch.no_grad()
def attention(model: Model, view: View, layer: int = -1) -> Tensor:
    """Attention from the class token to the patches in one block, `(n, A, R, Q)`; each map sums to one.

    Raises:
        UserError: the model has no class token, or does not read images.
    """
    tokenizer = image_tokenizer(model)
    if "class" not in tokenizer.prefix:
        raise UserError(f"attention maps need a class token, but the prefix is {list(tokenizer.prefix)}")
    _, encoder = model.branch(model.evaluate_with)
    maps = torch.stack(encoder.attention_maps(concat([tokenizer(view)]), layer))  # type: ignore[operator]
    looks = maps[:, :, tokenizer.prefix.index("class"), len(tokenizer.prefix) :]
    return (looks / looks.sum(-1, keepdim=True)).unflatten(-1, grid_of(tokenizer, view))


@torch.no_grad()
def patch_features(model: Model, view: View, layer: int = -1) -> Tensor:
    """Features of every patch, `(n, R, Q, D)`: of a block, or of the end after the final norm."""
    tokenizer = image_tokenizer(model)
    _, encoder = model.branch(model.evaluate_with)
    content = encoder(concat([tokenizer(view)]), (layer,)).layers[layer][0].content()
    return content.values.view(len(view), *grid_of(tokenizer, view), -1)


def image_tokenizer(model: Model) -> ImagePatches:
    """The evaluated branch's tokenizer of images. Raises UserError where there is none."""
    tokenizers, _ = model.branch(model.evaluate_with)
    if MODALITY not in tokenizers:
        raise UserError(f"expected a run on images, but its tokenizers are {sorted(tokenizers)}")
    tokenizer = tokenizers[MODALITY]
    assert isinstance(tokenizer, ImagePatches)
    return tokenizer


def grid_of(tokenizer: ImagePatches, view: View) -> tuple[int, int]:
    """(R, Q) of a view's images."""
    assert isinstance(view.data, Tensor)
    height, width = view.data.shape[-2:]
    return height // tokenizer.patch[0], width // tokenizer.patch[1]


def mass_mask(looks: Tensor, share: float = SHARE) -> Tensor:
    """The fewest patches of each map that hold `share` of its attention, bool of the same shape.

    DINO's rule: patches are taken from the strongest on, until those taken hold the share.

    Args:
        looks: `(..., R, Q)`, not negative.
    """
    flat = looks.flatten(-2)
    strongest, order = flat.sort(dim=-1, descending=True)
    before = strongest.cumsum(-1) - strongest  # what the stronger ones hold
    keep = before < share * flat.sum(-1, keepdim=True)
    return torch.zeros_like(keep).scatter(-1, order, keep).view_as(looks)


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """`(n, A, R, Q)` of any type to `(n, A, H, W)`, each patch repeated over its pixels."""
    return F.interpolate(maps.float(), size, mode="nearest").to(maps.dtype)


def principal_colours(features: Tensor) -> Tensor:
    """The first three principal components of patch features as red, green and blue.

    Components are those of all the images together, so that a colour means the same in each. Their sign is
    free; here the component's largest loading is positive. Each is stretched from its 2nd to its 98th
    percentile.

    Args:
        features: `(n, R, Q, D)`.

    Returns:
        `(n, R, Q, 3)` between 0 and 1.
    """
    flat = features.flatten(0, 2).double()
    flat = flat - flat.mean(0)
    directions = torch.linalg.svd(flat, full_matrices=False).Vh[:3]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    scores = flat @ (directions * largest.sign()).T
    low, high = (torch.quantile(scores, q, dim=0) for q in (0.02, 0.98))
    scores = ((scores - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    scores = F.pad(scores, (0, 3 - scores.shape[1]))  # fewer than three patches or features
    return scores.view(*features.shape[:3], 3).float()
