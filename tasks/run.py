"""A run directory: what `fit` leaves behind, and how later commands load it, without a pickle.

config.yaml          the whole resolved config
model.safetensors    weights of the model (student, teacher, heads)
model.json           how to rebuild it: the config's model section and the data's facts
checkpoints/         for `--resume` alone
metrics.csv, metrics.json, figures/, log.txt
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..tokenizers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from .data import Data
    from .model import Model
    from .series.backtest import Backtest
    from .series.future import Intervals

FORMAT = 1


def save(model: Model, config: dict[str, Any], directory: Path) -> None:
    """Write `model.safetensors` and `model.json`; each replaces the old file whole, or not at all."""
    from safetensors.torch import save as as_bytes

    weights = directory / "model.safetensors.part"
    # written by us: safetensors' own file may be read by its owner alone
    weights.write_bytes(as_bytes({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    weights.replace(directory / "model.safetensors")
    description = {"format": FORMAT, "model": config["model"], "spec": model.describe()}
    write_json(directory / "model.json", description)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON; the old file is replaced whole, or not at all. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def update_json(path: Path, content: dict[str, Any]) -> None:
    """Put the keys of `content` into a JSON file, keeping its others."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, known | content)


def read_description(directory: Path) -> dict[str, Any]:
    """`model.json` of a run.

    Raises:
        UserError: the run has none (its fit has not finished), or it is of another format.
    """
    path = directory / "model.json"
    if not path.is_file():
        raise UserError(f"expected a finished run with a model.json, but {str(directory)!r} has none")
    description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != FORMAT:
        raise UserError(f"{path} must be of format {FORMAT}, but is of format {description.get('format')!r}")
    return description


def rebuild(description: dict[str, Any]) -> Model:
    """A model with fresh weights, rebuilt from a run's description."""
    from .build import build_model

    model = build_model(description["model"], "model.json")
    model.build(description["spec"]["views"], description["spec"]["data"])
    return model


def load_weights(model: Model, directory: Path) -> str:
    """Copy the weights of a run into a built model wherever name and shape agree, and say what did not.

    Raises:
        UserError: not a single name and shape agrees.
    """
    from safetensors.torch import load_file

    path = directory / "model.safetensors"
    if not path.is_file():
        raise UserError(f"expected a finished run with a model.safetensors, but {str(directory)!r} has none")
    theirs, ours = load_file(path), model.state_dict()
    if model.teacher is None and (directory / "model.json").is_file():
        theirs = _evaluated(theirs, read_description(directory)["model"].get("evaluate_with", "student"))
    theirs, resampled = _adapted(theirs, model, directory)
    matched = {
        name: tensor for name, tensor in theirs.items() if name in ours and ours[name].shape == tensor.shape
    }
    if not matched:
        raise UserError(f"none of the {len(theirs)} weights in {path} fits a name and shape of this model")
    model.load_state_dict(matched, strict=False)
    reshaped = sorted(name for name in theirs if name in ours and name not in matched)
    missing, unused = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    report = f"{len(matched)} of {len(ours)} weights taken from {path}"
    kinds = {"resampled": resampled, "of another shape": reshaped, "fresh": missing, "unused": unused}
    for word, names in kinds.items():
        if names:
            report += f"; {len(names)} {word} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
    return report


def _adapted(
    weights: dict[str, Tensor], model: Model, directory: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights as this model's tokenizers can take them, such as positions at another size; and which."""
    from ..tokenizers.tokenizer import Tokenizer

    adapted = dict(weights)
    facts = read_description(directory)["spec"]["data"] if (directory / "model.json").is_file() else {}
    for modality, tokenizer in model.tokenizers.items():
        assert isinstance(tokenizer, Tokenizer)
        for stem in (f"tokenizers.{modality}.", f"teacher.tokenizers.{modality}."):
            own = {name.removeprefix(stem): t for name, t in weights.items() if name.startswith(stem)}
            if own and modality in facts:
                found = tokenizer.adapt(own, facts[modality])
                adapted |= {stem + name: tensor for name, tensor in found.items()}
    return adapted, sorted(name for name in weights if adapted[name].shape != weights[name].shape)


def _evaluated(weights: dict[str, Tensor], branch: str) -> dict[str, Tensor]:
    """The weights with those of the branch that is evaluated as the student's, where it is the teacher's."""
    stem = "teacher."
    if branch != "teacher":
        return weights
    averaged = {name.removeprefix(stem): t for name, t in weights.items() if name.startswith(stem)}
    return {name: t for name, t in weights.items() if not name.startswith(stem)} | averaged


@dataclass
class Run:
    """A finished run: its directory, its config, its description and its model."""

    directory: Path
    config: dict[str, Any]
    description: dict[str, Any]
    model: Model

    def data(self, overrides: Mapping[str, Any] | None = None) -> Data:
        """The run's data module, set up; `overrides` are `{"data.path": "DIR"}` and the like."""
        from .build import build_data
        from .config import merge

        data = build_data(merge([self.directory / "config.yaml"], overrides)).chosen()
        data.attach(dict(self.model.tokenizers.items()))  # type: ignore[arg-type]
        data.follow(self.description["spec"]["data"])
        data.prepare_data()
        data.setup("test")
        return data

    def embed(self, overrides: Mapping[str, Any] | None = None, **how: Any) -> pd.DataFrame:
        """One vector a sample, as `triptych embed` writes them; `how` are `layer` and `pool`."""
        from .embed import embed

        return embed(self, overrides, **how)

    def forecast(
        self, table: pd.DataFrame | str | Path, horizon: int | None = None, intervals: Intervals = "model"
    ) -> pd.DataFrame:
        """Quantiles beyond the last row of a table, as `triptych forecast` writes them."""
        from .series.forecast import forecast

        return forecast(self, table, horizon, intervals)

    def backtest(self, table: pd.DataFrame | str | Path, **how: Any) -> Backtest:
        """Rolling-origin forecasts of a table's past, as `triptych backtest` makes them.

        `how` are `horizon`, `windows`, `step` and `refit`.
        """
        from .series.backtest import backtest

        return backtest(self, table, **how)

    def untrained(self, seed: int = 0) -> Model:
        """A model of the same shape with fresh weights: the baseline every table needs."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return rebuild(self.description).eval()


def load(run: str | Path) -> Run:
    """Load a run directory; the model is in evaluation mode.

    Raises:
        UserError: the directory is not a run, its fit has not finished, or its weights do not fit.
    """
    import yaml
    from safetensors.torch import load_file

    directory = Path(run)
    if not (directory / "config.yaml").is_file():
        raise UserError(f"expected a run directory with a config.yaml, but {str(directory)!r} has none")
    description = read_description(directory)
    model = rebuild(description)
    try:
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"the weights of {str(directory)!r} cannot be read: {error}") from error
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    return Run(directory, config, description, model.eval())
