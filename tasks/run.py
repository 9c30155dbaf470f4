"""A run directory: what `fit` leaves behind, and how later commands load it, without a pickle.

    config.yaml          the whole resolved config
    model.safetensors    weights of the model (student, teacher, heads)
    model.json           how to rebuild it: the config's model section and the data's facts
    checkpoints/         for `--resume` alone
    metrics.csv, metrics.json, figures/, log.txt
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tokenizers.errors import UserError
from .model import Model

FORMAT = 1


def save(model: Model, config: dict[str, Any], directory: Path) -> None:
    """Write `model.safetensors` and `model.json`; each replaces the old file whole, or not at all."""
    from safetensors.torch import save_file

    weights = directory / "model.safetensors.part"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    weights.replace(directory / "model.safetensors")
    description = {"format": FORMAT, "model": config["model"], "spec": model.describe()}
    write_json(directory / "model.json", description)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON; the old file is replaced whole, or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def load_model(directory: Path) -> Model:
    """The model of a run, in evaluation mode, rebuilt from its own description."""
    from safetensors.torch import load_file

    from .config import build_model_parts

    description = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    model = build_model_parts(description["model"])
    model.build(description["spec"]["views"], description["spec"]["data"])
    model.load_state_dict(load_file(directory / "model.safetensors"))
    return model.eval()


@dataclass
class Run:
    """A finished run: its model, its config and its directory."""

    directory: Path
    config: dict[str, Any]
    model: Model

    def data(self, *overrides: str) -> Any:
        """The run's data module, set up; `overrides` are `--data.path=DIR` and the like."""
        from .config import build_data

        data = build_data(self.config, overrides)
        data.prepare_data()
        data.setup("test")
        return data

    def untrained(self, seed: int = 0) -> Model:
        """A model of the same shape with fresh weights: the baseline every table needs."""
        import torch

        from .config import build_model_parts

        description = json.loads((self.directory / "model.json").read_text(encoding="utf-8"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model_parts(description["model"])
            model.build(description["spec"]["views"], description["spec"]["data"])
        return model.eval()


def load(run: str | Path) -> Run:
    """Load a run directory.

    Raises:
        UserError: the directory is not a run, or its fit has not finished.
    """
    import yaml

    directory = Path(run)
    for name in ("config.yaml", "model.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise UserError(f"a run directory must hold {name}, but {str(directory)!r} does not")
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    return Run(directory, config, load_model(directory))
