"""Every command of the command line: its words, its options, its example and what it calls.

One table drives the help, the parsing and the dispatch, and nothing heavy is imported to read it. A command
is a function of its options and of the dotted overrides; it imports what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..tokenizers.errors import UserError
from .command import (
    BESIDE,
    JSON,
    POOL,
    RUN,
    TABLE,
    TRUST,
    Command,
    Option,
    Options,
    Overrides,
    folder,
    head,
    intervals,
    numbers,
    on_run,
    positive,
    share,
    whole,
)
from .commands_speech import SPEECH


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


def _import_weights(options: Options, overrides: Overrides) -> None:
    from .weights.port import import_command

    import_command(**options)


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
        on_run("evaluate:knn", "overrides"),
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
        on_run("evaluate:linear", "overrides"),
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
        on_run("evaluation.finetune:finetune", "overrides"),
        ("model", "data", "trainer"),
    ),
    Command(
        "evaluate segmentation",
        "objects that the heads' attention finds, and a probe on patches",
        (
            RUN,
            Option("masks", "WHERE", "folder of masks, an .npz, or alpha (transparency)", required=True),
            Option("numbers", "WHAT", "what masks number: objects or classes", numbers, "objects"),
            Option("share", "S", "of each head's attention that its mask holds", share, 0.6),
            Option("beside", "RUN", "another run, a supervised one say, measured too"),
            JSON,
            TRUST,
        ),
        "triptych evaluate segmentation --run runs/dino-1 --data.path photos --masks masks",
        on_run("vision.segment:segmentation", "overrides"),
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
        on_run("vision.attend:attend", "overrides", "data_path"),
        ("data",),
    ),
    Command(
        "reconstruct",
        "pictures of what a masked or corrupted image was rebuilt to",
        (
            RUN,
            Option("output", "FILE", "PNG file to write", default="reconstruction.png"),
            Option("count", "N", "images at most", whole, 12),
            TRUST,
        ),
        "triptych reconstruct --run runs/mae-1 --data.path photos",
        on_run("vision.reconstruct:reconstruct", "overrides"),
        ("data",),
    ),
    Command(
        "forecast",
        "forecast a table beyond its last row",
        (
            RUN,
            TABLE,
            Option("horizon", "H", "steps to forecast (default: the model's own)", whole),
            Option(
                "intervals", "KIND", "model, or calibrated on the past: split or online", intervals, "model"
            ),
            Option("output", "FILE", "CSV or Parquet file to write", default="forecast.csv"),
            Option("plot", "FILE", "draw the forecast with its quantiles into this PNG file"),
            JSON,
            TRUST,
        ),
        "triptych forecast --run runs/forecast-1 --data.path sales.csv --horizon 24 --plot forecast.png",
        on_run("series.forecast:forecast_command", "data_path", "overrides"),
        ("data",),
    ),
    Command(
        "backtest",
        "forecast a table's past, beside its baselines",
        (
            RUN,
            TABLE,
            Option("horizon", "H", "steps of each window (default: the model's own)", whole),
            Option("windows", "N", "windows of each series, the last ones", whole, 6),
            Option("step", "S", "rows between windows (default: the horizon)", whole),
            Option("refit", "", "train anew before each window, on the rows before it", switch=True),
            Option("output", "FILE", "write the forecasts, in Nixtla's shape, to this CSV or Parquet file"),
            Option("plot", "FILE", "draw the last window into this PNG file, and NAME-steps.png beside it"),
            JSON,
            TRUST,
        ),
        "triptych backtest --run runs/forecast-1 --data.path sales.csv --horizon 24 --windows 10",
        on_run("series.backtest_command:backtest_command", "data_path", "overrides"),
        ("data",),
    ),
    Command(
        "embed",
        "embeddings of data, one row a sample",
        (
            RUN,
            Option("output", "FILE", "Parquet or CSV file to write", default="embeddings.parquet"),
            Option("layer", "N", "block to read, counted from 1 (default: the last, normalised)", whole),
            POOL,
            JSON,
            TRUST,
        ),
        "triptych embed --run runs/dino-1 --data.path photos --output embeddings.parquet",
        on_run("embed:embed_command", "overrides"),
        ("data",),
    ),
    Command(
        "report",
        "one page of a run: its health, figures, curves and pictures",
        (RUN, Option("output", "FILE", "HTML file to write (default RUN/report.html)"), TRUST),
        "triptych report --run runs/dino-1",
        on_run("report:report"),
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
            Option("size", "N", "pixels a side that positions are resampled to, once and for all", whole),
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
        on_run("weights.port:export_command"),
    ),
    *SPEECH,
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
