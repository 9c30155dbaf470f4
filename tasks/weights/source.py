"""Where published weights come from: a file, a folder, a model object, or a hub where one can be reached.

Pickles are read by PyTorch's restricted reader alone, which runs no code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...tokenizers.errors import UserError
from .family import Source
from .names import State
from .objects import described

PICKLES = (".pth", ".pt", ".bin")
#: Parts of a checkpoint that hold a model, the first of which is taken. A teacher is what DINO is judged by.
PARTS = ("teacher", "model_ema", "model", "state_dict", "model_state_dict", "student")


def open_source(source: str | Path | nn.Module, part: str | None = None, heads: int | None = None) -> Source:
    """Weights with what goes with them.

    Args:
        source: a `.safetensors`, `.pth`, `.pt` or `.bin` file; a folder with `config.json`; a module of timm,
            transformers or torchaudio; `timm:NAME` or `hf:OWNER/NAME`.
        part: of a checkpoint with several (`student`, `teacher`).
        heads: of attention, where nothing says it.

    Raises:
        UserError: there is nothing, it cannot be read, or the hub cannot be reached.
    """
    if isinstance(source, nn.Module):
        found = Source(type(source).__name__, _cpu(source.state_dict()), described(source))
    elif str(source).startswith(("timm:", "hf:")):
        found = _from_hub(str(source))
    elif Path(source).is_dir():
        found = _folder(Path(source))
    else:
        found = _file(Path(source), part)
    return replace(found, config={**found.config, "heads": heads or found.config.get("heads")})


def _file(path: Path, part: str | None) -> Source:
    if not path.is_file():
        expected = ".safetensors, .pth, .pt or .bin, a folder with a config.json, timm:NAME or hf:OWNER/NAME"
        raise UserError(f"expected weights as a file ({expected}), but there is no {str(path)!r}")
    if path.suffix == ".safetensors":
        return Source(path.name, _safetensors(path))
    if path.suffix not in PICKLES:
        raise UserError(
            f"expected a file of weights to end in .safetensors or {PICKLES}, but got {path.name!r}"
        )
    state, chosen = _unwrapped(_pickle(path), part, path)
    return Source(path.name, state, {"part": chosen})


def _safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"the weights {str(path)!r} cannot be read: {error}") from error


def _pickle(path: Path) -> Any:
    """A checkpoint by the restricted reader, which lets the arguments of a command line through besides."""
    import pickle

    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{str(path)!r} holds more than weights, or is broken, and is not read: {reason}"
        ) from error


def _unwrapped(checkpoint: Any, part: str | None, path: Path) -> tuple[State, str | None]:
    """The state dict in a checkpoint, and under which of its keys it was.

    Raises:
        UserError: there is none, or not under the key that was asked for.
    """
    parts = [
        key for key in PARTS if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping)
    ]
    if part is not None and part not in parts:
        raise UserError(f"--part must be one of {parts or 'none'} in {str(path)!r}, but is {part!r}")
    chosen = part or next(iter(parts), None)
    inner = checkpoint if chosen is None else checkpoint[chosen]
    if not isinstance(inner, Mapping):
        raise UserError(f"expected {str(path)!r} to hold named tensors, but it holds {type(inner).__name__}")
    state = {str(name): tensor for name, tensor in inner.items() if isinstance(tensor, Tensor)}
    if not state:
        raise UserError(f"expected {str(path)!r} to hold named tensors, but it has {list(checkpoint)[:5]}")
    return state, chosen


def _folder(path: Path) -> Source:
    """Hugging Face's layout: `config.json` and weights, in one file or in several with an index."""
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    files = [file for file in files if file.name in ("model.safetensors", "pytorch_model.bin")] or files
    if not (path / "config.json").is_file() or not files:
        missing = "config.json" if files else "*.safetensors or *.bin"
        raise UserError(
            f"expected a folder with a config.json and weights, but {str(path)!r} has no {missing}"
        )
    state: State = {}
    for file in files:
        state |= _file(file, None).state
    preprocessor = path / "preprocessor_config.json"
    known = read_json(preprocessor) if preprocessor.is_file() else {}
    return Source(path.name, state, read_json(path / "config.json"), known)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. Raises UserError for what is not JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{str(path)!r} must be JSON, but is not: {error}") from error
    assert isinstance(content, dict)
    return content


def _from_hub(name: str) -> Source:
    """Weights of a hub, through its own client.

    Raises:
        UserError: the client is not installed, or the hub has no such model or cannot be reached.
    """
    hub, _, entry = name.partition(":")
    try:
        if hub == "timm":
            import timm

            model = timm.create_model(entry, pretrained=True)
            return Source(name, _cpu(model.state_dict()), described(model))
        from huggingface_hub import snapshot_download

        patterns = ["config.json", "preprocessor_config.json", "*.safetensors", "*.bin"]
        return replace(_folder(Path(snapshot_download(entry, allow_patterns=patterns))), name=name)
    except ImportError as error:
        raise UserError(f"{name!r} needs the package {error.name!r}, which is not installed") from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(
            f"{name!r} cannot be had from its hub ({reason}); with the file at hand, give its path"
        ) from error


def _cpu(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().cpu() for name, tensor in state.items()}
