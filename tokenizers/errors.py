"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake in what was given: one sentence naming the value and what was expected; the CLI exits 2."""
