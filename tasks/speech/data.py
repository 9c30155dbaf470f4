"""The data module of audio: a folder, a manifest or the shipped clips, in batches of seconds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import DataLoader

from ...objectives.classification import UNLABELLED
from ...tokenizers.errors import UserError
from ..data import PLAIN, Data, EpochSampler, Samples, Split
from .clips import Clips
from .manifest import read_clips, split_by_hash
from .sampling import GroupSampler, Sampling, SecondsSampler, seconds_of_epoch, tempered
from .segments import MODALITY, Segments, Whole
from .text import alphabet_of, encode, normalise
from .units import MFCC_CLUSTERS, Units, make_units, mfcc_features
from .views import AudioSamples, AudioView

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("triptych")


@dataclass
class Columns:
    """What a manifest's columns are for, where it has them.

    Attributes:
        label: classes for objectives and evaluation.
        voice: clips of one voice may be laid end to end; all are one voice without it.
        group: clips that stay in one split; `path` where there is no such column.
        text: transcripts.
        language, corpus: what `sampling` tempers the shares of.
    """

    label: str = "label"
    voice: str = "speaker"
    group: str = "path"
    text: str = "text"
    language: str = "language"
    corpus: str = "corpus"


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

    def __post_init__(self) -> None:
        if self.longest <= 0:
            raise UserError(f"expected data.limits.longest to be above 0 s, but got {self.longest:g}")


class Audio(Data):
    """Clips of audio.

    Args:
        path: a folder of audio, a manifest (CSV, TSV, JSONL, Parquet with a column `path` and,
            where known, `text`, `label`, `language`, `speaker`, `corpus`, `split`, `start`,
            `end`), `samples` for the clips that ship with the package, or several of these.
        views: what the training batches hold, by name.
        rate: Hz; all audio is resampled to it, once.
        segment: seconds of the training samples, cut from the clips of one voice laid end to
            end; None trains on the clips as they are.
        batch_seconds: audio in a batch, on average; one holds at most a sample more.
        normalise: give each clip mean 0 and variance 1; None does as the weights it starts from were
            trained, or does not.
        sampling: how an epoch of training is put together.
        units: units of the frames for masked prediction: a file of `triptych cluster`, or `mfcc` for
            100 clusters of the training clips' MFCC, made when training starts.
        columns: what the manifest's columns are for.
        limits: of splits, unusable files, lengths and memory.
        workers: processes that load.
        seed: of order, segments and masks.
    """

    clips: Clips

    def __init__(
        self,
        path: str | list[str] = "samples",
        views: dict[str, AudioView] | None = None,
        rate: int = 16000,
        segment: float | None = None,
        batch_seconds: float = 60.0,
        normalise: bool | None = None,
        sampling: Sampling | None = None,
        units: str | None = None,
        columns: Columns | None = None,
        limits: Limits | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(1, workers, seed)
        self.path, self.rate = path, rate
        self.declared = views or {"train": AudioView()}
        self.segment, self.batch_seconds, self.normalise = segment, batch_seconds, normalise
        self.sampling, self.columns = sampling or Sampling(), columns or Columns()
        self.limits, self.units = limits or Limits(), units
        self.classes: list[str] = []
        self.alphabet: list[str] = []
        self.supervised = False
        if rate < 1:
            raise UserError(f"expected data.rate to be at least 1 Hz, but got {rate}")
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
        self.clips = self._clips(self.path)
        self.classes += sorted(set(self.table.get(self.columns.label, ())) - {*self.classes, ""})
        self._split(self.table)
        self.texts = self._read_texts()
        paths = {view.noise.path for view in self.declared.values() if view.noise and view.noise.path}
        self.noises = {path: self._clips(path) for path in sorted(paths)}

    def _clips(self, path: str | list[str]) -> Clips:
        limits, table, normalise = self.limits, read_clips(path), bool(self.normalise)
        return Clips(table, self.rate, self._fits, limits.longest, normalise, limits.unusable, limits.cache)

    def _split(self, table: pd.DataFrame) -> None:
        """Give a split to the clips that have none."""
        if "split" not in table:
            table["split"] = ""
        rest = table["split"] == ""
        if rest.any():
            group = self.columns.group
            keys = table["within" if group == "path" or group not in table else group][rest]
            table.loc[rest, "split"] = split_by_hash(list(keys), self.limits.val, self.limits.test)

    def _read_texts(self) -> list[Tensor] | None:
        """The transcript of each clip, in the alphabet of the training texts unless that is known.

        A text with a character outside it counts as none, and its clip's name is kept in `unspelt`.
        """
        self.unspelt: dict[int, str] = {}
        if self.columns.text not in self.table:
            return None
        texts = [normalise(text) for text in self.table[self.columns.text]]
        if not self.alphabet:
            train = self.table["split"] == "train"
            self.alphabet = alphabet_of(text for text, known in zip(texts, train, strict=True) if known)
        for index, text in enumerate(texts):
            if not set(text) <= set(self.alphabet):
                self.unspelt[index], texts[index] = str(self.table["name"][index]), ""
        return [encode(text, self.alphabet) for text in texts]

    def follow(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the model's rate, normalisation and alphabet, and its classes first and in its order."""
        own = facts.get(MODALITY)
        if own is not None:
            self.rate = own["rate"]
            self.classes, self.alphabet = list(own.get("classes", ())), list(own.get("alphabet", ()))
            self.inherit(facts)

    def inherit(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Normalise as the weights expect it, where the config does not say.

        Raises:
            UserError: the weights are of audio at another rate.
        """
        rate = facts.get(MODALITY, {}).get("rate", self.rate)
        if rate != self.rate:
            raise UserError(
                f"data.rate must be {rate} Hz, that of the audio which the weights were trained on, "
                f"but is {self.rate}"
            )
        if self.normalise is None:
            self.normalise = facts.get(MODALITY, {}).get("normalise")

    def supervise(self) -> None:
        """Hear what is held out as it is: masks and noise are distortions of the training clips alone."""
        self.supervised = True

    @property
    def table(self) -> pd.DataFrame:
        """The usable clips: `name`, `start`, `end`, `seconds`, `split` and the manifest's own columns."""
        return self.clips.table

    def views(self) -> dict[str, str]:
        """The declared views, all `audio`."""
        return dict.fromkeys(self.declared, MODALITY)

    def facts(self) -> dict[str, dict[str, Any]]:
        """Rate (Hz), whether clips are normalised, and classes and alphabet where the data has them."""
        known = {"classes": self.classes, "alphabet": self.alphabet, "units": self._count_units()}
        present = {name: fact for name, fact in known.items() if fact}
        return {MODALITY: {"rate": self.rate, "normalise": bool(self.normalise), **present}}

    def _count_units(self) -> int:
        """K, known for `mfcc` before there are any."""
        if self.units is None:
            return 0
        return MFCC_CLUSTERS if self.units == "mfcc" else self._read_units().count

    @cache  # noqa: B019  a data module lives as long as its run
    def _read_units(self) -> Units:
        assert self.units is not None
        if self.units != "mfcc":
            return Units.read(Path(self.units).expanduser())
        features, clock = mfcc_features(self.rate)
        heard = self.indices("train")
        log.info(
            "clustering the MFCC of %d clips; `triptych cluster` makes a file of units that serves many runs",
            len(heard),
        )
        return make_units(self.clips, heard, features, clock, MFCC_CLUSTERS, self.seed)

    def names(self, split: Split) -> list[str]:
        """File names of a split's clips; none where the split has none."""
        return [str(name) for name in self.table["name"][self.table["split"] == split]]

    def indices(self, split: Split) -> list[int]:
        """Rows of `table` that are in a split.

        Raises:
            UserError: there are none.
        """
        indices: list[int] = self.table.index[self.table["split"] == split].tolist()
        if not indices:
            raise UserError(
                f"the split {split!r} must hold clips, but {self.path!r} has none in it: give at least "
                "3 clips, the folders train, val and test, or a column `split`"
            )
        return indices

    def samples(self, split: Split, plain: bool = False) -> AudioSamples:
        """The clips of a split by themselves if `plain`; else segments or clips with the declared views."""
        indices = self.indices(split)
        if plain or self.segment is None:
            waveforms: Whole | Segments = Whole(self.clips, indices, self._labels(), self.texts)
            unspelt = [self.unspelt[index] for index in indices if index in self.unspelt]
            if unspelt and not plain:
                log.warning(
                    "left out %d texts of %s with letters that training has not: %s",
                    len(unspelt), split, ", ".join(unspelt),
                )  # fmt: skip
        else:
            voices = self._voices(indices)
            waveforms = Segments(self.clips, voices, round(self.segment * self.rate), self.seed)
        views = {PLAIN: AudioView()} if plain else self.declared
        if self.supervised and split != "train":
            views = dict.fromkeys(views, AudioView())
        tokenizer = self.tokenizers.get(MODALITY)
        units = None if plain or self.units is None else self._read_units()
        return AudioSamples(waveforms, views, tokenizer, self.rate, self.seed, self.noises, units)

    def _labels(self) -> list[int] | None:
        """The class of each clip, `UNLABELLED` where its label is empty; None where there are no classes."""
        if not self.classes:
            return None
        number = {name: index for index, name in enumerate(self.classes)} | {"": UNLABELLED}
        given = self.table.get(self.columns.label, [""] * len(self.table))
        return [number[label] for label in given]

    def order(self, samples: Samples) -> EpochSampler:
        """Every sample once, or languages and corpora by their tempered shares."""
        if self.sampling.language is None and self.sampling.corpus is None:
            return super().order(samples)
        assert isinstance(samples, AudioSamples)
        return self._by_language(samples)

    def _by_language(self, samples: AudioSamples) -> GroupSampler:
        """Draws by language and corpus.

        Raises:
            UserError: the data has neither column.
        """
        names = (self.columns.language, self.columns.corpus)
        if not set(names) & set(self.table):
            raise UserError(
                f"data.sampling needs a column {names[0]!r} or {names[1]!r}, but there is neither"
            )
        columns = [list(self.table[name]) if name in self.table else [""] * len(self.table) for name in names]
        hours: dict[tuple[Any, Any], float] = {}
        groups: dict[tuple[Any, Any], list[int]] = {}
        for index, length in enumerate(samples.waveforms.lengths):
            clip = samples.waveforms.clip(index)
            key = (columns[0][clip], columns[1][clip])
            hours[key] = hours.get(key, 0.0) + length
            groups.setdefault(key, []).append(index)
        alphas = [1.0 if alpha is None else alpha for alpha in (self.sampling.language, self.sampling.corpus)]
        shares = tempered(hours, *alphas)
        return GroupSampler(list(groups.values()), [shares[key] for key in groups], self.seed)

    def _fits(self, samples: int) -> bool:
        tokenizer = self.tokenizers.get(MODALITY)
        return samples > 0 and (tokenizer is None or tokenizer.num_tokens((samples,)) > 0)

    def _voices(self, indices: list[int]) -> dict[str, list[int]]:
        if self.columns.voice not in self.table:
            return {"all": indices}
        voices = self.table.loc[indices, self.columns.voice]
        return {str(voice): group.index.tolist() for voice, group in voices.groupby(voices)}

    def _loader(self, samples: Samples, sampler: EpochSampler, drop_last: bool) -> DataLoader[Any]:
        assert isinstance(samples, AudioSamples)
        lengths = [length / self.rate for length in samples.waveforms.lengths]
        total = seconds_of_epoch(sampler, lengths)
        batches = SecondsSampler(sampler, lengths, self.batch_seconds, self.sampling.buckets, total)
        return DataLoader(
            samples,  # type: ignore[arg-type]
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=samples.collate,
            persistent_workers=self.workers > 0,
        )
