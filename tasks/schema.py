"""A merged config held against the classes it names, before anything is built.

The walk goes down the tree with the type hints of the constructors beside it, so that a mistake is reported
with its file, its line and the nearest right name. Single values are judged by jsonargparse, which later
builds the objects.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..tokenizers.errors import UserError, did_you_mean
from .config import dotted
from .trust import TRUSTED, find_class, is_trusted
from .yaml12 import Node

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    Any: "anything",
}
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a constructor: its type, and whether it must be given."""

    hint: Any
    required: bool


@cache
def parameters(cls: type) -> dict[str, Parameter]:
    """The named parameters of a class's constructor."""
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    return {
        name: Parameter(hints.get(name, Any), parameter.default is parameter.empty)
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


@cache
def open_ended(cls: type) -> bool:
    """Whether a constructor takes any further keyword, so that no name can be called unknown."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())


def check(node: Node, hint: Any, path: Path) -> Any:
    """The plain value of `node` as jsonargparse can build it for a parameter of type `hint`.

    Classes that a mapping leaves to the type are named, and what was typed on the command line stays text
    where text is expected.

    Raises:
        UserError: an unknown key, a missing one, a class that is not allowed or not the expected kind, or a
            value of another type; with file and line.
    """
    options = members(hint)
    if isinstance(node.value, dict):
        return check_mapping(node, options, hint, path)
    if isinstance(node.value, list):
        item = next((get_args(option)[:1] for option in options if is_list(option)), ())
        if item:
            return [check(child, item[0], (*path, index)) for index, child in enumerate(node.value)]
    return check_value(node, hint, path)


def check_mapping(node: Node, options: tuple[Any, ...], hint: Any, path: Path) -> Any:
    """A mapping: an object with its class named, an object of the one class that fits, or named entries."""
    classes = [option for option in options if buildable(option)]
    if "class_path" in node.value and (classes or Any in options):
        return check_object(node, tuple(classes), path)
    if len(classes) == 1:
        return check_plain_object(node, classes[0], path)
    entries = next((get_args(option)[1:] for option in options if is_mapping(option)), ())
    if entries:
        return {key: check(child, entries[0], (*path, key)) for key, child in node.value.items()}
    return check_value(node, hint, path)


def check_object(node: Node, expected: tuple[type, ...], path: Path) -> dict[str, Any]:
    """A mapping with `class_path` and `init_args`, of a class that is trusted and expected here."""
    name = node.value["class_path"]
    try:
        cls = find_class(name.value)
    except UserError as error:
        raise UserError(f"{name.origin}: {dotted(path)}: {error}") from error.__cause__
    if expected and not issubclass(cls, expected):
        kinds = " or ".join(kind.__name__ for kind in expected)
        place = f"{name.origin}: expected {dotted(path)}"
        raise UserError(f"{place} to be of class {kinds}, but {name.value} is not")
    if inspect.isabstract(cls):
        raise UserError(f"{name.origin}: {name.value} is a kind of class and not one that can be built")
    arguments = node.value.get("init_args", Node({}, node.origin))
    values = check_arguments(arguments, cls, path, owner=node)
    # A dataclass is built from its fields alone; jsonargparse takes no class_path for one.
    return values if is_dataclass(cls) else {"class_path": name.value, "init_args": values}


def check_plain_object(node: Node, cls: type, path: Path) -> dict[str, Any]:
    """A mapping of the init arguments of the class that the type hint names."""
    values = check_arguments(node, cls, path, owner=node)
    name = f"{cls.__module__}.{cls.__qualname__}"
    return values if is_dataclass(cls) else {"class_path": name, "init_args": values}


def check_arguments(node: Node, cls: type, path: Path, owner: Node) -> dict[str, Any]:
    """The arguments of a class: every name known, every value of its type, nothing missing."""
    if not isinstance(node.value, dict):
        raise UserError(f"{node.origin}: expected the parameters of {dotted(path)}, but got {node.plain()!r}")
    known = parameters(cls)
    values = {}
    for key, child in node.value.items():
        if key in known:
            values[key] = check(child, known[key].hint, (*path, key))
        elif open_ended(cls):
            values[key] = child.plain()
        else:
            hint = did_you_mean(key, known) or f"; {cls.__name__} takes {', '.join(known) or 'no parameters'}"
            raise UserError(f"{child.origin}: unknown key {key!r} in {dotted(path)}{hint}")
    for key, parameter in known.items():
        if parameter.required and key not in values:
            kind = describe(parameter.hint)
            raise UserError(f"{owner.origin}: {dotted(path)} ({cls.__name__}) needs {key!r}: {kind}")
    return values


def check_value(node: Node, hint: Any, path: Path) -> Any:
    """A single value, judged by jsonargparse; text typed on the command line if the type wants text."""
    if fits(node.plain(), hint):
        return node.plain()
    if node.text is not None and fits(node.text, hint):
        return node.text
    place = f"{node.origin}: expected {dotted(path)}"
    raise UserError(f"{place} to be {describe(hint)}, but got {node.plain()!r}")


def fits(value: Any, hint: Any) -> bool:
    """Whether jsonargparse takes `value` for a parameter of type `hint`."""
    from jsonargparse import ArgumentError

    try:
        _judge(hint).parse_object({"values": [value]})
    except (ArgumentError, TypeError):
        return False
    return True


@cache
def _judge(hint: Any) -> Any:
    parser = new_parser()
    parser.add_argument("--values", type=list[hint])  # in a list, for alone a dataclass takes any scalar
    return parser


def new_parser() -> Any:
    """A jsonargparse parser that raises instead of exiting and imports nothing that is not trusted."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=TRUSTED, instantiate_subclass_spec_in_any=False
    )
    return ArgumentParser(exit_on_error=False)


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def buildable(hint: Any) -> bool:
    """Whether a hint is a class that a config builds, rather than a plain value's type."""
    return isinstance(hint, type) and (is_dataclass(hint) or is_trusted(hint.__module__))


def is_mapping(hint: Any) -> bool:
    """Whether a hint is a mapping from names to one type."""
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(hint)) == 2


def is_list(hint: Any) -> bool:
    """Whether a hint is a list, or another sequence of any length, of one type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return len(arguments) == 2 and arguments[1] is Ellipsis
    return origin in (list, Sequence, Iterable)


def describe(hint: Any) -> str:
    """A type in words: `a whole number or null`."""
    if hint in WORDS:
        return WORDS[hint]
    if get_origin(hint) is Literal:
        return " or ".join(repr(value) for value in get_args(hint))
    if len(members(hint)) > 1:
        return " or ".join(describe(member) for member in members(hint))
    if is_list(hint):
        return f"a list, each {describe(get_args(hint)[0])}"
    if get_origin(hint) is tuple:
        return f"a list of {len(get_args(hint))}: {', '.join(describe(item) for item in get_args(hint))}"
    if is_mapping(hint):
        return f"named entries, each {describe(get_args(hint)[1])}"
    if is_dataclass(hint):
        return f"a mapping of {', '.join(field.name for field in fields(hint))}"
    return f"of class {hint.__name__}" if isinstance(hint, type) and not get_args(hint) else str(hint)
