"""timm's vision transformers, and those with the same names: DeiT, DINO and MAE as Facebook released them."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ...tokenizers.image import Resampling
from ..vision.pixels import Pixels
from .family import Carried, Family, Source
from .image import IMAGENET, ImageNames, ImageTraits, read_image
from .image_write import write_image
from .names import State, Table

NAMES = ImageNames(
    patch="patch_embed.proj",
    positions="pos_embed",
    prefix={"class": "cls_token", "distillation": "dist_token", "register": "reg_token"},
    aside=("head", "fc_norm", "decoder", "mask_token"),
)
PARTS = (
    "norm1.*",
    "attn.qkv.*",
    "attn.proj.*",
    "ls1.gamma",
    "norm2.*",
    "mlp.fc1.*",
    "mlp.fc2.*",
    "ls2.gamma",
)
TABLE: Table = {
    **{f"blocks.*.{part}": f"blocks.*.{part}" for part in PARTS},
    ("blocks.*.mlp.fc1_g.*", "blocks.*.mlp.fc1_x.*"): "blocks.*.mlp.fc1.*",
    "norm.*": "norm.*",
}
#: DINO's release resamples positions without antialiasing, by a scale taken from the grid plus a tenth.
DINO = Resampling(antialias=False, offset=0.1)


def traits(source: Source) -> ImageTraits:
    """From timm's `config.json`, or from what a model object says of itself."""
    arguments, given = source.config.get("model_args", {}), source.config.get("pretrained_cfg", {})
    size = arguments.get("img_size") or given.get("input_size", (None, None, None))[1:]
    size = (size, size) if isinstance(size, int) else size
    return ImageTraits(
        heads=source.config.get("heads") or arguments.get("num_heads"),
        size=size if all(size) else None,
        eps=arguments.get("norm_eps", 1e-6),
        pixels=_pixels(given),
    )


def _pixels(given: dict[str, Any]) -> Pixels:
    if "mean" not in given:
        return IMAGENET
    bilinear = given.get("interpolation") == "bilinear"
    mean, std = list(given["mean"]), list(given["std"])
    return Pixels(mean, std, "bilinear" if bilinear else "bicubic", given.get("crop_pct") or 1.0)


def read(source: Source) -> Carried:
    """timm's weights as ours."""
    return read_image(source.state, NAMES, TABLE, traits(source))


def read_released(source: Source, resampling: Resampling) -> Carried:
    """Weights with timm's names that Facebook released."""
    return read_image(
        source.state, NAMES, TABLE, ImageTraits(source.config.get("heads"), resampling=resampling)
    )


def write(ours: State, model: nn.Module) -> State:
    """timm's names; a model with registers is one whose prefix has no positions (`no_embed_class`)."""
    registers = any(name.startswith("register") for name in model.tokenizers["image"].prefix)  # type: ignore[index, union-attr]
    return write_image(ours, model, NAMES, TABLE, placed=not registers)


def write_released(ours: State, model: nn.Module) -> State:
    """The same names, with a position for the class token."""
    return write_image(ours, model, NAMES, TABLE)


def knows(source: Source) -> bool:
    """Whether the patches are projected under timm's name."""
    return any(f".{name}".endswith(f".{NAMES.patch}.weight") for name in source.state)


FAMILIES = (
    Family(
        "dino",
        lambda source: knows(source) and source.config.get("part") == "teacher",
        partial(read_released, resampling=DINO),
        write_released,
    ),
    Family(
        "mae",
        lambda source: knows(source) and any("decoder_embed" in name for name in source.state),
        partial(read_released, resampling=Resampling(antialias=False)),
        write_released,
    ),
    Family("timm", knows, read, write),
)
