"""What all families of vision transformers share: tokens, positions, patches, and the model around them.

Shapes: D width, N patches, C channels, P = C * patch height * patch width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from ...tokenizers.image import Resampling
from ..vision.pixels import Pixels
from .family import Carried
from .names import State, Table, aside, beneath, carry, count, with_stem
from .shapes import heads_of, ratio_of

TOKENIZER, ENCODER, HEAD = "tokenizers.image.", "encoder.", "objective.members.classification.head."
#: As Facebook judges its models: the shorter side scaled to 256 pixels, the middle 224 read.
IMAGENET = Pixels([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "bicubic", 224 / 256)


@dataclass(frozen=True)
class ImageNames:
    """How a family names what is not in a block.

    Attributes:
        patch: the projection of patches.
        positions: of the prefix tokens that have any, then of the patches: `(1, tokens, D)`.
        prefix: our name of a token and theirs, in order; `register` stands for all registers in one tensor.
        mask: the mask token, where the encoder has one.
        head: a linear classifier on the class token.
        aside: beginnings of names that are known and not taken.
    """

    patch: str
    positions: str
    prefix: Mapping[str, str]
    mask: str | None = None
    head: str = "head"
    aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageTraits:
    """What the tensors themselves do not say.

    Attributes:
        heads: of attention; None goes by the width.
        size: (H, W) in pixels that the positions are for; None for a square.
        reads: (H, W) in pixels that pictures are scaled to, where it is another size.
        eps: of the norms.
        pixels: how pictures are scaled and normalised.
        resampling: of positions at another size.
        classes: names of a head's classes, where they are known.
    """

    heads: int | None = None
    size: Sequence[int] | None = None
    reads: Sequence[int] | None = None
    eps: float = 1e-6
    pixels: Pixels = field(default_factory=lambda: IMAGENET)
    resampling: Resampling = field(default_factory=Resampling)
    classes: Sequence[str] = ()


def read_image(state: State, names: ImageNames, table: Table, traits: ImageTraits) -> Carried:
    """A vision transformer's weights as ours; `table` names what is in blocks, and the last norm.

    Raises:
        UserError: positions and patches do not fit together, or a part is missing.
    """
    inside, outside = beneath(state, f"{names.patch}.weight")
    encoder, rest = carry(inside, table)
    patch = rest.pop(f"{names.patch}.weight")
    tokens, prefix, size = _tokens(rest, names, patch, traits.size)
    bias = rest.pop(f"{names.patch}.bias", patch.new_zeros(len(patch)))
    tokens |= {"proj.weight": patch.flatten(1), "proj.bias": bias}
    head, rest, outside = _head(rest, outside, names.head if "class" in prefix else "no head")
    known, unknown = aside(rest, names.aside)
    facts = {
        "channels": patch.shape[1],
        "size": list(size),
        "classes": _classes(head, traits.classes),
        "pixels": asdict(traits.pixels),
    }
    return Carried(
        weights=with_stem(tokens, TOKENIZER) | with_stem(encoder, ENCODER) | with_stem(head, HEAD),
        model=_model(encoder, patch, prefix, traits, bool(head)),
        modality="image",
        facts=facts,
        reading={"size": list(traits.reads or size)},
        aside=sorted([*outside, *known]),
        unexpected=sorted(unknown),
    )


def _tokens(
    rest: State, names: ImageNames, patch: Tensor, size: Sequence[int] | None
) -> tuple[State, tuple[str, ...], tuple[int, int]]:
    """The tokenizer's tokens and positions, taken out of `rest`; the prefix; the size in pixels.

    Raises:
        UserError: there are no positions, or their number fits no grid of patches.
    """
    if names.positions not in rest:
        raise UserError(f"the weights must hold learnt positions, but have no {names.positions!r}")
    position, tokens, prefix = rest.pop(names.positions)[0], [], []
    for ours, theirs in names.prefix.items():
        if theirs in rest:
            token = rest.pop(theirs).flatten(0, 1)
            tokens.append(token)
            prefix += [ours] if ours != "register" else [f"register{i}" for i in range(len(token))]
    grid, placed = _grid(len(position), prefix, patch, size)
    prefix_tokens = torch.cat([position[:0], *tokens])
    prefix_tokens[:placed] += position[:placed]
    found = {"prefix_tokens": prefix_tokens, "position_embedding": position[placed:].clone()}
    if names.mask is not None and names.mask in rest:
        found["mask_token"] = rest.pop(names.mask).flatten()
    return found, tuple(prefix), (grid[0] * patch.shape[2], grid[1] * patch.shape[3])


def _grid(
    positions: int, prefix: Sequence[str], patch: Tensor, size: Sequence[int] | None
) -> tuple[tuple[int, int], int]:
    """Rows and columns of patches, and how many prefix tokens have a position.

    That is all of them, all but registers, or none (timm's `no_embed_class`); the last only where there are
    registers or the size is known, for 15 patches and a class token look like 16 patches.
    """
    registers = sum(name.startswith("register") for name in prefix)
    bare = (0,) if registers or size is not None else ()
    for placed in (len(prefix), len(prefix) - registers, *bare):
        side = math.isqrt(max(positions - placed, 0))
        grid = (side, side) if size is None else (size[0] // patch.shape[2], size[1] // patch.shape[3])
        if 0 < positions - placed == grid[0] * grid[1]:
            return grid, placed
    expected = "a square" if size is None else f"{size[0]}x{size[1]} pixels"
    raise UserError(
        f"the {positions} positions must be those of {expected} and of the tokens {list(prefix)}, but are not"
    )


def _head(rest: State, outside: State, name: str) -> tuple[State, State, State]:
    """A linear classifier, and what is left without it."""
    everything = rest | outside
    head = {
        kind: everything[f"{name}.{kind}"] for kind in ("weight", "bias") if f"{name}.{kind}" in everything
    }
    if len(head) < 2 or head["weight"].ndim != 2 or len(head["weight"]) < 2:
        return {}, rest, outside
    taken = {f"{name}.{kind}" for kind in head}
    left, elsewhere = ({k: t for k, t in part.items() if k not in taken} for part in (rest, outside))
    return head, left, elsewhere


def _classes(head: State, names: Sequence[str]) -> list[str]:
    """Names of the head's classes: numbers where nothing else is known."""
    count_ = len(head["weight"]) if head else 0
    return list(names) if len(names) == count_ else [str(index) for index in range(count_)]


def _model(
    encoder: State, patch: Tensor, prefix: Sequence[str], traits: ImageTraits, head: bool
) -> dict[str, Any]:
    """The `model` section of a config for weights with these shapes.

    Raises:
        UserError: there are no blocks.
    """
    needed = {"blocks.0.norm1.weight", "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight"}
    if missing := needed - encoder.keys():
        raise UserError(f"the weights must hold the blocks of a transformer, but have no {min(missing)!r}")
    width, hidden = len(patch), encoder["blocks.0.mlp.fc2.weight"].shape[1]
    packed = len(encoder["blocks.0.mlp.fc1.weight"]) == 2 * hidden
    block = {
        "norm_eps": traits.eps,
        "feedforward": "swiglu" if packed else "gelu",
        "qkv_bias": "blocks.0.attn.qkv.bias" in encoder,
        "layer_scale": 1.0 if "blocks.0.ls1.gamma" in encoder else None,
    }
    tokenizer = {
        "patch": list(patch.shape[2:]),
        "prefix": list(prefix),
        "resampling": asdict(traits.resampling),
    }
    classifier = {
        "class_path": "triptych.objectives.classification.Classification",
        "init_args": {"view": "train", "pool": "class"},
    }
    return {
        "tokenizers": {
            "image": {"class_path": "triptych.tokenizers.image.ImagePatches", "init_args": tokenizer}
        },
        "encoder": {
            "width": width,
            "depth": count(encoder, "blocks.*.norm1.weight"),
            "heads": heads_of(width, traits.heads),
            "mlp_ratio": ratio_of(width, hidden),
            "block": block,
        },
        "objectives": {"classification": classifier} if head else {},
    }
