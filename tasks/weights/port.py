"""`triptych weights import` and `triptych weights export`: published weights into a run, and out of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...tokenizers.errors import UserError
from ...tokenizers.tokenizer import Tokenizer
from ..build import build_model
from ..model import Model
from ..run import Run, load, save, write_json
from ..yaml12 import dump
from .family import Carried
from .names import State
from .registry import family, recognise
from .report import Report
from .source import open_source, read_json

#: The view that an imported model is built with, as data modules call theirs.
VIEW = "train"
DATA = {
    "image": "triptych.tasks.vision.data.Images",
    "audio": "triptych.tasks.speech.data.Audio",
    "series": "triptych.tasks.series.data.Tables",
}


def import_weights(
    source: str | Path | nn.Module,
    output: str | Path,
    name: str | None = None,
    part: str | None = None,
    heads: int | None = None,
    size: int | None = None,
) -> tuple[Run, Report]:
    """Make a run directory of published weights.

    Args:
        source: as `open_source` takes it.
        output: the run directory to write.
        name: of the family; by the names of the weights unless given.
        part: of a checkpoint with several.
        heads: of attention, where nothing says it.
        size: pixels a side that positions are resampled to, once and for all.

    Raises:
        UserError: no weight matches, the family is not known, or the directory holds a run already.
    """
    directory = Path(output)
    if (directory / "config.yaml").exists():
        raise UserError(f"{str(output)!r} holds a run already; name another --output")
    found = open_source(source, part, heads)
    kind = recognise(found) if name is None else family(name)
    carried, resized = resize(kind.read(found), size)
    model, missing = built(carried)
    matched = sorted(carried.weights)
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "model": carried.model,
        "data": {"class_path": DATA[carried.modality], "init_args": carried.reading},
    }
    save(model, config, directory)
    (directory / "config.yaml").write_text(dump(config), encoding="utf-8")
    return load(directory), Report(
        found.name, kind.name, matched, missing, carried.unexpected, carried.aside, resized
    )


def resize(carried: Carried, size: int | None) -> tuple[Carried, list[str]]:
    """The weights for images of another size, and what was done to their shapes.

    Raises:
        UserError: they are of no images.
    """
    if size is None:
        return carried, []
    if carried.modality != "image":
        raise UserError(f"--size is for images, but these weights are of {carried.modality}")
    facts, stem = carried.facts | {"size": [size, size]}, "tokenizers.image."
    tokenizer = build_model(carried.model, "the imported weights").tokenizers["image"]
    assert isinstance(tokenizer, Tokenizer)
    tokenizer.build(carried.model["encoder"]["width"], facts)
    own = {name.removeprefix(stem): t for name, t in carried.weights.items() if name.startswith(stem)}
    found = {stem + name: tensor for name, tensor in tokenizer.adapt(own, carried.facts).items()}
    shapes = {
        name: (tuple(carried.weights[name].shape), tuple(tensor.shape)) for name, tensor in found.items()
    }
    resized = [f"{name} {old} -> {new}" for name, (old, new) in shapes.items() if old != new]
    reading = carried.reading | {"size": [size, size]}
    return replace(carried, weights=carried.weights | found, facts=facts, reading=reading), resized


def built(carried: Carried) -> tuple[Model, list[str]]:
    """The model with its weights, and the names of those that start fresh.

    Raises:
        UserError: no weight matches, or one has another shape than the model's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(carried.model, "the imported weights")
        model.build({VIEW: carried.modality}, {carried.modality: carried.facts})
    ours = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in carried.weights.items()}
    wrong = [name for name, shape in shapes.items() if name not in ours or tuple(ours[name].shape) != shape]
    if wrong or not shapes:
        first = wrong[0] if wrong else "all"
        expected = tuple(ours[first].shape) if first in ours else "no such weight"
        raise UserError(f"the weight {first!r} must be {expected}, but is {shapes.get(first, 'missing')}")
    model.load_state_dict({name: tensor.float() for name, tensor in carried.weights.items()}, strict=False)
    return model.eval(), sorted(
        name for name, tensor in ours.items() if name not in shapes and tensor.numel()
    )


def export_weights(run: Run, name: str) -> State:
    """The weights of a run under a family's names, of the branch that later commands use.

    Raises:
        UserError: there is no such format, or it has no name for a part of the model.
    """
    kind = family(name)
    if kind.write is None:
        raise UserError(f"weights of the family {name!r} can be imported, but not exported")
    return {
        key: tensor.contiguous().clone() for key, tensor in kind.write(branch(run.model), run.model).items()
    }


def branch(model: Model) -> State:
    """Weights of the branch that later commands use, under the student's names, and of the objectives."""
    stem = "teacher." if model.evaluate_with == "teacher" else ""
    state: Mapping[str, Tensor] = model.state_dict()
    taken = {
        name.removeprefix(stem): t
        for name, t in state.items()
        if name.startswith((f"{stem}tokenizers.", f"{stem}encoder."))
    }
    return taken | {name: tensor for name, tensor in state.items() if name.startswith("objective.")}


def import_command(
    source: str,
    output: str,
    family: str | None = None,
    part: str | None = None,
    heads: int | None = None,
    size: int | None = None,
    json: str | None = None,
) -> None:
    """Import, and say what became of every weight."""
    run, report = import_weights(source, output, family, part, heads, size)
    print("\n".join([*report.lines(), f"the run is in {run.directory}"]))
    if json is not None:
        write_json(Path(json), report.plain())


def export_command(run: str, format: str, output: str) -> None:
    """Write a safetensors file, and beside it what the format keeps in files of its own.

    Raises:
        UserError: the folder holds other weights, or another model's files.
    """
    from safetensors.torch import save_file

    opened, path = load(run), Path(output)
    state, files = export_weights(opened, format), family(format).files(opened.model)
    if files:
        check_alone(path, files)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    for name, content in files.items():
        write_json(path.parent / name, content)
    beside = f", with {' and '.join(files)} beside it" if files else ""
    print(f"{len(state)} weights under the names of {format} in {output}{beside}")


def check_alone(path: Path, files: Mapping[str, Any]) -> None:
    """Raise UserError unless a folder is one model's once `path` and the JSON `files` are written to it."""
    folder = path.parent
    others = [file for ending in ("*.safetensors", "*.bin") for file in sorted(folder.glob(ending))]
    others = [file for file in others if file.name != path.name]
    known = {folder / name: content for name, content in files.items() if (folder / name).exists()}
    others += [file for file, content in known.items() if read_json(file) != content]
    if others:
        raise UserError(
            f"expected --output in a folder of its own, for {next(iter(files))} goes beside it, "
            f"but {str(others[0])!r} is of another model"
        )
