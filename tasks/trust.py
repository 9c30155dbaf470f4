"""Which packages a config may name classes of, and finding those classes.

A `class_path` imports a module before anything can be checked about it, so a config from elsewhere could run
any code on the path. Only the packages below are imported for a config, and those that the person at the
command line trusts: a config cannot trust anything itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from ..tokenizers.errors import UserError, did_you_mean

TRUSTED = ["triptych", "lightning.pytorch", "torch.optim", "torch.nn"]


def trust(packages: Iterable[str]) -> None:
    """Let configs name classes of these packages too. Raises UserError for what is no package name."""
    for package in packages:
        if not all(part.isidentifier() for part in package.split(".")):
            raise UserError(f"expected --trust to name a package such as my_package, but got {package!r}")
        TRUSTED.append(package)


def is_trusted(path: str) -> bool:
    """Whether a dotted path lies inside a trusted package."""
    return any(path == package or path.startswith(f"{package}.") for package in TRUSTED)


def find_class(path: object) -> type:
    """The class that a `class_path` names, imported only if it is trusted.

    Raises:
        UserError: the path is no dotted name, is not trusted, or names no class.
    """
    if not isinstance(path, str) or "." not in path:
        example = "triptych.backbones.encoder.Encoder"
        raise UserError(f"expected class_path to be a dotted name such as {example}, but got {path!r}")
    if not is_trusted(path):
        package = path.split(".")[0]
        raise UserError(f"the class {path!r} is not from {_listed()}; if you trust it, add --trust {package}")
    module_name, _, name = path.rpartition(".")
    found = getattr(_import(module_name, path), name, None)
    if not inspect.isclass(found):
        hint = did_you_mean(name, _classes(import_module(module_name)))
        raise UserError(f"{module_name} has no class {name!r}{hint}")
    if not is_trusted(found.__module__):
        real = f"{found.__module__}.{found.__qualname__}"
        raise UserError(f"the class {path!r} is really {real}, not from {_listed()}")
    return found


def _import(name: str, path: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if not (name == missing or name.startswith(f"{missing}.")):
            needed = f"the class {path!r} needs the package {missing!r}"
            raise UserError(f"{needed}, which is not installed") from error
    parent, _, last = missing.rpartition(".")
    raise UserError(f"no module {missing!r} for the class {path!r}{did_you_mean(last, _modules(parent))}")


def _modules(parent: str) -> list[str]:
    """Names of the modules in a package; its folder is read, nothing is imported but the package."""
    return [module.name for module in iter_modules(import_module(parent).__path__)] if parent else []


def _classes(module: ModuleType) -> list[str]:
    return [name for name, _ in inspect.getmembers(module, inspect.isclass)]


def _listed() -> str:
    return f"{', '.join(TRUSTED[:-1])} or {TRUSTED[-1]}"
