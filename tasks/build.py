"""From a merged config to objects, by jsonargparse, without Lightning's command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..tokenizers.errors import UserError
from .config import Merged
from .schema import check, check_arguments, new_parser, parameters
from .yaml12 import Node, Origin, parse_value

if TYPE_CHECKING:
    from .data import Data
    from .model import Model


def build_model(model: Mapping[str, Any], file: str = "the model's description") -> Model:
    """A model, not yet sized by data, from the `model` section of a config as plain values.

    Args:
        model: what only the learner reads (the optimiser) is left out.
        file: what error messages say the values are from.

    Raises:
        UserError: the values do not fit the classes they name.
    """
    from .model import Model

    known = {key: value for key, value in model.items() if key in parameters(Model)}
    node = parse_value(known, Origin(file))
    return built(Model, check_arguments(node, Model, ("model",), owner=node), file)


def build_data(config: Merged) -> Data:
    """The data module of a config, before its `setup`. Raises UserError with file and line."""
    from .data import Data

    return built(Data, data_arguments(config), config.name, subclass=True)


def data_arguments(config: Merged) -> dict[str, Any]:
    """The checked `data` section, which draws from the config's seed unless it has its own."""
    from .data import Data

    values = check(section(config, "data"), Data, ("data",))
    values["init_args"].setdefault("seed", seed(config))
    return values


def seed(config: Merged) -> int:
    """The run's seed, 0 unless given."""
    return check(config.tree.value.get("seed", Node(0, config.tree.origin)), int, ("seed",))


def section(config: Merged, name: str) -> Node:
    """A section that the config must have."""
    if name not in config.tree.value:
        present = list(config.tree.value)
        raise UserError(f"the config {config.name!r} must have a section {name!r}, but has {present}")
    return config.tree.value[name]


def built(cls: type, values: Mapping[str, Any], name: str, subclass: bool = False) -> Any:
    """An object of `cls`, or of the subclass that the values name, from checked values."""
    parser = new_parser()
    if subclass:
        parser.add_subclass_arguments(cls, "it", required=True)
    else:
        parser.add_class_arguments(cls, "it")
    with one_sentence(name):
        return parser.instantiate(parser.parse_object({"it": dict(values)})).it


@contextmanager
def one_sentence(name: str) -> Iterator[None]:
    """Turn jsonargparse's and the constructors' own complaints about values into a UserError.

    A constructor's own UserError, which jsonargparse wraps in what else it tried, is told alone.
    """
    from jsonargparse import ArgumentError

    try:
        yield
    except (ArgumentError, TypeError, ValueError) as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"the config {name!r} cannot be built: {error}") from error
