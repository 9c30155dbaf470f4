"""Configs: packaged names, files and command-line overrides, merged into one plain mapping.

jsonargparse cannot address an item of a list, and a second config file drops the entries that the first one
gave to a named mapping. So configs are merged here, before anything is parsed, and each key keeps the file
and line it came from. The rules:

- mappings merge deeply; lists and scalars are replaced by what comes later;
- beside a `class_path`, any other key is an argument of that class and goes to its `init_args`;
- another `class_path` drops the init_args that were meant for the old class;
- `null` removes an entry of a named mapping (objectives, views, tokenizers).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tokenizers.errors import UserError, did_you_mean
from .yaml12 import Node, Origin, dump, parse_text, parse_value

PACKAGED = Path(__file__).parent.parent / "configs"
NAMED = ("objectives", "views", "tokenizers")
"""Mappings whose keys are names that the user chose, so that `null` can take one away."""

SIZES = "sizes"
"""Folder of the packaged sizes of an encoder: parts that go over a recipe, no recipes themselves."""

SECTIONS = ("model", "data", "trainer", "seed")
COMMAND_LINE = Origin("command line")


@dataclass(frozen=True)
class Merged:
    """One merged config: its tree of nodes with their origins, its name, and the header of its file."""

    tree: Node
    name: str
    header: str

    @property
    def values(self) -> dict[str, Any]:
        """The plain mapping: dicts, lists, strings, numbers, booleans and None."""
        return self.tree.plain()

    def yaml(self) -> str:
        """The merged mapping as YAML text, which merges to itself again."""
        return dump(self.values)


def merge(configs: Sequence[str | Path], overrides: Mapping[str, Any] | None = None) -> Merged:
    """Merge configs, later ones over earlier ones, and dotted overrides over all of them.

    Args:
        configs: packaged names (`vision/dino`) or YAML files; what they extend comes before them, once.
        overrides: dotted key -> value, as `{"model.objectives.dino.weight": "2"}`; text is parsed as YAML.

    Raises:
        UserError: a file is missing, is not valid YAML, extends itself, or removes what is not there.
    """
    files: dict[Path, Node] = {}
    for config in configs:
        _load(find(str(config), Path(), COMMAND_LINE), files, ())
    tree = Node({}, COMMAND_LINE)
    for node in files.values():
        tree = _merge(tree, node, ())
    for node in override_nodes(overrides or {}):
        tree = _merge(tree, node, ())
    _check_sections(tree)
    recipes = [file for file in files if not is_size(file)]
    last = next(reversed(recipes or files), Path("run"))
    return Merged(tree, last.stem, header(last) if files else "")


def packaged() -> dict[str, Path]:
    """Names of the packaged recipes and their files, in alphabetical order."""
    return {name: path for name, path in _shipped().items() if not is_size(path)}


def sizes() -> dict[str, Path]:
    """Names of the packaged sizes and their files, `sizes/S` and the like."""
    return {name: path for name, path in _shipped().items() if is_size(path)}


def is_size(path: Path) -> bool:
    """Whether a file is one of the packaged sizes."""
    return path.resolve().is_relative_to((PACKAGED / SIZES).resolve())


def _shipped() -> dict[str, Path]:
    paths = sorted(PACKAGED.rglob("*.yaml"))
    return {path.relative_to(PACKAGED).with_suffix("").as_posix(): path for path in paths}


def header(path: Path) -> str:
    """The comment lines at the top of a config, without their `#`."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return "\n".join(lines)


def find(name: str, folder: Path, origin: Origin) -> Path:
    """The file of a packaged name, or of a path relative to `folder`. Raises UserError naming the nearest."""
    names = _shipped()
    if name in names:
        return names[name]
    path = folder / Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{origin.prefix}expected a config file or a packaged name, but {name!r} is a folder")
    hint = did_you_mean(name, names) or "; `triptych configs` lists the packaged ones"
    raise UserError(f"{origin.prefix}no packaged config and no file is called {name!r}{hint}")


