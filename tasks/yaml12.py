"""YAML text with the file and line of every key, and the scalars of YAML 1.2.

PyYAML speaks YAML 1.1, where `no` is false, `1e-3` is text, `2020-01-01` is a date and `010` is eight: traps
for column names, learning rates, dates and speakers. Here only true and false are booleans, `1e-3` is a
number, and dates and numbers with leading zeros stay text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..tokenizers.errors import UserError

SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9]*\.[0-9]+|[0-9]+\.)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)",
        "-+0123456789.",
    ),
}
"""Tag -> (pattern of its plain scalars, the characters they can start with)."""

COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class Origin(NamedTuple):
    """Where a value was written: a file and its line, counted from 1, or the command line."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def prefix(self) -> str:
        """What an error sentence starts with: nothing for the command line."""
        return "" if self.line is None else f"{self}: "


@dataclass(frozen=True)
class Node:
    """A value and its origin. Mappings hold nodes by key, lists hold nodes, everything else is plain.

    `text` is what was typed on the command line, for parameters that want text where YAML reads a number.
    """

    value: Any
    origin: Origin
    text: str | None = None

    def plain(self) -> Any:
        """The value without origins."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of version 1.2."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (PyYAML's own name and type)


class Dumper(yaml.SafeDumper):
    """Writes what Loader reads: text that would read as a number is quoted, and nothing else."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, (_pattern, _first) in SCALARS.items():
    for _class in (Loader, Dumper):
        _regexp = re.compile(f"^(?:{_pattern})$")
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _regexp, ["", *_first])


def dump(values: Any) -> str:
    """YAML text of plain values, keys in their order."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def parse_text(text: str, file: str) -> Node:
    """A YAML text as nodes. Raises UserError with file and line for bad YAML and for a key written twice."""
    loader = Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Node(None, Origin(file, 1))
        return _node(loader, root, file, Origin(file, root.start_mark.line + 1), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        origin = Origin(file, mark.line + 1 if mark else None)
        raise UserError(f"{origin}: not valid YAML, {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: not valid YAML, {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()


def parse_value(value: Any, origin: Origin) -> Node:
    """A value of the command line: text is read as YAML where it can be; other Python values stay."""
    if not isinstance(value, str):
        return _wrap(value, origin)
    try:
        parsed = yaml.load(value, Loader=Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError):
        parsed = value
    quoted = value[:1] in ("'", '"')
    return Node(value, origin) if isinstance(parsed, str) and not quoted else _wrap(parsed, origin, value)


def _wrap(value: Any, origin: Origin, text: str | None = None) -> Node:
    if isinstance(value, dict):
        return Node({str(key): _wrap(item, origin) for key, item in value.items()}, origin, text)
    if isinstance(value, list | tuple):
        return Node([_wrap(item, origin) for item in value], origin, text)
    return Node(str(value) if isinstance(value, Path) else value, origin, text)


def _node(loader: Loader, node: yaml.Node, file: str, origin: Origin, parents: tuple[yaml.Node, ...]) -> Node:
    """PyYAML's node as ours; `parents` guards against an alias that contains itself."""
    if node in parents:
        raise UserError(f"{origin}: this alias contains itself")
    parents = (*parents, node)
    if isinstance(node, yaml.CollectionNode) and node.tag not in COLLECTIONS:
        raise UserError(f"{origin}: not valid YAML, expected no tag such as {node.tag}")
    if isinstance(node, yaml.MappingNode):
        return Node(_mapping(loader, node, file, parents), origin)
    if isinstance(node, yaml.SequenceNode):
        items = [(item, Origin(file, item.start_mark.line + 1)) for item in node.value]
        return Node([_node(loader, item, file, where, parents) for item, where in items], origin)
    return Node(loader.construct_object(node), origin)


def _mapping(
    loader: Loader, node: yaml.MappingNode, file: str, parents: tuple[yaml.Node, ...]
) -> dict[str, Node]:
    result: dict[str, Node] = {}
    for key, child in node.value:
        where = Origin(file, key.start_mark.line + 1)
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{where}: expected a name as a key")
        if key.value in result:
            first = result[key.value].origin.line
            raise UserError(f"{where}: the key {key.value!r} is here twice, first in line {first}")
        result[key.value] = _node(loader, child, file, where, parents)
    return result
