"""Every command of the command line: its words, its options, its example and what it calls.

One table drives the help, the parsing and the dispatch, and nothing heavy is imported to read it. A command
is a function of its options and of the dotted overrides; it imports what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


def _fit(options: Options, overrides: Overrides) -> None:
    configs = options["config"]
    if not configs:
        if options["resume"] is None:
            raise UserError("`triptych fit` needs --config NAME; `triptych configs` lists the packaged ones")
        configs = (Path(folder(options["resume"])) / "config.yaml",)
    from .config import merge

    config = merge(configs, overrides)
    from .fit import fit

    fit(config, output=options["output"], resume=options["resume"], init=options["init"])


def _stage(stage: str) -> Callable[[Options, Overrides], None]:
    def run(options: Options, overrides: Overrides) -> None:
        run = folder(options.pop("run"))
        from .fit import run_stage

        run_stage(stage, run, overrides, **options)

    return run


def _knn(options: Options, overrides: Overrides) -> None:
    run = folder(options.pop("run"))
    from .evaluate import knn

    knn(run, overrides, **options)


def _linear(options: Options, overrides: Overrides) -> None:
    run = folder(options.pop("run"))
    from .evaluate import linear

    linear(run, overrides, **options)


def _finetune(options: Options, overrides: Overrides) -> None:
    run = folder(options.pop("run"))
    from .evaluation.finetune import finetune

    finetune(run, overrides, **options)


def _segmentation(options: Options, overrides: Overrides) -> None:
    run = folder(options.pop("run"))
    from .vision.segment import segmentation

    segmentation(run, overrides, **options)


def _attend(options: Options, overrides: Overrides) -> None:
    run, paths = folder(options.pop("run")), options.pop("data_path")
    from .vision.attend import attend

    attend(run, overrides, paths, **options)


def _forecast(options: Options, overrides: Overrides) -> None:
    run, path = folder(options.pop("run")), options.pop("data_path")
    from .series.forecast import forecast_command

    forecast_command(run, path, **options)


def _backtest(options: Options, overrides: Overrides) -> None:
    run, path = folder(options.pop("run")), options.pop("data_path")
    from .series.backtest_command import backtest_command

    backtest_command(run, path, **options)


def _embed(options: Options, overrides: Overrides) -> None:
    run = folder(options.pop("run"))
    from .embed import embed_command

    embed_command(run, overrides, **options)


def _manifest(options: Options, overrides: Overrides) -> None:
    roots = options.pop("roots")
    from .speech.check import manifest_command

    manifest_command(roots, **options)


def _import_weights(options: Options, overrides: Overrides) -> None:
    from .weights.port import import_command

    import_command(**options)


def _export_weights(options: Options, overrides: Overrides) -> None:
    run = folder(options.pop("run"))
    from .weights.port import export_command

    export_command(run, **options)


def _configs(options: Options, overrides: Overrides) -> None:
    from .listing import list_configs, show_config

    if options["name"]:
        show_config(options["name"])
    else:
        list_configs()


def _doctor(options: Options, overrides: Overrides) -> None:
    from .doctor import doctor

    doctor()


def _demo(options: Options, overrides: Overrides) -> None:
    from .demo import demo

    demo(options["output"])


def folder(run: str) -> str:
    """`run`, once it is a folder with a config. Raises UserError naming the nearest run beside it."""
    path = Path(run)
    if (path / "config.yaml").is_file():
        return run
    if path.exists():
        raise UserError(f"expected a run directory, but {run!r} has no config.yaml")
    beside = [str(config.parent) for config in path.parent.glob("*/config.yaml")]
    raise UserError(f"no run directory {run!r}{did_you_mean(run, beside)}")


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


EXPECTED: dict[Callable[[str], Any], str] = {
    whole: "a whole number of at least 1",
    positive: "a number above 0",
    head: "linear or nonlinear",
    numbers: "objects or classes",
}
"""What an option's kind accepts, for its error sentence."""

