"""A vision transformer of ours under the names of another project.

Shapes: D width, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...backbones.encoder import Block, Encoder
from ...tokenizers.errors import UserError
from ...tokenizers.image import ImagePatches
from .image import ENCODER, HEAD, TOKENIZER, ImageNames
from .names import State, Table, restore


def write_image(ours: State, model: nn.Module, names: ImageNames, table: Table, placed: bool = True) -> State:
    """Our weights as a family's.

    Args:
        ours: of one branch.
        model: what they are of.
        names: of tokens, positions and patches.
        table: of blocks and norms.
        placed: whether class and distillation tokens have positions; ours then get zeros.

    Raises:
        UserError: the family has no name for a part of this model.
    """
    tokenizer, encoder = model.tokenizers["image"], model.encoder  # type: ignore[index]
    assert isinstance(tokenizer, ImagePatches) and isinstance(encoder, Encoder)
    check_plain(encoder)
    if tokenizer.overlap:
        raise UserError(
            f"the format expects patches that do not overlap, but these do by {tokenizer.overlap}"
        )
    blocks = {name.removeprefix(ENCODER): t for name, t in ours.items() if name.startswith(ENCODER)}
    state, rest = restore(blocks, table)
    if rest:
        raise UserError(f"the format must have a name for every weight, but has none for {min(rest)!r}")
    state |= {f"{names.head}.{kind}": ours[HEAD + kind] for kind in ("weight", "bias") if HEAD + kind in ours}
    weight = ours[f"{TOKENIZER}proj.weight"]
    state[f"{names.patch}.weight"] = weight.unflatten(1, (-1, *tokenizer.patch))
    state[f"{names.patch}.bias"] = ours[f"{TOKENIZER}proj.bias"]
    if names.mask is not None:
        state[names.mask] = ours[f"{TOKENIZER}mask_token"].unsqueeze(0)
    return state | _prefix_of(ours[f"{TOKENIZER}prefix_tokens"], tokenizer, names, placed)


def check_plain(encoder: Encoder) -> None:
    """Raise UserError unless the encoder is pre-norm, with layer norms and no rotary positions."""
    block = encoder.blocks[0]
    assert isinstance(block, Block)
    faults = {
        "post-norm blocks": not block.norm_first,
        "Conformer blocks": block.conformer,
        "other norms than layer norm": not isinstance(block.norm1, nn.LayerNorm),
        "rotary positions": block.attn.rotary is not None,
        "no final norm": isinstance(encoder.norm, nn.Identity),
    }
    found = [fault for fault, there in faults.items() if there]
    if found:
        raise UserError(f"the format expects a plain vision transformer, but this encoder has {found[0]}")


def _prefix_of(tokens: Tensor, tokenizer: ImagePatches, names: ImageNames, placed: bool) -> State:
    """Their tensors of prefix tokens and positions."""
    state: State = {}
    registers = [i for i, name in enumerate(tokenizer.prefix) if name.startswith("register")]
    known = {name: [i] for i, name in enumerate(tokenizer.prefix) if i not in registers}
    known |= {"register": registers} if registers else {}
    if unknown := sorted(known.keys() - names.prefix.keys()):
        raise UserError(f"the format must have a name for every token, but has none for {unknown[0]!r}")
    order = [i for name in names.prefix for i in known.get(name, [])]
    if order != sorted(order):
        raise UserError(
            f"the format expects tokens in the order {list(names.prefix)}, but this model has "
            f"{list(tokenizer.prefix)}"
        )
    if tokenizer.positions == "none":
        raise UserError("the format expects learnt or sine-cosine positions, but this tokenizer has none")
    state |= {names.prefix[name]: tokens[index].unsqueeze(0) for name, index in known.items()}
    grid = tokenizer.position_grid(*tokenizer.grid).detach()
    before = grid.new_zeros(len(tokens) - len(registers) if placed else 0, grid.shape[1])
    state[names.positions] = torch.cat([before, grid]).unsqueeze(0)
    return state
