"""Hugging Face's vision transformers: ViT, ViTMAE, Dinov2 and Dinov2WithRegisters.

Both generations of names are read: those of files, and those that modules have had since transformers 5.
Files are written with the former, which every version reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from ...tokenizers.errors import UserError
from ...tokenizers.image import Resampling
from ..vision.pixels import Pixels
from .activations import check_gelu
from .family import Carried, Family, Source
from .image import IMAGENET, ImageNames, ImageTraits, read_image
from .image_write import write_image
from .names import State, Table

NAMES = ImageNames(
    patch="embeddings.patch_embeddings.projection",
    positions="embeddings.position_embeddings",
    prefix={"class": "embeddings.cls_token", "register": "embeddings.register_tokens"},
    mask="embeddings.mask_token",
    head="classifier",
    aside=("pooler", "decoder"),
)
#: PIL's numbers of interpolations.
BILINEAR = 2

ATTENTION: Table = {
    tuple(f"encoder.layer.*.attention.attention.{part}.*" for part in ("query", "key", "value")): (
        "blocks.*.attn.qkv.*"
    ),
    "encoder.layer.*.attention.output.dense.*": "blocks.*.attn.proj.*",
    "layernorm.*": "norm.*",
}
VIT: Table = {
    **ATTENTION,
    "encoder.layer.*.layernorm_before.*": "blocks.*.norm1.*",
    "encoder.layer.*.layernorm_after.*": "blocks.*.norm2.*",
    "encoder.layer.*.intermediate.dense.*": "blocks.*.mlp.fc1.*",
    "encoder.layer.*.output.dense.*": "blocks.*.mlp.fc2.*",
}
MLP: Table = {
    "encoder.layer.*.mlp.fc1.*": "blocks.*.mlp.fc1.*",
    "encoder.layer.*.mlp.fc2.*": "blocks.*.mlp.fc2.*",
}
SWIGLU: Table = {
    "encoder.layer.*.mlp.weights_in.*": "blocks.*.mlp.fc1.*",
    "encoder.layer.*.mlp.weights_out.*": "blocks.*.mlp.fc2.*",
}
DINOV2: Table = {
    **ATTENTION,
    "encoder.layer.*.norm1.*": "blocks.*.norm1.*",
    "encoder.layer.*.layer_scale1.lambda1": "blocks.*.ls1.gamma",
    "encoder.layer.*.norm2.*": "blocks.*.norm2.*",
    "encoder.layer.*.layer_scale2.lambda1": "blocks.*.ls2.gamma",
}
#: Names since transformers 5, after `encoder.layer` was put for ViT's `layers`.
MODULES: Table = {
    tuple(f"encoder.layer.*.attention.{part}_proj.*" for part in "qkv"): "blocks.*.attn.qkv.*",
    "encoder.layer.*.attention.o_proj.*": "blocks.*.attn.proj.*",
    tuple(f"encoder.layer.*.mlp.{part}_proj.*" for part in ("gate", "up")): "blocks.*.mlp.fc1.*",
    "encoder.layer.*.mlp.down_proj.*": "blocks.*.mlp.fc2.*",
}
ALL: Table = {**VIT, **DINOV2, **MLP, **SWIGLU, **MODULES}


def read(source: Source) -> Carried:
    """Hugging Face's weights as ours. Raises UserError for another activation than ours."""
    if not source.config.get("use_swiglu_ffn"):  # which has its own
        check_gelu(source.config, "hidden_act")
    state = {_layered(name): tensor for name, tensor in source.state.items()}
    return read_image(state, NAMES, ALL, _traits(source))


def _layered(name: str) -> str:
    """ViT's modules count `layers` where its files count `encoder.layer`."""
    before, found, after = name.partition("layers.")
    return f"{before}encoder.layer.{after}" if found and before in ("", "vit.") else name


def _traits(source: Source) -> ImageTraits:
    config = source.config
    kind = config.get("model_type", "")
    side = config.get("image_size")
    labels = config.get("id2label") or {}
    return ImageTraits(
        heads=config.get("heads") or config.get("num_attention_heads"),
        size=(side, side) if isinstance(side, int) else side,
        reads=_size(source.preprocessor.get("crop_size") or source.preprocessor.get("size")),
        eps=config.get("layer_norm_eps", 1e-6 if kind.startswith("dinov2") else 1e-12),
        pixels=_pixels(source.preprocessor, kind),
        resampling=Resampling(antialias=kind == "dinov2_with_registers"),
        classes=[labels[key] for key in sorted(labels, key=int)],
    )


def _pixels(given: Mapping[str, Any], kind: str) -> Pixels:
    """ViT's own checkpoints were trained with a mean and deviation of .5, all others with ImageNet's."""
    if "image_mean" not in given:
        return Pixels([0.5] * 3, [0.5] * 3) if kind == "vit" else IMAGENET
    interpolation: Literal["bicubic", "bilinear"] = (
        "bilinear" if given.get("resample") == BILINEAR else "bicubic"
    )
    crop, scaled = _size(given.get("crop_size")), given.get("size")
    edge = scaled.get("shortest_edge") if isinstance(scaled, Mapping) else None
    cover = min(crop) / edge if crop and edge else 1.0
    return Pixels(list(given["image_mean"]), list(given["image_std"]), interpolation, cover)


def _size(given: Any) -> tuple[int, int] | None:
    """(H, W) of the ways in which a preprocessor writes a size."""
    if isinstance(given, int):
        return given, given
    if isinstance(given, Mapping):
        edge = given.get("shortest_edge")
        found = (given.get("height", edge), given.get("width", edge))
        return (found[0], found[1]) if found[0] and found[1] else None
    return None


def write(ours: State, model: nn.Module) -> State:
    """Names of files: Dinov2's for a model with LayerScale, ViT's for others.

    Raises:
        UserError: a model without a class token, which Hugging Face has none of.
    """
    prefix = model.tokenizers["image"].prefix  # type: ignore[index, union-attr]
    if prefix[:1] != ("class",):
        raise UserError(
            f"Hugging Face's format expects a class token first, but the prefix is {list(prefix)}"
        )
    block = model.encoder.blocks[0]  # type: ignore[union-attr, index]
    swiglu = block.mlp.fc1.out_features == 2 * block.mlp.fc2.in_features  # type: ignore[union-attr]
    scaled = not isinstance(block.ls1, nn.Identity)  # type: ignore[union-attr]
    table = {**DINOV2, **(SWIGLU if swiglu else MLP)} if scaled else VIT
    state = write_image(ours, model, NAMES, table)
    if not scaled:
        del state[NAMES.mask]  # type: ignore[arg-type]
    return state


def knows(source: Source) -> bool:
    """Whether the patches are projected under Hugging Face's name."""
    return any(f".{name}".endswith(f".{NAMES.patch}.weight") for name in source.state)


FAMILIES = (Family("hf-image", knows, read, write),)
