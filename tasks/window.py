"""The batches of one optimiser step, whose counts are known before the first of them is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from ..tokenizers.view import Batch

#: By term, what its count will be for a batch.
Counts = Callable[[Batch], Mapping[str, float]]


class Windows:
    """A loader that looks `size` batches ahead, the batches whose gradients are accumulated.

    Attributes:
        means: by index of a batch, the mean count of each term over the batches of its step. A
            step that an epoch's end cuts short is divided by `size` all the same, as its gradients are.
    """

    def __init__(self, loader: Any, size: int, counts: Counts) -> None:
        self.loader, self.size, self.counts = loader, size, counts
        self.means: dict[int, dict[str, float]] = {}

    @property
    def sampler(self) -> Any:
        """What is told the epoch."""
        return self.loader.sampler

    @property
    def batch_sampler(self) -> Any:
        """What is told the epoch, where batches are drawn whole."""
        return self.loader.batch_sampler

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        batches, index = iter(self.loader), 0
        while window := list(islice(batches, self.size)):
            total: Counter[str] = Counter()
            for batch in window:
                total.update(self.counts(batch))
            means = {term: count / self.size for term, count in total.items()}
            for batch in window:
                self.means[index] = means
                index += 1
                yield batch
