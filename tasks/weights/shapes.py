"""Sizes of an encoder that the shapes of its tensors do not say outright."""

from __future__ import annotations

from ...tokenizers.errors import UserError

#: Heads, by width, of published encoders whose heads are not 64 wide: ViT-H and XLS-R 1B (80), 2B (120).
HEADS = {1280: 16, 1920: 16}


def heads_of(width: int, given: int | None = None) -> int:
    """Heads of an encoder of `width`: as given, or as published encoders of this width have them.

    Raises:
        UserError: the number does not divide the width, or none is known.
    """
    heads = given or HEADS.get(width, width // 64)
    if not heads or width % heads:
        known = heads or "not known"
        raise UserError(f"the heads must divide the width {width}, but are {known}; give --heads N")
    return heads


def ratio_of(width: int, hidden: int) -> float:
    """The `mlp_ratio` for which an encoder's feed-forward is exactly `hidden` wide."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
