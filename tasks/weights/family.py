"""The types that every family of published weights is written against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .names import State


@dataclass(frozen=True)
class Source:
    """Weights as they were found.

    Attributes:
        name: of the file, folder, hub entry or class.
        state: their names and tensors.
        config: `config.json`, or what a model object says of itself; empty for a bare file. Besides, `heads`
            as the caller gave them, and the `part` of a checkpoint that the weights were in.
        preprocessor: `preprocessor_config.json`, where there is one.
    """

    name: str
    state: State
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Carried:
    """Published weights as a model of ours.

    Attributes:
        weights: our names, as in `Model.state_dict()`.
        model: the `model` section of a config that builds the model.
        modality: of its one tokenizer.
        facts: what the tokenizer is sized by, and how its input is normalised.
        reading: arguments of the data module that later commands read data with.
        aside: their names that we know and do not take: heads, decoders, other norms.
        unexpected: their names that we do not know.
    """

    weights: State
    model: dict[str, Any]
    modality: str
    facts: dict[str, Any]
    reading: dict[str, Any]
    aside: list[str]
    unexpected: list[str]


@dataclass(frozen=True)
class Family:
    """One project's way to name and shape weights.

    Attributes:
        name: as `--family` and `--format` take it.
        knows: whether weights are of this family.
        read: their weights -> ours.
        write: the weights of one of our branches (`tokenizers.*`, `encoder.*`, `objective.*`) and the model
            they are of -> theirs. Raises UserError where the format lacks a part. None: it cannot be written.
        files: of a model that was written, the JSON files that go beside its weights, by name.
    """

    name: str
    knows: Callable[[Source], bool]
    read: Callable[[Source], Carried]
    write: Callable[[State, nn.Module], State] | None = None
    files: Callable[[nn.Module], dict[str, dict[str, Any]]] = lambda model: {}
