"""What `triptych predict` writes: a table of classes, or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..tokenizers.errors import UserError
from .data import Data
from .model import Model
from .table import write_frame


def write_predictions(said: Sequence[Any], data: Data, model: Model, output: str | None) -> None:
    """Write what a model says of every sample, with the part of the data that it belongs to.

    Class logits `(n, K)` become a CSV of `split`, `name`, the likeliest `class` and its `probability`;
    quantiles of a table's windows a CSV or Parquet in the table's units; anything else becomes an
    `.npz` of `split` and `prediction`, one entry a sample.

    Args:
        said: predictions of each batch, as Lightning returns them: by split where there are several.
        data: the data module, for the samples' names.
        model: whose spec names the classes.
        output: the file; `predictions.csv` or `predictions.npz` unless given.

    Raises:
        UserError: the data have no samples.
    """
    import numpy as np
    import pandas as pd
    from rich.console import Console

    parts = data.predicted_splits()
    batches = dict(zip(parts, said if len(parts) > 1 else [said], strict=True))
    if not any(batches.values()):
        raise UserError("expected samples to predict, but the data have none")
    predicted = torch.cat([batch for part in batches.values() for batch in part])
    counts = {split: sum(map(len, part)) for split, part in batches.items()}
    splits = np.repeat(list(counts), list(counts.values()))
    assert model.spec is not None
    classes = next((facts["classes"] for facts in model.spec.data.values() if facts.get("classes")), None)
    frame = data.predicted(predicted, model)
    if frame is not None:
        path = Path(output or "predictions.csv")
        write_frame(frame, path)
    elif classes is None or predicted.ndim != 2:
        path = Path(output or "predictions.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, prediction=predicted.numpy(), split=splits)
    else:
        path = Path(output or "predictions.csv")
        best = predicted.softmax(1).max(1)
        named = [str(classes[i]) for i in best.indices.tolist()]
        names = [name for split in batches for name in data.names(split)]
        table = {"split": splits, "name": names, "class": named, "probability": best.values.numpy()}
        write_frame(pd.DataFrame(table), path)
    told = ", ".join(f"{count} {split}" for split, count in counts.items())
    Console().print(f"{len(predicted)} predictions in {path} ({told})", highlight=False)
