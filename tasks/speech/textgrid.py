"""Praat's TextGrid: named tiers of labelled intervals that cover a recording without gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .decode import Span

#: Intervals shorter than this (seconds) are no intervals to Praat.
LEAST = 1e-4


def write_textgrid(path: Path, seconds: float, tiers: Mapping[str, Sequence[Span]]) -> None:
    """Write a recording of so many seconds; what lies between the spans of a tier is empty.

    Args:
        path: of the file, in Praat's long format.
        seconds: length of the recording; spans are cut to it.
        tiers: spans in order, by name.
    """
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {seconds:.4f}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, spans) in enumerate(tiers.items(), start=1):
        intervals = covering(spans, seconds)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += [
            "        xmin = 0",
            f"        xmax = {seconds:.4f}",
            f"        intervals: size = {len(intervals)}",
        ]
        for place, (start, end, text) in enumerate(intervals, start=1):
            lines += [f"        intervals [{place}]:", f"            xmin = {start:.4f}"]
            quoted = text.replace('"', '""')
            lines += [f"            xmax = {end:.4f}", f'            text = "{quoted}"']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def covering(spans: Sequence[Span], seconds: float) -> list[tuple[float, float, str]]:
    """Start, end and text of intervals from 0 to `seconds`, empty between the spans."""
    intervals, now = list[tuple[float, float, str]](), 0.0
    for span in spans:
        start, end = max(span.start, now), min(span.end, seconds)
        if end - start < LEAST:
            continue
        if start - now >= LEAST:
            intervals.append((now, start, ""))
        else:
            start = now
        intervals.append((start, end, span.text))
        now = end
    if seconds - now >= LEAST or not intervals:
        intervals.append((now, seconds, ""))
    return intervals
