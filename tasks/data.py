"""What all data modules share: order and randomness from (seed, epoch, sample), and the loaders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from ..objectives.gather import rank, ranks
from ..tokenizers.errors import UserError
from ..tokenizers.tokenizer import Tokenizer
from ..tokenizers.view import Batch
from .window import Counts, Windows

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from .model import Model

Split = Literal["train", "val", "test"]
#: In the order in which commands read them.
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Item = TypeVar("Item")

#: The view that `plain` loaders give: no augmentation, no corruption, nothing masked.
PLAIN = "plain"


def no_counts(batch: Batch) -> Mapping[str, float]:
    """No term's count is known beforehand."""
    return {}


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a key such as (seed, epoch, sample, view), the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A generator of its own for a key: workers and resuming do not change what is drawn."""
    return torch.Generator().manual_seed(seed_of(*key))


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Run with torch's global generator seeded by a key, for libraries that draw from it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*key))
        yield


def of_rank(items: Sequence[Item]) -> list[Item]:
    """Every R-th item, for this process of R; all have as many, for which the first may come twice."""
    every = -(-len(items) // ranks()) * ranks()
    return [items[place % len(items)] for place in range(rank(), every, ranks())]


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) pairs: the epoch travels with the index, so that workers draw from it too.

    Several processes share one order. Lightning's own sharing is off: it would keep the epoch at 0.

    Args:
        size: samples in the data set.
        seed: the run's seed; None keeps the order of the data set and epoch 0.
    """

    def __init__(self, size: int, seed: int | None) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.size // ranks())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(of_rank(self.keys()))

    def keys(self) -> list[tuple[int, int]]:
        """The whole order, of all processes."""
        if self.seed is None:
            return [(0, index) for index in range(self.size)]
        order = torch.randperm(self.size, generator=generator(self.seed, self.epoch, "order"))
        return [(self.epoch, index) for index in order.tolist()]


class Samples(Protocol):
    """A data set: items are drawn by (epoch, index) and joined into a batch of named views."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Any: ...

    def collate(self, items: Sequence[Any]) -> Batch:
        """Join items into the views of a batch."""
        ...


class Data(LightningDataModule):
    """A data module of one modality. Subclasses write `views`, `facts`, `samples` and `setup`.

    Args:
        batch_size: samples a training step.
        workers: processes that load; what they draw does not depend on their number.
        seed: of order, augmentation and masks; the run's seed unless given.

    Raises:
        UserError: a batch of no samples, or fewer than no processes.
    """

    def __init__(self, batch_size: int = 64, workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        for name, number, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
            if number < least:
                raise UserError(f"expected data.{name} to be at least {least}, but got {number}")
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.tokenizers: Mapping[str, Tokenizer] = {}
        self.window = 1
        self.counts: Counts = no_counts

    def attach(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        """Take the model's tokenizers, by modality: their `num_tokens` sizes the masks that loaders draw."""
        self.tokenizers = tokenizers

    def look_ahead(self, window: int, counts: Counts) -> None:
        """Called before training, which accumulates the gradients of `window` batches of known counts."""
        self.window, self.counts = window, counts

    def supervise(self) -> None:
        """Called before training where every objective needs labels.

        What has none may be left out of it, and no distortion is a task: what is held out needs none.
        """

    def follow(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Called before `setup` for a finished model: read the data as it does (classes, channels, size)."""

    def inherit(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Called before `setup` when training starts from a run: normalise as it did, unless told."""

    def begin(self, model: Model) -> None:
        """Called before training: set what a new model starts from that only data can tell."""

    def chosen(self) -> Data:
        """The data that commands on a finished run read: itself, where it is of one kind."""
        return self

    def views(self) -> dict[str, str]:
        """Modality of each view that training batches hold."""
        raise TypeError(f"{type(self).__name__} must define views()")

    def facts(self) -> dict[str, dict[str, Any]]:
        """By modality, what the model is sized by: plain JSON values. Known after `setup`."""
        raise TypeError(f"{type(self).__name__} must define facts()")

    def samples(self, split: Split, plain: bool = False) -> Samples:
        """The data set of a split: with the config's views, or with the view `plain` alone."""
        raise TypeError(f"{type(self).__name__} must define samples()")

    def names(self, split: Split) -> list[str]:
        """What each sample of a split is called, in order: a file's name where there are files."""
        return [str(index) for index in range(len(self.samples(split)))]

    def predicted_splits(self) -> tuple[Split, ...]:
        """The splits that `triptych predict` reads: all that have samples."""
        return tuple(split for split in SPLITS if len(self.samples(split, plain=True)))

    def predicted(self, prediction: Tensor, model: Model) -> pd.DataFrame | None:
        """What a model says of `predicted_splits` as a table in the user's own units, or None."""
        return None

    def train_dataloader(self) -> DataLoader[Any] | Windows:
        """Shuffled anew each epoch by (seed, epoch); a last short batch is dropped if others exist."""
        samples = self.samples("train")
        loader = self._loader(samples, self.order(samples), len(samples) > self.batch_size)
        return loader if self.window == 1 else Windows(loader, self.window, self.counts)

    def order(self, samples: Samples) -> EpochSampler:
        """The order of a training epoch: every sample once, by (seed, epoch)."""
        return EpochSampler(len(samples), self.seed)

    def val_dataloader(self) -> DataLoader[Any]:
        """In order, with epoch 0's draws, every sample."""
        samples = self.samples("val")
        return self._loader(samples, EpochSampler(len(samples), None), False)

    def test_dataloader(self) -> DataLoader[Any]:
        """In order, with epoch 0's draws, every sample."""
        samples = self.samples("test")
        return self._loader(samples, EpochSampler(len(samples), None), False)

    def plain(self, split: Split) -> DataLoader[Any]:
        """Every sample of a split in order, with the view `plain` alone."""
        samples = self.samples(split, plain=True)
        return self._loader(samples, EpochSampler(len(samples), None), False)

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """The plain loader of each of `predicted_splits`."""
        return [self.plain(split) for split in self.predicted_splits()]

    def _loader(self, samples: Samples, sampler: EpochSampler, drop_last: bool) -> DataLoader[Any]:
        return DataLoader(
            samples,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=samples.collate,
            drop_last=drop_last,
            persistent_workers=self.workers > 0,
        )
