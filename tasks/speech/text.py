"""Transcripts as sequences of symbols.

Shapes: U symbols of one transcript, K symbols of an alphabet without the blank.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ...tokenizers.errors import UserError

#: Index of CTC's blank; the symbols of an alphabet count from 1.
BLANK = 0


def normalise(text: str) -> str:
    """Lower-case words of letters and digits with single spaces between; `'` and `-` stay inside words."""
    kept = [
        character if _sounds(character) else " " for character in unicodedata.normalize("NFKC", text).lower()
    ]
    words = ("".join(kept).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")).split()
    return " ".join(word for word in (word.strip("'-") for word in words) if word)


def _sounds(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" or character in "'-\N{RIGHT SINGLE QUOTATION MARK}"


def alphabet_of(texts: Iterable[str]) -> list[str]:
    """The K different characters of normalised texts, in order."""
    return sorted(set("".join(texts)))


def encode(text: str, alphabet: Sequence[str]) -> Tensor:
    """Indices `(U,)` of a normalised text's characters, from 1.

    Raises:
        UserError: a character is not in the alphabet.
    """
    place = {symbol: index for index, symbol in enumerate(alphabet, start=1)}
    strange = sorted(set(text) - place.keys())
    if strange:
        raise UserError(
            f"the text {text!r} must be spelt in the alphabet {''.join(alphabet)!r}, but has {strange[0]!r}"
        )
    return torch.tensor([place[character] for character in text], dtype=torch.long)
