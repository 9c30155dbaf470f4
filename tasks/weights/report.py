"""What became of every weight of an import, said loudly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Names shown of each kind that nobody has to act on.
SHOWN = 3


@dataclass(frozen=True)
class Report:
    """Names and shapes, by what became of them.

    Attributes:
        source: where the weights are from.
        family: whose names they bear.
        matched: our names that got weights.
        missing: our names that start fresh.
        unexpected: their names that nothing here knows.
        aside: their names that are known and not taken (heads, decoders).
        resized: our names and what was done to their shapes.
    """

    source: str
    family: str
    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    aside: list[str]
    resized: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line a kind; what is missing, unexpected or resized is named in full."""
        total = len(self.matched) + len(self.missing)
        lines = [
            f"{self.source} is of the family {self.family}",
            f"matched     {len(self.matched)} of the model's {total} weights",
            _line("missing", self.missing, "start fresh"),
            _line(
                "unexpected",
                self.unexpected,
                "not known and not taken: the numbers may differ from the original's",
            ),
            _line("resized", self.resized, ""),
        ]
        shown = ", ".join(self.aside[:SHOWN]) + (", …" if len(self.aside) > SHOWN else "")
        return [*lines, _line("set aside", [shown] if self.aside else [], "", len(self.aside))]

    def plain(self) -> dict[str, Any]:
        """The same as plain data, for `--json`."""
        kinds = ("source", "family", "matched", "missing", "unexpected", "aside", "resized")
        return {kind: getattr(self, kind) for kind in kinds}


def _line(kind: str, names: list[str], meaning: str, count: int | None = None) -> str:
    head = f"{kind:<11} {len(names) if count is None else count}"
    if not names:
        return head
    return f"{head}{f' ({meaning})' if meaning else ''}: {', '.join(names)}"
