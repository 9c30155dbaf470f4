"""One self-contained HTML page: figures and pictures of finished runs, readable without a server."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .panel import Row
from .table import interval

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --faint: #667085; --line: #d9dee7; --paper: #fbfbfc; --own: #e8f0fe; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --faint: #98a2b3; --line: #343b47; --paper: #15181d; --own: #1d2b45; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; margin-bottom: .2rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .2rem; }
p.faint, figcaption, td.faint { color: var(--faint); }
table { border-collapse: collapse; margin: .9rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .9rem .28rem .5rem; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
tr.own { background: var(--own); font-weight: 600; }
figure { margin: 1rem 0; }
.failure { border-left: 5px solid #d0342c; padding: .1rem 1rem; margin: 1rem 0; background: #d0342c18; }
img { width: 100%; border-radius: 6px; background: white; }
code { background: var(--own); padding: .1rem .35rem; border-radius: 4px; }
"""


@dataclass(frozen=True)
class Section:
    """One run on the page.

    Attributes:
        title: what was trained on what.
        command: the command that trains it.
        seconds: how long the training took.
        rows: the run's figures and its baselines.
        picture: a PNG file.
        caption: one sentence under the picture.
    """

    title: str
    command: str
    seconds: float
    rows: Sequence[Row]
    picture: Path
    caption: str


def write_page(path: Path, title: str, introduction: str, sections: Sequence[Section], footer: str) -> None:
    """Write the page of several runs; pictures are embedded, so that the file can be moved and sent."""
    write_document(path, title, introduction, "\n".join(_section(section) for section in sections), footer)


def write_document(path: Path, title: str, introduction: str, body: str, footer: str) -> None:
    """Write a page around a body that is HTML already; the other texts are plain."""
    path.write_text(
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1><p class='faint'>{escape(introduction)}</p>\n{body}\n"
        f"<p class='faint'>{escape(footer)}</p></body></html>\n",
        encoding="utf-8",
    )


def picture_html(picture: Path, caption: str) -> str:
    """A PNG file, embedded, with its caption."""
    image = base64.b64encode(picture.read_bytes()).decode()
    return (
        f"<figure><img alt='{escape(caption, quote=True)}' src='data:image/png;base64,{image}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def rows_html(rows: Sequence[Row]) -> str:
    """A table of figures, the run's own in colour."""
    body = "\n".join(_row(row) for row in rows)
    return (
        f"<table><tr><th>system</th><th>figure</th><th class='number'>value</th>"
        f"<th class='number'>95 % interval</th></tr>\n{body}</table>\n"
    )


def _section(section: Section) -> str:
    return (
        f"<section><h2>{escape(section.title)}</h2>\n"
        f"<p class='faint'>Trained in {section.seconds / 60:.1f} minutes by "
        f"<code>{escape(section.command)}</code></p>\n"
        f"{rows_html(section.rows)}{picture_html(section.picture, section.caption)}</section>"
    )


def _row(row: Row) -> str:
    css = "" if row.baseline else " class='own'"
    return (
        f"<tr{css}><td>{escape(row.system)}</td><td>{escape(row.metric)}</td>"
        f"<td class='number'>{row.value:.3f}</td><td class='number faint'>{escape(interval(row))}</td></tr>"
    )
