"""The activations of other projects' encoders: only the exact GELU is read, which all published ones have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...tokenizers.errors import UserError

#: transformers' names of it.
GELU = ("gelu", "gelu_python")


def check_gelu(config: Mapping[str, Any], *keys: str) -> None:
    """Raise UserError where `config.json` says another activation under one of these keys."""
    for key in keys:
        if config.get(key, "gelu") not in GELU:
            raise UserError(
                f"the weights must be of an encoder with {key} gelu, but theirs is {config[key]!r}"
            )
