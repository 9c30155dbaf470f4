"""Checkpoints for resuming that a crash or a full disk cannot spoil."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file, flushes to disk, then replaces it whole.

    Lightning 2.6's own writer goes through the temporary folder: when that is another file
    system the replacement is a copy, and a kill during it destroys the only checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save `checkpoint` at `path`. Raises OSError when the disk refuses; the old file is kept."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
