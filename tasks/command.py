"""What a command of the command line is made of: options, their kinds, and those that many commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..tokenizers.errors import UserError, did_you_mean

Options = dict[str, Any]
Overrides = Mapping[str, str]


@dataclass(frozen=True)
class Option:
    """One option: `--name METAVAR`, or a word without dashes where `positional`."""

    name: str
    metavar: str
    help: str
    kind: Callable[[str], Any] = str
    default: Any = None
    required: bool = False
    repeat: bool = False
    positional: bool = False
    switch: bool = False
    """Whether its bare presence means True."""

    @property
    def flag(self) -> str:
        """As it is typed."""
        return self.metavar if self.positional else f"--{self.name}"

    @property
    def key(self) -> str:
        """Its name in the parsed options."""
        return self.name.replace(".", "_").replace("-", "_")


@dataclass(frozen=True)
class Command:
    """One command, as its help shows it and as it runs."""

    name: str
    summary: str
    options: tuple[Option, ...]
    example: str
    run: Callable[[Options, Overrides], None]
    sections: tuple[str, ...] = ()
    """The sections of the config whose keys it takes as dotted options."""


def folder(run: str) -> str:
    """`run`, once it is a folder with a config. Raises UserError naming the nearest run beside it."""
    path = Path(run)
    if (path / "config.yaml").is_file():
        return run
    if path.exists():
        raise UserError(f"expected a run directory, but {run!r} has no config.yaml")
    beside = [str(config.parent) for config in path.parent.glob("*/config.yaml")]
    raise UserError(f"no run directory {run!r}{did_you_mean(run, beside)}")


def on_run(target: str, *given: str) -> Callable[[Options, Overrides], None]:
    """A command that is one function of a run, imported when it is called.

    Args:
        target: `MODULE:FUNCTION`, from this folder.
        given: what it takes after the run, in this order: keys of options, or `overrides`; all other
            options go by their names.
    """
    module, _, function = target.partition(":")

    def run(options: Options, overrides: Overrides) -> None:
        directory = folder(options.pop("run"))
        values = [overrides if key == "overrides" else options.pop(key) for key in given]
        getattr(import_module(f".{module}", __package__), function)(directory, *values, **options)

    return run


def whole(text: str) -> int:
    """A whole number, at least 1. Raises ValueError otherwise."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def positive(text: str) -> float:
    """A number above zero. Raises ValueError otherwise."""
    if not 0 < float(text) < float("inf"):
        raise ValueError(text)
    return float(text)


def share(text: str) -> float:
    """A number above 0 and below 1. Raises ValueError otherwise."""
    if not 0 < float(text) < 1:
        raise ValueError(text)
    return float(text)


def head(text: str) -> str:
    """A kind of classifier. Raises ValueError for a word that names none."""
    if text not in ("linear", "nonlinear"):
        raise ValueError(text)
    return text


def numbers(text: str) -> str:
    """What masks number. Raises ValueError for a word that names nothing."""
    if text not in ("objects", "classes"):
        raise ValueError(text)
    return text


def intervals(text: str) -> str:
    """Whose intervals a forecast has. Raises ValueError for a word that names none."""
    if text not in ("model", "split", "online"):
        raise ValueError(text)
    return text


def mfcc(text: str) -> str:
    """The one kind of features that needs no run. Raises ValueError for any other word."""
    if text != "mfcc":
        raise ValueError(text)
    return text


EXPECTED: dict[Callable[[str], Any], str] = {
    whole: "a whole number of at least 1",
    positive: "a number above 0",
    share: "a number between 0 and 1",
    mfcc: "mfcc",
    head: "linear or nonlinear",
    numbers: "objects or classes",
    intervals: "model, split or online",
}
"""What an option's kind accepts, for its error sentence."""

RUN = Option("run", "RUN", "run directory, as `fit` writes it", required=True)
JSON = Option("json", "FILE", "write the figures, as JSON, to this file too")
TRUST = Option("trust", "PACKAGE", "let configs name classes of this package too", repeat=True)
POOL = Option("pool", "WAY", "tokens to one vector: class, mean, class+mean, or auto", default="auto")
BESIDE = Option("beside", "RUN", "a run trained from scratch with labels: a row for its own head")
AUDIO = Option(
    "data.path", "AUDIO", "audio files, folders or manifests (default: the run's test part)", repeat=True
)
TABLE = Option("data.path", "FILE", "table of series, CSV or Parquet (default: the run's own)")
SECTIONS = {
    "model": Option("model.KEY", "VALUE", "change the model, as in --model.objectives.dino.weight 2"),
    "data": Option("data.KEY", "VALUE", "other data, or parameters of it, as in --data.path DIR"),
    "trainer": Option("trainer.KEY", "VALUE", "change the training, as in --trainer.max_epochs 5"),
    "seed": Option("seed", "N", "of everything random (default 0)"),
}
"""How the help shows the dotted options of each section of a config."""
