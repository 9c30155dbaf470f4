"""`triptych embed`: one vector a sample, into a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import SPLITS
from .features import features
from .run import Run, load, write_json
from .table import frame_file, write_frame

if TYPE_CHECKING:
    import pandas as pd


def embed(
    run: Run, overrides: Mapping[str, Any] | None = None, layer: int | None = None, pool: str = "auto"
) -> pd.DataFrame:
    """Embed every split of the run's data, or of the data that the overrides name.

    Args:
        run: a finished run.
        overrides: other data, as `{"data.path": "DIR"}`.
        layer: block to read, from 1; the end, after the final norm, unless given.
        pool: how an entry's tokens become one vector; see `Reading`.

    Returns:
        One row a sample: `split`, `name`, `label` (-1 where there is none) and columns `e0` to `eD`.
    """
    import pandas as pd

    data = run.data(overrides)
    tables = []
    for split in SPLITS:
        if not data.names(split):
            continue
        found = features(run.model, data.plain(split), -1 if layer is None else layer, pool)
        table = pd.DataFrame(found.x.numpy(), columns=[f"e{i}" for i in range(found.x.shape[1])])
        table.insert(0, "label", found.label.numpy())
        table.insert(0, "name", data.names(split))
        table.insert(0, "split", split)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def embed_command(
    run: str,
    overrides: Mapping[str, Any],
    output: str = "embeddings.parquet",
    layer: int | None = None,
    pool: str = "auto",
    json: str | None = None,
) -> None:
    """Write `embed`'s table to a Parquet or CSV file."""
    from rich.console import Console

    target = frame_file(output)
    table = embed(load(run), overrides, layer, pool)
    write_frame(table, target)
    width = table.shape[1] - 3
    Console().print(f"{len(table)} embeddings of {width} values each in {output}")
    if json is not None:
        write_json(Path(json), {"run": run, "output": output, "samples": len(table), "width": width})
