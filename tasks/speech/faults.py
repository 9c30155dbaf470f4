"""What is wrong with a recording, or with the stretch of it that a manifest names: a reason, or None."""

from __future__ import annotations

from pathlib import Path

#: Seconds that a stretch may end after its file: manifests round.
ROUNDED = 0.5
#: Sizes in the headers of WAV files whose writer did not know them.
STREAMED = (8, 2**32 + 7)
NO_NUMBERS = "holds values that are no numbers"


def misplaced(start: float, end: float, duration: float) -> str | None:
    """A stretch from `start` to `end` that does not lie in a file of so many seconds; `end` may be NaN."""
    if start < 0:
        return f"starts at {start:g} s, before its file"
    if end > duration + ROUNDED:
        return f"ends at {end:g} s, but its file at {duration:.2f} s"
    return None


def shortened(path: str) -> str | None:
    """A WAV file that is smaller than its header tells, which libsndfile reads as a shorter one."""
    with Path(path).open("rb") as file:
        head = file.read(8)
    told, size = int.from_bytes(head[4:], "little") + 8, Path(path).stat().st_size
    if head[:4] != b"RIFF" or told in STREAMED or told <= size:
        return None
    return f"is cut off after {size} of {told} bytes"


def cut_off(read: int, wanted: int, rate: int) -> str | None:
    """A file that gives fewer samples than its header tells, by more than a tenth of a second."""
    return (
        f"is cut off after {read / rate:.2f} of {wanted / rate:.2f} s" if read < wanted - rate // 10 else None
    )
