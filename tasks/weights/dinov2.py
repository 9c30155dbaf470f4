"""DINOv2, with and without registers, under the names of Facebook's release.

Its training keeps blocks in chunks, so that block 7 may be called `blocks.2.7`. Without registers, positions
are resampled as in DINO; the models with registers antialias and need no offset.
"""

from __future__ import annotations

import re

from torch import nn

from ...tokenizers.image import Resampling
from .family import Carried, Family, Source
from .image import ImageNames, ImageTraits, read_image
from .image_write import write_image
from .names import State, Table
from .timm import DINO
from .timm import TABLE as TIMM

NAMES = ImageNames(
    patch="patch_embed.proj",
    positions="pos_embed",
    prefix={"class": "cls_token", "register": "register_tokens"},
    mask="mask_token",
    aside=("head", "dino_head", "ibot_head"),
)
CHUNKED = re.compile(r"(.*\bblocks\.)\d+\.(\d+\..*)")
#: Positions of the released weights: a class token and 37 x 37 patches of 14. They are judged at 224 pixels.
RELEASED = 1 + 37**2
#: Gate and value of SwiGLU are packed in `w12`, in our order.
SWIGLU: Table = {"blocks.*.mlp.w12.*": "blocks.*.mlp.fc1.*", "blocks.*.mlp.w3.*": "blocks.*.mlp.fc2.*"}


def read(source: Source) -> Carried:
    """Facebook's weights as ours."""
    state = {unchunked(name): tensor for name, tensor in source.state.items()}
    registers = any(name.endswith("register_tokens") for name in state)
    positions = max(
        (tensor.shape[1] for name, tensor in state.items() if name.endswith("pos_embed")), default=0
    )
    traits = ImageTraits(
        source.config.get("heads"),
        reads=(224, 224) if positions == RELEASED else None,
        resampling=Resampling() if registers else DINO,
    )
    return read_image(state, NAMES, {**SWIGLU, **TIMM}, traits)


def unchunked(name: str) -> str:
    """`blocks.2.7.norm1.weight` -> `blocks.7.norm1.weight`; other names as they are."""
    return CHUNKED.sub(r"\1\2", name)


def write(ours: State, model: nn.Module) -> State:
    """Facebook's names, blocks without chunks."""
    packed = model.encoder.blocks[0].mlp  # type: ignore[union-attr, index]
    swiglu = packed.fc1.out_features == 2 * packed.fc2.in_features
    return write_image(ours, model, NAMES, {**SWIGLU, **TIMM} if swiglu else TIMM)


def knows(source: Source) -> bool:
    """Whether there are chunks, SwiGLU, registers, or a mask token beside LayerScale."""
    names = {f".{name}" for name in source.state}

    def has(ending: str) -> bool:
        return any(name.endswith(ending) for name in names)

    own = has(".mlp.w12.weight") or has(".register_tokens") or (has(".ls1.gamma") and has(".mask_token"))
    return has(".patch_embed.proj.weight") and (own or any(CHUNKED.fullmatch(name) for name in source.state))


FAMILIES = (Family("dinov2", knows, read, write),)