def override_nodes(overrides: Mapping[str, Any]) -> Iterator[Node]:
    """One small tree for each dotted override, classes first so that their arguments find them."""
    for key in sorted(overrides, key=lambda key: not key.endswith(".class_path")):
        parts = key.split(".")
        if not all(parts):
            raise UserError(f"expected dotted names such as 'trainer.max_epochs', but got {key!r}")
        node = parse_value(overrides[key], COMMAND_LINE)
        for part in reversed(parts):
            node = Node({part: node}, COMMAND_LINE)
        yield node


def _load(path: Path, files: dict[Path, Node], chain: tuple[Path, ...]) -> None:
    """Read a config after what it extends; each file counts once, where it was first asked for."""
    path = path.resolve()
    if path in chain:
        circle = " -> ".join(shown(file) for file in (*chain[chain.index(path) :], path))
        raise UserError(f"a config extends itself: {circle}")
    if path in files:
        return
    node = read(path)
    extends = node.value.pop("extends", None)
    if extends is not None:
        for parent in extends.value if isinstance(extends.value, list) else [extends]:
            if not isinstance(parent.value, str):
                got = parent.plain()
                raise UserError(f"{parent.origin}: expected `extends` to name configs, but got {got!r}")
            _load(find(parent.value, path.parent, parent.origin), files, (*chain, path))
    files[path] = node


def read(path: Path) -> Node:
    """One config file as a tree of nodes. Raises UserError unless it is a YAML mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the config {shown(path)}: {error}") from None
    node = parse_text(text, shown(path))
    if node.value is None:
        return Node({}, node.origin)
    if not isinstance(node.value, dict):
        sections = ", ".join(SECTIONS)
        raise UserError(f"{node.origin}: expected a mapping with {sections}, but got {node.plain()!r}")
    return node


def shown(path: Path) -> str:
    """A path as a person knows it: packaged, or relative to where the command runs, or in full."""
    for base, prefix in ((PACKAGED, "configs/"), (Path.cwd(), "")):
        if path.is_relative_to(base):
            return prefix + path.relative_to(base).as_posix()
    return str(path)


def _merge(base: Node, new: Node, path: tuple[str, ...]) -> Node:
    """`new` over `base`, by the rules in this file's docstring."""
    if not isinstance(new.value, dict):
        return new
    if not isinstance(base.value, dict):
        base = Node({}, new.origin)
    old_class, new_class = base.value.get("class_path"), new.value.get("class_path")
    if new_class and (old_class is None or old_class.value != new_class.value):
        base = Node({}, base.origin)
    if old_class or new_class:
        new = _gather(new)
    result = dict(base.value)
    for key, node in new.value.items():
        if path and path[-1] in NAMED and node.value is None:
            _remove(result, key, node, path)
        else:
            result[key] = _merge(result.get(key, Node(None, node.origin)), node, (*path, key))
    return Node(result, base.origin if base.value else new.origin)


def _gather(node: Node) -> Node:
    """Move the keys that stand beside `class_path` into `init_args`."""
    result = {key: node.value[key] for key in ("class_path", "init_args") if key in node.value}
    loose = {key: child for key, child in node.value.items() if key not in result}
    if loose:
        given = result.get("init_args", Node({}, next(iter(loose.values())).origin))
        result["init_args"] = Node({**(given.value or {}), **loose}, given.origin)
    return Node(result, node.origin)


def _remove(entries: dict[str, Node], key: str, node: Node, path: tuple[str, ...]) -> None:
    if key not in entries:
        known = ", ".join(entries) or "none"
        place = dotted(path)
        raise UserError(f"{node.origin}: nothing called {key!r} to remove from {place}, which has {known}")
    del entries[key]


def dotted(path: Iterable[str | int]) -> str:
    """A path as a person writes it, without `init_args`."""
    return ".".join(str(part) for part in path if part != "init_args")


def _check_sections(tree: Node) -> None:
    for key, node in tree.value.items():
        if key not in SECTIONS:
            hint = did_you_mean(key, SECTIONS) or f"; expected one of {', '.join(SECTIONS)}"
            raise UserError(f"{node.origin}: unknown key {key!r}{hint}")
        if key != "seed" and not isinstance(node.value, dict):
            raise UserError(f"{node.origin}: expected {key!r} to be a mapping, but got {node.plain()!r}")
