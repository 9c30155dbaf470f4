"""The data module of audio: a folder, a manifest or the shipped clips, in batches of seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Sampler

from ...tokenizers.errors import UserError
from ..data import PLAIN, Data, EpochSampler, Samples, Split
from .clips import Clips
from .manifest import read_clips, split_by_hash
from .segments import MODALITY, AudioSamples, AudioView, Segments, Whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Columns:
    """What a manifest's columns are for, where it has them.

    Attributes:
        label: classes for objectives and evaluation.
        voice: clips of one voice may be laid end to end; all are one voice without it.
        group: clips that stay in one split; `path` where there is no such column.
    """

    label: str = "label"
    voice: str = "speaker"
    group: str = "path"


@dataclass
class Limits:
    """Shares and sizes that hold for the whole data set.

    Attributes:
        val, test: shares of the groups, where neither folders nor a column `split` say.
        unusable: share of the files that may be unreadable, empty or too short.
        longest: seconds; longer clips are cut into equal pieces.
        cache: gigabytes of decoded audio kept in memory.
    """

    val: float = 0.1
    test: float = 0.15
    unusable: float = 0.1
    longest: float = 30.0
    cache: float = 2.0


class Audio(Data):
    """Clips of audio.

    Args:
        path: a folder of audio, a manifest (CSV, TSV, JSONL, Parquet with a column `path` and,
            where known, `text`, `label`, `language`, `speaker`, `split`, `start`, `end`), or
            `samples` for the clips that ship with the package.
        views: what the training batches hold, by name.
        rate: Hz; all audio is resampled to it, once.
        segment: seconds of the training samples, cut from the clips of one voice laid end to
            end; None trains on the clips as they are.
        batch_seconds: audio in a batch.
        normalise: give each clip mean 0 and variance 1; None does as the weights it starts from were
            trained, or does not.
        columns: what the manifest's columns are for.
        limits: of splits, unusable files, lengths and memory.
        workers: processes that load.
        seed: of order, segments and masks.
    """

    clips: Clips

    def __init__(
        self,
        path: str = "samples",
        views: dict[str, AudioView] | None = None,
        rate: int = 16000,
        segment: float | None = None,
        batch_seconds: float = 60.0,
        normalise: bool | None = None,
        columns: Columns | None = None,
        limits: Limits | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(1, workers, seed)
        self.path, self.rate = path, rate
        self.declared = views or {"train": AudioView()}
        self.segment, self.batch_seconds, self.normalise = segment, batch_seconds, normalise
        self.columns, self.limits = columns or Columns(), limits or Limits()
        longest = segment or self.limits.longest
        if longest > batch_seconds:
            raise UserError(
                f"data.batch_seconds must hold a sample of {longest:g} s, but is {batch_seconds:g}: "
                f"raise it, or lower {'data.segment' if segment else 'data.limits.longest'}"
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest and every file's header; once."""
        if hasattr(self, "clips"):
            return
        limits, table = self.limits, read_clips(self.path)
        self.clips = Clips(
            table, self.rate, self._fits, limits.longest, bool(self.normalise), limits.unusable, limits.cache
        )
        self.classes = sorted(set(self.table.get(self.columns.label, ())))
        if "split" not in self.table:
            keys = self.table[self.columns.group if self.columns.group in self.table else "path"]
            keys = self.table["name"] if keys.name == "path" else keys
            self.table["split"] = split_by_hash(list(keys), limits.val, limits.test)

    def follow(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the model's rate and normalisation."""
        own = facts.get(MODALITY)
        if own is not None:
            self.rate = own["rate"]
            self.inherit(facts)

    def inherit(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Normalise as the weights expect it, where the config does not say."""
        if self.normalise is None:
            self.normalise = facts.get(MODALITY, {}).get("normalise")

    @property
    def table(self) -> pd.DataFrame:
        """The usable clips: `name`, `start`, `end`, `seconds`, `split` and the manifest's own columns."""
        return self.clips.table

    def views(self) -> dict[str, str]:
        """The declared views, all `audio`."""
        return dict.fromkeys(self.declared, MODALITY)

    def facts(self) -> dict[str, dict[str, Any]]:
        """The rate (Hz), whether clips are normalised, and the classes where they are labelled."""
        classes = {"classes": self.classes} if self.classes else {}
        return {MODALITY: {"rate": self.rate, "normalise": bool(self.normalise), **classes}}

    def names(self, split: Split) -> list[str]:
        """File names of a split's clips."""
        return [str(self.table["name"][index]) for index in self.indices(split)]

    def indices(self, split: Split) -> list[int]:
        """Rows of `table` that are in a split.

        Raises:
            UserError: there are none.
        """
        indices: list[int] = self.table.index[self.table["split"] == split].tolist()
        if not indices:
            raise UserError(f"the split {split!r} must hold clips, but {self.path!r} has none in it")
        return indices

    def samples(self, split: Split, plain: bool = False) -> AudioSamples:
        """The clips of a split by themselves if `plain`; else segments or clips with the declared views."""
        indices = self.indices(split)
        if plain or self.segment is None:
            labels = (
                [self.classes.index(label) for label in self.table[self.columns.label]]
                if self.classes
                else None
            )
            waveforms: Whole | Segments = Whole(self.clips, indices, labels)
        else:
            voices = self._voices(indices)
            waveforms = Segments(self.clips, voices, round(self.segment * self.rate), self.seed)
        views = {PLAIN: AudioView()} if plain else self.declared
        return AudioSamples(waveforms, views, self._num_tokens, self.rate, self.seed)

    def _num_tokens(self, shape: Sequence[int]) -> int:
        return self.tokenizers[MODALITY].num_tokens(shape)

    def _fits(self, samples: int) -> bool:
        return samples > 0 and (not self.tokenizers or self._num_tokens((samples,)) > 0)

    def _voices(self, indices: list[int]) -> dict[str, list[int]]:
        if self.columns.voice not in self.table:
            return {"all": indices}
        voices = self.table.loc[indices, self.columns.voice]
        return {str(voice): group.index.tolist() for voice, group in voices.groupby(voices)}

    def _loader(self, samples: Samples, sampler: EpochSampler, drop_last: bool) -> DataLoader[Any]:
        assert isinstance(samples, AudioSamples)
        lengths = [length / self.rate for length in samples.waveforms.lengths]
        return DataLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=SecondsSampler(sampler, lengths, self.batch_seconds),
            num_workers=self.workers,
            collate_fn=samples.collate,
            persistent_workers=self.workers > 0,
        )


class SecondsSampler(Sampler[list[tuple[int, int]]]):
    """Batches of about equal seconds, the same number of them every epoch.

    The samples, laid end to end in the sampler's order, are shared out by the slice of time that
    the middle of each falls in.

    Args:
        sampler: gives (epoch, index) pairs.
        lengths: seconds of each sample; none may be longer than a batch.
        batch_seconds: most seconds of a slice.
    """

    def __init__(self, sampler: EpochSampler, lengths: list[float], batch_seconds: float) -> None:
        self.sampler, self.lengths = sampler, lengths
        self.count = max(-(-sum(lengths) // batch_seconds), 1)

    def __len__(self) -> int:
        return int(self.count)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        width, begin, current = sum(self.lengths) / self.count, 0.0, 0
        batch: list[tuple[int, int]] = []
        for epoch, index in self.sampler:
            slice_ = min(int((begin + self.lengths[index] / 2) / width), len(self) - 1)
            if slice_ != current and batch:
                yield batch
                batch, current = [], slice_
            batch.append((epoch, index))
            begin += self.lengths[index]
        yield batch
