"""All that Lightning trains with, from one merged config: learner, data module and trainer."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

from .build import data_arguments, one_sentence, section, seed
from .config import Merged
from .schema import check_arguments, new_parser
from .yaml12 import Node

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI

ADVERTISING = (
    "litlogger",
    "litmodels",
    "TPU available",
    "GPU available",
    "Seed set",
    "`Trainer.fit` stopped",
)
NEEDLESS = (
    ".*LightningCLI's args parameter is intended to run from within Python.*",  # it does
    ".*does not have many workers.*",  # a small run is fastest with none, and the config decides
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*directory .* exists and is not empty.*",  # the run directory was asked for
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning's own use of torch
    ".*GPU available but not used.*",  # the trainer's section of the config decides
    ".*dirpath has changed from.*",  # a run may be moved and gone on with
    ".*in eval mode at the start of training.*",  # teachers are, by design
    ".*You are using a custom batch sampler.*for prediction.*",  # it gives every sample
)


def training_arguments(config: Merged) -> dict[str, Any]:
    """The config as LightningCLI's arguments, every key and value checked.

    Raises:
        UserError: with file and line, for what the learner, the data module or the trainer does not take.
    """
    from lightning.pytorch import Trainer

    from .learner import Learner

    model = section(config, "model")
    trainer = config.tree.value.get("trainer", Node({}, config.tree.origin))
    return {
        "model": check_arguments(model, Learner, ("model",), owner=model),
        "data": data_arguments(config),
        "trainer": check_arguments(trainer, Trainer, ("trainer",), owner=trainer),
        "seed_everything": seed(config),
    }


def build_training(config: Merged, **trainer: Any) -> LightningCLI:
    """Learner, data module and trainer of a config, as `.model`, `.datamodule` and `.trainer`; nothing runs.

    Args:
        config: merged; its `trainer` section wins over `trainer`.
        trainer: arguments of the trainer that a command gives; its callbacks are added to the config's.
    """
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningCLI

    from .data import Data
    from .learner import Learner

    quiet_lightning()
    arguments = training_arguments(config)
    new_parser()  # what may be imported holds for LightningCLI's own parser too
    callbacks = trainer.pop("callbacks", [])
    trainer["use_distributed_sampler"] = False  # the samplers share out the work themselves
    missing = {key: value for key, value in trainer.items() if key not in arguments["trainer"]}

    class Training(LightningCLI):
        """Takes the command's arguments as objects; LightningCLI's own defaults must be plain."""

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            return super().instantiate_trainer(**missing, **kwargs)

    with one_sentence(config.name):
        return Training(
            Learner,
            Data,
            args=arguments,
            run=False,
            subclass_mode_data=True,
            save_config_callback=None,
            trainer_defaults={"callbacks": callbacks},
            parser_kwargs={"exit_on_error": False},
        )


def quiet_lightning() -> None:
    """Drop Lightning's advertisements and its warnings about what a config decided on purpose."""

    def wanted(record: logging.LogRecord) -> bool:
        return not any(word in record.getMessage() for word in ADVERTISING)

    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").addFilter(wanted)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    for message in NEEDLESS:
        warnings.filterwarnings("ignore", message)
