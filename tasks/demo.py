"""`triptych demo`: train every panel on the shipped samples, then one table and one page."""

from __future__ import annotations

import json
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from .fit import fit
from .page import Section, write_page
from .run import load
from .summary import print_summary, summarise
from .table import record


class Part(NamedTuple):
    """A packaged config, the modality whose panel measures it, and what it is called."""

    config: str
    modality: str
    title: str


PARTS = (
    Part("vision/vit", "vision", "Images: a ViT on scikit-learn's digits"),
    Part("vision/dino", "vision", "Images: DINO on the same digits, labels unused"),
    Part("series/forecast", "series", "Time series: a day of New York's weather ahead"),
    Part("speech/wav2vec2", "speech", "Speech: wav2vec 2.0 on 18 minutes of prompts"),
)

INTRODUCTION = (
    "One transformer encoder, three kinds of input. Every figure below is on data held out from "
    "training, beside its baselines; rows in colour are the runs of this page."
)


def demo(output: str | None = None) -> Path:
    """Train the four packaged configs, measure and draw them; returns the page.

    Args:
        output: folder for the runs and the page; `runs/demo-N` unless given.
    """
    from rich.console import Console

    console = Console()
    directory = _folder(output)
    sections = []
    for number, part in enumerate(PARTS, start=1):
        console.rule(f"{number} of {len(PARTS)}: {part.title}")
        sections.append(_section(part, directory / part.config.replace("/", "-")))
    console.rule("What was learnt")
    runs = zip(PARTS, sections, strict=True)
    print_summary([line for part, run in runs for line in summarise(part.config, run.seconds, run.rows)])
    page = directory / "index.html"
    parts = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "lightning", "xformers") if _installed(name)
    )
    write_page(
        page,
        "Triptych: what the demo learnt",
        INTRODUCTION,
        sections,
        f"Python {platform.python_version()}, {parts}",
    )
    total = sum(section.seconds for section in sections)
    console.print(f"Trained for {total / 60:.1f} minutes in all. Open [bold]{page}[/bold] in a browser.")
    return page


def _section(part: Part, directory: Path) -> Section:
    fit(part.config, output=str(directory))
    run = load(directory)
    panel = import_module(f".{part.modality}.panel", __package__)
    rows = panel.measure(run)
    record(directory, "panel", rows)
    figures = directory / "figures"
    figures.mkdir(exist_ok=True)
    picture = figures / "panel.png"
    caption = panel.picture(run, picture)
    seconds = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))["fit"]["seconds"]
    return Section(part.title, f"triptych fit --config {part.config}", seconds, rows, picture, caption)


def _folder(output: str | None) -> Path:
    """`output`, or the first free `runs/demo-N`."""
    if output is not None:
        return Path(output)
    number = 1
    while (directory := Path("runs") / f"demo-{number}").exists():
        number += 1
    return directory


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