RUN = Option("run", "RUN", "run directory, as `fit` writes it", required=True)
JSON = Option("json", "FILE", "write the figures, as JSON, to this file too")
TRUST = Option("trust", "PACKAGE", "let configs name classes of this package too", repeat=True)
POOL = Option("pool", "WAY", "tokens to one vector: class, mean, class+mean, or auto", default="auto")
BESIDE = Option("beside", "RUN", "a run trained from scratch with labels: a row for its own head")
SECTIONS = {
    "model": Option("model.KEY", "VALUE", "change the model, as in --model.objectives.dino.weight 2"),
    "data": Option("data.KEY", "VALUE", "other data, or parameters of it, as in --data.path DIR"),
    "trainer": Option("trainer.KEY", "VALUE", "change the training, as in --trainer.max_epochs 5"),
    "seed": Option("seed", "N", "of everything random (default 0)"),
}
"""How the help shows the dotted options of each section of a config."""

COMMANDS = (
    Command(
        "fit",
        "train a model from a config into a run directory",
        (
            Option("config", "NAME", "packaged config or YAML file; later ones override", repeat=True),
            Option("output", "RUN", "run directory to write (default runs/NAME-N)"),
            Option("resume", "RUN", "go on exactly where this run stopped"),
            Option("init", "RUN", "start from the weights of this run, and nothing else of it"),
            TRUST,
        ),
        "triptych fit --config vision/dino --data.path photos --trainer.max_epochs 5",
        _fit,
        ("model", "data", "trainer", "seed"),
    ),
    Command(
        "validate",
        "the losses and metrics of a run on its validation data",
        (RUN, TRUST),
        "triptych validate --run runs/dino-1",
        _stage("validate"),
        ("data", "trainer"),
    ),
    Command(
        "test",
        "the losses and metrics of a run on its test data",
        (RUN, TRUST),
        "triptych test --run runs/vit-1 --data.path photos",
        _stage("test"),
        ("data", "trainer"),
    ),
    Command(
        "predict",
        "what the heads of a run say about data",
        (
            RUN,
            Option("output", "FILE", "where to write (default predictions.csv, or .npz for arrays)"),
            TRUST,
        ),
        "triptych predict --run runs/vit-1 --data.path photos",
        _stage("predict"),
        ("data", "trainer"),
    ),
    Command(
        "evaluate knn",
        "nearest neighbours on frozen embeddings",
        (
            RUN,
            Option("k", "N", "neighbours that vote", whole, 20),
            Option("temperature", "T", "of the votes: exp(similarity / T)", positive, 0.07),
            POOL,
            BESIDE,
            JSON,
            TRUST,
        ),
        "triptych evaluate knn --run runs/dino-1",
        _knn,
        ("data",),
    ),
    Command(
        "evaluate linear",
        "classifiers on frozen embeddings, all learning rates at once",
        (
            RUN,
            Option("head", "KIND", "linear, or nonlinear (a hidden layer of 1,024 and tanh)", head, "linear"),
            Option("pool", "WAY", "as for knn; commas give each its head (default: class, class+mean)"),
            Option("blocks", "N", "last blocks read side by side (default: tries 1 and 4)", whole),
            Option("epochs", "N", "passes over the train part", whole, 100),
            Option("seeds", "N", "heads trained anew so often", whole, 3),
            BESIDE,
            JSON,
            TRUST,
        ),
        "triptych evaluate linear --run runs/wav2vec2-1 --data.path recordings.csv",
        _linear,
        ("data",),
    ),
    Command(
        "evaluate finetune",
        "a run trained on with labels, beside the same from scratch",
        (
            RUN,
            Option("config", "NAME", "the recipe (default vision/finetune)"),
            Option("seeds", "N", "trainings of either kind", whole, 3),
            Option("output", "DIR", "folder for the trained runs (default RUN/finetune-N)"),
            JSON,
            TRUST,
        ),
        "triptych evaluate finetune --run runs/dino-1 --data.path photos --model.optimizer.layer_decay 0.65",
        _finetune,
        ("model", "data", "trainer"),
    ),
    Command(
        "evaluate segmentation",
        "objects that the heads' attention finds, and a probe on patches",
        (
            RUN,
            Option("masks", "WHERE", "folder of masks, an .npz, or alpha (transparency)", required=True),
            Option("numbers", "WHAT", "what masks number: objects or classes", numbers, "objects"),
            Option("share", "S", "of each head's attention that its mask holds", positive, 0.6),
            Option("beside", "RUN", "another run, a supervised one say, measured too"),
            JSON,
            TRUST,
        ),
        "triptych evaluate segmentation --run runs/dino-1 --data.path photos --masks masks",
        _segmentation,
        ("data",),
    ),
    Command(
        "attend",
        "pictures of where the class token looks, head by head",
        (
            RUN,
            Option("data.path", "PATH", "image files, or one folder or table", repeat=True),
            Option("output", "DIR", "folder for the pictures", default="attention"),
            Option("layer", "N", "block, counted from 1 (default: the last)", whole),
            Option("count", "N", "images at most", whole, 12),
            TRUST,
        ),
        "triptych attend --run runs/dino-1 --data.path cat.jpg --data.path dog.jpg --data.size 480",
        _attend,
        ("data",),
    ),
    Command(
        "forecast",
        "forecast a table beyond its last row",
        (
            RUN,
            Option("data.path", "FILE", "table of series, CSV or Parquet", required=True),
            Option("horizon", "H", "steps to forecast (default: the model's own)", whole),
            Option("output", "FILE", "CSV file to write", default="forecast.csv"),
            Option("plot", "FILE", "draw the forecast with its quantiles into this PNG file"),
            JSON,
            TRUST,
        ),
        "triptych forecast --run runs/forecast-1 --data.path sales.csv --horizon 24 --plot forecast.png",
        _forecast,
    ),
    Command(
        "backtest",
        "forecast a table's past, beside its baselines",
        (
            RUN,
            Option("data.path", "FILE", "table of series, CSV or Parquet", required=True),
            Option("horizon", "H", "steps of each window (default: the model's own)", whole),
            Option("windows", "N", "windows of each series, the last ones", whole, 5),
            Option("step", "S", "rows between windows (default: the horizon)", whole),
            Option("refit", "", "train anew before each window, on the rows before it", switch=True),
            Option("output", "FILE", "write the forecasts, in Nixtla's shape, to this CSV or Parquet file"),
            Option("plot", "FILE", "draw the last window into this PNG file, and NAME-steps.png beside it"),
            JSON,
            TRUST,
        ),
        "triptych backtest --run runs/forecast-1 --data.path sales.csv --horizon 24 --windows 10",
        _backtest,
    ),
    Command(
        "embed",
        "embeddings of data, one row a sample",
        (
            RUN,
            Option("output", "FILE", "Parquet file to write", default="embeddings.parquet"),
            Option("layer", "N", "block to read, counted from 1 (default: the last, normalised)", whole),
            POOL,
            JSON,
            TRUST,
        ),
        "triptych embed --run runs/dino-1 --data.path photos --output embeddings.parquet",
        _embed,
        ("data",),
    ),
    Command(
        "manifest",
        "list the audio files of folders, with their durations, after a check of each",
        (
            Option(
                "roots", "DIR", "folder of audio, or a manifest", positional=True, repeat=True, required=True
            ),
            Option("output", "FILE", "CSV, TSV, JSONL or Parquet file to write", default="manifest.csv"),
            JSON,
        ),
        "triptych manifest recordings more/recordings --output manifest.csv",
        _manifest,
    ),
    Command(
        "weights import",
        "make a run of published weights",
        (
            Option(
                "source",
                "SOURCE",
                "file, folder with config.json, timm:NAME or hf:NAME",
                positional=True,
                required=True,
            ),
            Option("output", "RUN", "run directory to write", required=True),
            Option("family", "NAME", "whose names the weights bear (default: found by the names)"),
            Option("part", "NAME", "of a checkpoint with several: teacher or student (default: the teacher)"),
            Option("heads", "N", "of attention, where nothing says it", whole),
            JSON,
        ),
        "triptych weights import dinov2_vits14_pretrain.pth --output runs/dinov2",
        _import_weights,
    ),
    Command(
        "weights export",
        "write a run's weights under another project's names",
        (
            RUN,
            Option("format", "NAME", "family to write: timm, dino, dinov2, hf-image ...", required=True),
            Option("output", "FILE", "safetensors file to write", required=True),
        ),
        "triptych weights export --run runs/dino-1 --format timm --output dino.safetensors",
        _export_weights,
    ),
    Command(
        "configs",
        "list the packaged configs, or print one with all that it extends",
        (Option("name", "NAME", "packaged config or YAML file to print", positional=True),),
        "triptych configs vision/dino > mine.yaml",
        _configs,
    ),
    Command("doctor", "what this machine can do", (), "triptych doctor", _doctor),
    Command(
        "demo",
        "train and show all three panels on the shipped samples",
        (Option("output", "DIR", "folder for the runs and the page (default: runs/demo-N)"),),
        "triptych demo",
        _demo,
    ),
)
