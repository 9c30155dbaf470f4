"""What a loader hands to a tokenizer: one named look at the samples of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

#: Raw input of one view: images `(n, C, H, W)`, series `(n, C, T)`, or a list of waveforms `(T_i,)`.
Raw: TypeAlias = Tensor | list[Tensor]


@dataclass(frozen=True)
class View:
    """One view of every sample of a batch, drawn by the loader on the CPU.

    A view of `copies` crops is laid out copy-major: entry `c * B + i` of the n = copies * B
    entries shows sample `i`. Masks come with the batch, so that how many tokens a loss will
    count is known before the forward pass.

    Attributes:
        modality: which tokenizer reads it (`image`, `series`, `audio`, ...).
        data: what the student sees, possibly corrupted.
        clean: the same without corruption, where it differs: targets and the teacher read this.
        corrupted: `(n, 1, H, W)` bool, True at the pixels that corruption touched (images), or None.
        copies: how many crops of each sample the view holds.
        observed: `(n, C, T)` bool, False where a value is missing (series), or None.
        masked: `(S,)` bool over the content tokens, packed: True where the student's token is
            replaced by the mask token.
        hidden: `(S,)` bool over the content tokens, packed: True where the token is dropped
            before the encoder (MAE).
        muted: `(n, D)` bool over the channels of an entry's embedded tokens: True where they are zeroed
            in all of them (SpecAugment's masks along frequency, as wav2vec 2.0 fine-tunes), or None.
        targets: named tensors whose first axis is n (labels, rotation, future ...).
        ragged: named lists of n one-dimensional tensors of any length (transcripts, units).
        rate: samples a second of `data` (Hz) for audio, else None.
        ids: index of each of the B samples in its data set.
    """

    modality: str
    data: Raw
    clean: Raw | None = None
    corrupted: Tensor | None = None
    copies: int = 1
    observed: Tensor | None = None
    masked: Tensor | None = None
    hidden: Tensor | None = None
    muted: Tensor | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)
    ragged: dict[str, list[Tensor]] = field(default_factory=dict)
    rate: int | None = None
    ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Number of entries n (copies times samples)."""
        return len(self.data)

    @property
    def samples(self) -> int:
        """Number of samples B."""
        return len(self) // self.copies

    def whole(self) -> View:
        """The view as a teacher sees it: clean, nothing masked, muted or hidden."""
        data = self.data if self.clean is None else self.clean
        return replace(self, data=data, clean=None, corrupted=None, masked=None, hidden=None, muted=None)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> View:
        """The same view with every tensor on `device`."""

        def move(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, list):
                return [move(item) for item in value]
            if isinstance(value, dict):
                return {key: move(item) for key, item in value.items()}
            return value

        tensors = ("data", "clean", "corrupted", "observed", "masked", "hidden", "muted", "targets", "ragged")
        return replace(self, **{name: move(getattr(self, name)) for name in tensors})  # type: ignore[arg-type]


#: A batch is its named views.
Batch: TypeAlias = dict[str, View]
