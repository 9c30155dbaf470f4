"""What `triptych predict` writes: a table of classes, or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .model import Model


def write_predictions(parts: Sequence[Any], data: Any, model: Model, output: str | None) -> None:
    """Write the predictions of the plain test split.

    Class logits `(n, K)` become a CSV of `name`, the likeliest `class` and its `probability`;
    quantiles of a table's windows a CSV or Parquet in the table's units; anything else becomes an
    `.npz` with one array, `prediction`.

    Args:
        parts: predictions of each batch.
        data: the data module, for the samples' names.
        model: whose spec names the classes.
        output: the file; `predictions.csv` or `predictions.npz` unless given.
    """
    import numpy as np
    import pandas as pd
    from rich.console import Console

    predicted = torch.cat(list(parts))
    assert model.spec is not None
    classes = next((facts["classes"] for facts in model.spec.data.values() if facts.get("classes")), None)
    frame = data.predicted(predicted, model)
    if frame is not None:
        path = Path(output or "predictions.csv")
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    elif classes is None or predicted.ndim != 2:
        path = Path(output or "predictions.npz")
        np.savez(path, prediction=predicted.numpy())
    else:
        path = Path(output or "predictions.csv")
        best = predicted.softmax(1).max(1)
        names = [str(classes[i]) for i in best.indices.tolist()]
        table = {"name": data.names("test"), "class": names, "probability": best.values.numpy()}
        pd.DataFrame(table).to_csv(path, index=False)
    Console().print(f"{len(predicted)} predictions in {path}, of the test part", highlight=False)
