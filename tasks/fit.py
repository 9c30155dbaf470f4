"""`triptych fit`, and Lightning's other stages on a finished run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..tokenizers.errors import UserError
from .config import Merged, merge
from .data import Data
from .fitting import build_training
from .model import Model
from .run import load_weights, read_description, save, update_json

LOG = logging.getLogger("triptych")
#: In a run's directory, what `--resume` goes on from.
CHECKPOINT = Path("checkpoints", "last.ckpt")


def fit(
    config: Merged | str | Path, output: str | None = None, resume: str | None = None, init: str | None = None
) -> Path:
    """Train into a run directory and return it.

    Args:
        config: a merged config, or the name or file of one.
        output: the directory; `runs/NAME-N` unless given.
        resume: go on in this run directory, from its last finished epoch.
        init: take the weights of this run, and nothing else of it.

    Raises:
        UserError: the directory holds a run already, or the run to resume has no checkpoint.
    """
    if not isinstance(config, Merged):
        config = merge([config])
    checkpoint = None if resume is None else _checkpoint_of(Path(resume))
    directory = Path(resume) if resume is not None else _new_directory(config.name, output)
    cli = build_training(config, **_trainer_defaults(directory))
    directory.mkdir(parents=True, exist_ok=True)
    _keep_metrics(directory)
    (directory / "config.yaml").write_text(config.yaml(), encoding="utf-8")
    with _logged(directory / "log.txt"):
        _train(cli, config, directory, checkpoint, init)
    return directory


def _train(cli: Any, config: Merged, directory: Path, checkpoint: Path | None, init: str | None) -> None:
    learner, data, trainer = cli.model, cli.datamodule, cli.trainer
    _introduce(learner.model, data)
    data.prepare_data()
    if init is not None:
        data.inherit(read_description(Path(init))["spec"]["data"])
    data.setup("fit")
    learner.model.build(data.views(), data.facts())
    if checkpoint is None:
        data.begin(learner.model)
        learner.model.sync_teacher()
    if init is not None:
        LOG.info(load_weights(learner.model, Path(init)))
        if read_description(Path(init))["model"].get("teacher") is None:
            learner.model.sync_teacher()
    trained = sum(p.numel() for p in learner.model.parameters() if p.requires_grad)
    LOG.info(f"{config.name}: {trained:,} parameters to train, into {directory}")
    began = time.monotonic()
    try:
        trainer.fit(learner, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint))
    except SystemExit:  # what Lightning makes of Ctrl-C
        if (directory / CHECKPOINT).is_file():
            LOG.info(f"interrupted: `triptych fit --resume {directory}` goes on from the last finished epoch")
        raise
    seconds = time.monotonic() - began
    save(learner.model, config.values, directory)
    figures = {name: float(figure) for name, figure in sorted(trainer.callback_metrics.items())}
    update_json(directory / "metrics.json", {"fit": {"seconds": round(seconds, 1), **figures}})
    shown = ", ".join(f"{name} {figures[name]:.4g}" for name in figures if name.startswith("val/"))
    LOG.info(f"trained in {seconds:.0f} s{': ' + shown if shown else ''}; the run is in {directory}")


def _introduce(model: Model, data: Data) -> None:
    """Tell data, before they are set up, what reads them."""
    data.attach(dict(model.tokenizers.items()))  # type: ignore[arg-type]
    if all(objective.needs_labels for _, objective in model.objective):
        data.supervise()


def run_stage(stage: str, run: str, overrides: Mapping[str, Any], output: str | None = None) -> None:
    """`validate`, `test` or `predict` on a finished run.

    Args:
        stage: which of the three.
        run: the run directory.
        overrides: dotted changes of the run's config, such as other data.
        output: where `predict` writes: a CSV of classes, or an `.npz` of arrays.
    """
    directory = Path(run)
    description = read_description(directory)
    config = merge([directory / "config.yaml"], overrides)
    cli = build_training(config, logger=False, enable_checkpointing=False, enable_model_summary=False)
    cli.model.model.build(description["spec"]["views"], description["spec"]["data"])
    _introduce(cli.model.model, cli.datamodule)
    cli.datamodule.follow(description["spec"]["data"])
    load_weights(cli.model.model, directory)
    if stage == "predict":
        from .predict import write_predictions

        said = cli.trainer.predict(cli.model, datamodule=cli.datamodule) or []
        write_predictions(said, cli.datamodule.chosen(), cli.model.model, output)
        return
    (figures,) = getattr(cli.trainer, stage)(cli.model, datamodule=cli.datamodule, verbose=True)
    update_json(directory / "metrics.json", {stage: figures})


def _trainer_defaults(directory: Path) -> dict[str, Any]:
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    from .fit_checkpoint import AtomicCheckpointIO
    from .fit_watch import Health

    return {
        "default_root_dir": str(directory),
        "callbacks": [
            ModelCheckpoint(
                directory / CHECKPOINT.parent,
                CHECKPOINT.stem,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
            Health(),
        ],
        "logger": CSVLogger(directory, name=None, version=""),
        "plugins": [AtomicCheckpointIO()],
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
    }


def _keep_metrics(directory: Path) -> None:
    """Set the figures logged before a resume aside as `metrics-N.csv`: the logger starts a new file."""
    logged = directory / "metrics.csv"
    if logged.is_file():
        number = 1
        while (kept := directory / f"metrics-{number}.csv").exists():
            number += 1
        logged.rename(kept)


def _new_directory(name: str, output: str | None) -> Path:
    if output is None:
        number = 1
        while (directory := Path("runs") / f"{name}-{number}").exists():
            number += 1
        return directory
    directory = Path(output)
    if (directory / "checkpoints").exists() or (directory / "model.safetensors").exists():
        raise UserError(
            f"{output!r} holds a run already; name another --output, or go on with --resume {output}"
        )
    if directory.exists() and not directory.is_dir():
        raise UserError(f"expected --output to name a folder, but {output!r} is a file")
    return directory


def _checkpoint_of(run: Path) -> Path:
    path = run / CHECKPOINT
    if not path.is_file():
        raise UserError(
            f"expected --resume to name a run with checkpoints/last.ckpt, but {str(run)!r} has none"
        )
    return path


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send the package's log to the terminal and to the run's `log.txt` meanwhile."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers = (file, logging.StreamHandler())
    LOG.setLevel(logging.INFO)
    for handler in handlers:
        LOG.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOG.removeHandler(handler)
            handler.close()
