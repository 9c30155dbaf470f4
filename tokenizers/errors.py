"""Errors that are meant for the person at the keyboard."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in what was given: one sentence naming the value and what was expected; the CLI exits 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'ratio'?` for the nearest known name, or nothing when none is near."""
    nearest = get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
