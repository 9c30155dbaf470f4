"""`triptych configs`: the packaged configs, and one config with all that it extends."""

from __future__ import annotations

import sys
from pathlib import Path

from .config import header, merge, packaged, sizes


def list_configs() -> None:
    """Print each packaged config and size with its header's first line; a table where there is a terminal."""
    rows = [(name, header(path).partition("\n")[0]) for name, path in (packaged() | sizes()).items()]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("config", "what it is", caption="triptych fit --config NAME", caption_justify="left")
    for name, line in rows:
        table.add_row(name, line)
    Console().print(table)


def show_config(name: str | Path) -> None:
    """Print one config, merged with all that it extends, under its header: a file to start from."""
    config = merge([name])
    for line in config.header.splitlines():
        print(f"# {line}".rstrip())
    print(config.yaml(), end="")
