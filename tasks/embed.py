"""`triptych embed`: one vector a sample, into a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .features import Pool, features
from .run import load, write_json


def embed_command(
    run: str,
    overrides: Mapping[str, Any],
    output: str = "embeddings.parquet",
    layer: int | None = None,
    pool: Pool = "auto",
    json: str | None = None,
) -> None:
    """Embed every split of the run's data, or of the data the overrides name.

    The file has one row a sample: `split`, `name`, `label` (-1 where there is none) and the
    columns `e0` to `eD`.
    """
    import pandas as pd
    from rich.console import Console

    loaded = load(run)
    data = loaded.data(overrides)
    tables = []
    for split in ("train", "val", "test"):
        found = features(loaded.model, data.plain(split), -1 if layer is None else layer, pool)
        table = pd.DataFrame(found.x.numpy(), columns=[f"e{i}" for i in range(found.x.shape[1])])
        table.insert(0, "label", found.label.numpy())
        table.insert(0, "name", data.names(split))
        table.insert(0, "split", split)
        tables.append(table)
    joined = pd.concat(tables, ignore_index=True)
    joined.to_parquet(Path(output))
    width = joined.shape[1] - 3
    Console().print(f"{len(joined)} embeddings of {width} values each in {output}")
    if json is not None:
        write_json(Path(json), {"run": run, "output": output, "samples": len(joined), "width": width})
