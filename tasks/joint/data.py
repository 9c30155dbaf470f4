"""Several data modules as one: every training batch holds views of each of them, for one shared encoder.

A member's views are called `MEMBER.VIEW` (`images.train`), so that two members may use the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader

from ...tokenizers.errors import UserError
from ...tokenizers.tokenizer import Tokenizer
from ...tokenizers.view import Batch
from ..data import Data, EpochSampler
from ..window import Windows

#: A member's name and its loader.
Loaders = Mapping[str, "DataLoader[Any]"]


class Joint(Data):
    """Data modules side by side. An epoch is one pass over the longest; the others start over meanwhile.

    Args:
        members: data modules of different modalities, by name.
        only: the member that commands on a finished run read (`--data.only images`).
        seed: of all members, in place of their own.
    """

    def __init__(self, members: dict[str, Data], only: str | None = None, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if only is not None and only not in members:
            raise UserError(f"only must name a member of the data, one of {list(members)}, but is {only!r}")
        self.members, self.only = members, only
        for member in members.values():
            member.seed = seed

    def chosen(self) -> Data:
        """The member that `only` names. Raises UserError where it names none."""
        if self.only is None:
            raise UserError(
                f"the run has several data sets; choose with --data.only, of {list(self.members)}"
            )
        return self.members[self.only]

    def attach(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        """Hand the tokenizers on."""
        super().attach(tokenizers)
        for member in self.members.values():
            member.attach(tokenizers)

    def follow(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Hand a finished model's facts on."""
        for member in self.members.values():
            member.follow(facts)

    def inherit(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Hand the facts of the weights on."""
        for member in self.members.values():
            member.inherit(facts)

    def prepare_data(self) -> None:
        """Prepare every member."""
        for member in self.members.values():
            member.prepare_data()

    def setup(self, stage: str) -> None:
        """Set every member up.

        Raises:
            UserError: two members are of one modality, whose facts the model could have only once.
        """
        owner: dict[str, str] = {}
        for name, member in self.members.items():
            member.setup(stage)
            for modality in member.facts():
                if modality in owner:
                    raise UserError(
                        f"members of the data must differ in modality, "
                        f"but {owner[modality]!r} and {name!r} are both of {modality!r}"
                    )
                owner[modality] = name

    def views(self) -> dict[str, str]:
        """All members' views."""
        return {
            called(name, view): modality
            for name, member in self.members.items()
            for view, modality in member.views().items()
        }

    def facts(self) -> dict[str, dict[str, Any]]:
        """All members' facts."""
        return {modality: own for member in self.members.values() for modality, own in member.facts().items()}

    def train_dataloader(self) -> Windows | Together:  # type: ignore[override]
        """A batch of every member at each step."""
        loaders = {name: member.train_dataloader() for name, member in self.members.items()}
        together = Together(loaders)  # type: ignore[arg-type]
        return together if self.window == 1 else Windows(together, self.window, self.counts)

    def val_dataloader(self) -> InTurn:  # type: ignore[override]
        """One member after the other."""
        return InTurn({name: member.val_dataloader() for name, member in self.members.items()})

    def test_dataloader(self) -> InTurn:  # type: ignore[override]
        """One member after the other."""
        return InTurn({name: member.test_dataloader() for name, member in self.members.items()})

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """The chosen member's."""
        return self.chosen().predict_dataloader()


def called(member: str, view: str) -> str:
    """What a member's view is called in the joint batch."""
    return f"{member}.{view}"


def renamed(member: str, batch: Batch) -> Batch:
    """A member's batch as part of the joint one."""
    return {called(member, name): view for name, view in batch.items()}


class Together:
    """Batches of all loaders at once, as many as the longest has.

    A loader that runs out is told another epoch, so that it draws anew; which one depends on the epoch
    alone, so that a resumed run draws the same.
    """

    def __init__(self, loaders: Loaders) -> None:
        self.loaders = loaders
        self.epoch = 0

    @property
    def sampler(self) -> Together:
        """What is told the epoch: itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(map(len, self.loaders.values()))

    def __iter__(self) -> Iterator[Batch]:
        streams = {name: self._endless(loader) for name, loader in self.loaders.items()}
        for _ in range(len(self)):
            batch: Batch = {}
            for name, stream in streams.items():
                batch |= renamed(name, next(stream))
            yield batch

    def _endless(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        passes = -(-len(self) // len(loader))
        for number in range(self.epoch * passes, (self.epoch + 1) * passes):
            for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
                if isinstance(sampler, EpochSampler):
                    sampler.set_epoch(number)
            yield from loader


class InTurn:
    """Batches of one loader after the other, each holding the views of one member."""

    def __init__(self, loaders: Loaders) -> None:
        self.loaders = loaders

    def __len__(self) -> int:
        return sum(map(len, self.loaders.values()))

    def __iter__(self) -> Iterator[Batch]:
        for name, loader in self.loaders.items():
            yield from (renamed(name, batch) for batch in loader)
