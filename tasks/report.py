"""`triptych report`: one self-contained page of a run: its health, its figures, its curves, its pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..tokenizers.errors import UserError
from .curves import draw_curves, read_history
from .evaluation.judge import History, examine, judge
from .page import picture_html, rows_html, write_document
from .panel import Row
from .run import Run, load
from .table import read_json

LOG = logging.getLogger("triptych")


def report(run: str, output: str | None = None) -> Path:
    """Write the page of a run and return it.

    Args:
        run: the run directory; a run that failed has its page as well.
        output: the HTML file; `RUN/report.html` unless given.
    """
    from rich.console import Console

    directory = Path(run)
    history, metrics = read_history(directory), read_json(directory / "metrics.json")
    figures = directory / "figures"
    figures.mkdir(exist_ok=True)
    parts = [health_html(history), *_tables(metrics)]
    if history:
        curves = figures / "curves.png"
        draw_curves(history, curves)
        caption = "Each figure by epoch; dashed: what it is held against."
        parts.append("<h2>Curves</h2>" + picture_html(curves, caption))
    captions = _panel(load(run), figures) if (directory / "model.json").is_file() else {}
    for picture in sorted(figures.glob("*.png")):
        if picture.name != "curves.png":
            caption = captions.get(picture.name, picture.stem.replace("_", " "))
            parts.append(f"<h2>{escape(picture.stem)}</h2>" + picture_html(picture, caption))
    seconds = metrics.get("fit", {}).get("seconds")
    trained = (
        "The training has not finished." if seconds is None else f"Trained in {seconds / 60:.1f} minutes."
    )
    page = directory / "report.html" if output is None else Path(output)
    write_document(page, f"Run {directory.name}", trained, "\n".join(parts), str(directory))
    for finding in judge(history):
        Console(stderr=True).print(str(finding), style="red", highlight=False)
    Console().print(f"The report is in {page}", highlight=False)
    return page


def health_html(history: History) -> str:
    """What failed, since when and what to change; and every figure that was judged, beside its reference."""
    findings = judge(history)
    told = "".join(
        f"<div class='failure'><p><b>{escape(f.name)}</b> ({escape(f.group)}) since epoch {f.since}: "
        f"{escape(f.says)}.</p><p>To change: {escape(f.change)}.</p></div>"
        for f in findings
    )
    failed = {(f.name, f.group) for f in findings}
    rows = "".join(
        f"<tr><td>{escape(rule.name)}</td><td>{escape(group)}</td><td class='number'>"
        + ", ".join(f"{escape(name)} {figures[name]:.3g}" for name in rule.needs)
        + f"</td><td class='faint'>{escape(rule.band)}</td>"
        f"<td>{'<b>failed</b>' if (rule.name, group) in failed else 'sound'}</td></tr>"
        for rule, group, figures in examine(history)
    )
    if not rows:
        return "<h2>Health</h2><p class='faint'>No figure that tells a collapse was logged.</p>"
    head = "".join(
        f"<th>{name}</th>" for name in ("what can fail", "of", "last figures", "where runs learn", "")
    )
    verdict = told or "<p>Nothing that was judged has failed.</p>"
    return f"<h2>Health</h2>{verdict}<table><tr>{head}</tr>{rows}</table>"


def _tables(metrics: dict[str, Any]) -> Iterator[str]:
    """Every table that a command has left in `metrics.json`."""
    for name, found in metrics.items():
        if isinstance(found, list) and found and "system" in found[0]:
            yield f"<h2>{escape(name)}</h2>" + rows_html([Row(**row) for row in found])


def _panel(run: Run, figures: Path) -> dict[str, str]:
    """Draw the modality's pictures where there are none yet; their captions by the files' names."""
    modality = run.config["data"]["class_path"].split(".")[-3]
    module = f"{__package__}.{modality}.panel"
    if find_spec(f"{__package__}.{modality}") is None or find_spec(module) is None:
        return {}
    captions = {}
    for name, draw in import_module(module).pictures(run).items():
        if not (figures / name).exists():
            try:
                captions[name] = draw(run, figures / name)
            except UserError as error:  # a run whose data are gone, say, has a page without this picture
                LOG.warning(f"no picture of this run: {error}")
    return captions
