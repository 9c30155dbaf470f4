"""Images as a data module: found, checked, cut into parts, and made into named views.

Shapes: B samples, C channels, H x W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

from torch import Tensor

from ...objectives.classification import UNLABELLED
from ...tokenizers.errors import UserError
from ...tokenizers.image import ImagePatches
from ...tokenizers.view import Batch
from ..data import PLAIN, Data, Split
from .few_labels import keep_labels
from .find import find
from .options import ImageView
from .pixels import Pixels
from .read import UNREADABLE, File, check, is_grey, read_image, size_of
from .sources import Source
from .views import MODALITY, Picture, ViewMaker

LOG = logging.getLogger("triptych")

#: Tokens of an image above which a step is slow enough to say so.
MANY = 1_024

#: Up to so many files are decoded whole before training starts; of more, the headers alone are read.
DECODED = 5_000


class Images(Data):
    """Images from a folder, a table, an `.npz` file or scikit-learn's digits.

    Args:
        path: `digits`; a folder of class folders or of images, with or without `train`, `val` and
            `test` above them; CIFAR, Tiny-ImageNet, Pets, Flowers or ImageNet as published; a CSV or
            Parquet table with a column `path`; an `.npz`; WebDataset's `.tar` or a folder of them.
        views: what training batches hold, by name.
        size: pixels a side, or (height, width), of what the model reads; None takes the images'
            own, if they have one.
        channels: 1 (grey), 3 (RGB), or as many as an `.npz` has; None looks at the images.
        fold: of the digits: which fifth to test on, 0 to 4.
        pixels: how pictures are scaled and normalised; None does as the weights it starts from were
            trained, or takes a mean and deviation of .5.
        unreadable: share of files that may be unreadable before the data set is refused.
        labels: of the train part's labels, the share of each class that is kept (below 1) or how many a
            class (from 1); None keeps all. Images without a label stay, and objectives that need none
            learn from them; where all need labels they are passed over.
        draw: which draw of labels: a seed of its own, so that runs of any config and seed share it.
        batch_size: samples a training step.
        workers: processes that load.
        seed: of order, augmentation and masks.
    """

    def __init__(
        self,
        path: str = "digits",
        views: dict[str, ImageView] | None = None,
        size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        fold: int = 0,
        pixels: Pixels | None = None,
        unreadable: float = 0.1,
        labels: float | None = None,
        draw: int = 0,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        self.path, self.size, self.channels, self.fold = path, size, channels, fold
        self.view_options = {"train": ImageView()} if views is None else dict(views)
        self.pixels, self.unreadable = pixels, unreadable
        self.labels, self.draw, self.labelled_only = labels, draw, False
        self.source: Source | None = None
        self.classes: list[str] = []

    def follow(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the model's channels and size, and its classes first and in its order."""
        own = facts.get(MODALITY)
        if own is None:
            return
        self.channels, self.classes = own["channels"], list(own["classes"])
        if self.size is None:
            self.size = (own["size"][0], own["size"][1])
        self._read_alike(own)

    def inherit(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Read pictures as the weights expect them, where the config does not say; the size is its own."""
        own = facts.get(MODALITY)
        if own is not None:
            self.channels = self.channels or own["channels"]
            self._read_alike(own)

    def _read_alike(self, own: Mapping[str, Any]) -> None:
        if self.pixels is None and "pixels" in own:
            self.pixels = Pixels(**own["pixels"])

    def supervise(self) -> None:
        """Train on the labelled images of the train part alone."""
        self.labelled_only = True

    def views(self) -> dict[str, str]:
        """Every view is of images."""
        return dict.fromkeys(self.view_options, MODALITY)

    def setup(self, stage: str = "fit") -> None:
        """Find the images and set aside what cannot be read; once.

        Raises:
            UserError: nothing is there, too much is unreadable, or sizes differ and none is given.
        """
        if self.source is not None:
            return
        source = readable(find(self.path, self.fold), self.path, self.unreadable)
        if self.channels is None:
            self.channels = _channels(source.images)
        if self.size is None:
            self.size = _common_size(source.images, self.path)
        self.pixels = self.pixels or Pixels()
        self.pixels.check(self.channels)
        self.classes += [name for name in source.classes if name not in self.classes]
        self.source = source if self.labels is None else keep_labels(source, self.labels, self.draw)
        tokens = self._num_tokens((1, *self._size)) if self.tokenizers else 0
        if tokens > MANY:
            LOG.warning(
                f"images of {self._size[0]}x{self._size[1]} pixels give {tokens} tokens each, which is slow; "
                "try a smaller --data.size or a larger --model.tokenizers.image.patch"
            )

    def facts(self) -> dict[str, dict[str, Any]]:
        """Channels, size in pixels, the classes' names, and how pictures are scaled and normalised."""
        self._found()
        assert self.pixels is not None
        own = {"channels": self.channels, "size": list(self._size), "classes": self.classes}
        return {MODALITY: own | {"pixels": asdict(self.pixels)}}

    def samples(self, split: Split, plain: bool = False) -> ImageSamples:
        """The images of a split, as the config's views or as the view `plain` alone.

        Outside the train part a view of one copy is not augmented, so that a classifier is judged on the
        pictures as they are; where several copies are compared, their difference is the task and stays.
        """
        source = self._found()
        options = {PLAIN: ImageView()} if plain else self.view_options
        if split != "train":
            options = {name: view if view.copies > 1 else view.bare() for name, view in options.items()}
        assert self.pixels is not None
        makers = {
            name: ViewMaker(name, view, self._size, self.pixels, self.seed, len(self.classes), self._grid)
            for name, view in options.items()
        }
        assert self.channels is not None
        labelled_only = self.labelled_only and split == "train" and not plain
        return ImageSamples(source, split, self.classes, self.channels, makers, labelled_only)

    def names(self, split: Split) -> list[str]:
        """File names, or numbers where there are no files."""
        source = self._found()
        return [name for name, part in zip(source.names, source.splits, strict=True) if part == split]

    def _found(self) -> Source:
        if self.source is None:
            self.setup()
        assert self.source is not None
        return self.source

    @property
    def _size(self) -> tuple[int, int]:
        assert self.size is not None
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def _num_tokens(self, shape: Sequence[int]) -> int:
        return self.tokenizers[MODALITY].num_tokens(shape)

    def _grid(self, size: Sequence[int]) -> tuple[int, int]:
        tokenizer = self.tokenizers[MODALITY]
        assert isinstance(tokenizer, ImagePatches)
        return tokenizer.grid_of(size)


class ImageSamples:
    """The images of one split, drawn by (epoch, index)."""

    def __init__(
        self,
        source: Source,
        split: Split,
        classes: Sequence[str],
        channels: int,
        makers: Mapping[str, ViewMaker],
        labelled_only: bool = False,
    ) -> None:
        chosen = [i for i, part in enumerate(source.splits) if part == split]
        if labelled_only:
            chosen = [i for i in chosen if source.labels[i] is not None]
        self.images = [source.images[i] for i in chosen]
        number = {name: index for index, name in enumerate(classes)}
        self.labels = [UNLABELLED if (name := source.labels[i]) is None else number[name] for i in chosen]
        accepted = source.accepted or [None] * len(source.names)
        self.accepted = [
            None
            if (names := accepted[i]) is None
            else tuple(number[name] for name in names if name in number)
            for i in chosen
        ]
        self.channels, self.makers = channels, makers
        self.broken: set[File] = set()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Picture:
        """One picture; a file that turned unreadable is named once, and the next one stands in for it."""
        epoch, index = key
        for other in range(len(self)):
            at = (index + other) % len(self)
            image = self.images[at]
            if isinstance(image, Tensor):
                return Picture(self._in_memory(image), self.labels[at], index, epoch, self.accepted[at])
            try:
                pixels = read_image(image, self.channels)
                return Picture(pixels, self.labels[at], index, epoch, self.accepted[at])
            except UNREADABLE as error:
                if image not in self.broken:
                    LOG.warning(f"cannot read {image}: {error}; another image stands in for it")
                    self.broken.add(image)
        raise UserError("none of the images can be read any more")

    def _in_memory(self, image: Tensor) -> Tensor:
        if len(image) not in (1, self.channels):
            raise UserError(f"the images must have {self.channels} channels, but one has {len(image)}")
        fractions = image if image.is_floating_point() else image / 255
        return fractions.expand(self.channels, -1, -1)

    def collate(self, items: Sequence[Picture]) -> Batch:
        """All views of a batch."""
        return {name: maker(items) for name, maker in self.makers.items()}


def readable(source: Source, path: str, limit: float) -> Source:
    """The source without the files that cannot be read, which are named and counted in the log.

    Raises:
        UserError: more than `limit` of them cannot be read.
    """
    files = [(i, image) for i, image in enumerate(source.images) if not isinstance(image, Tensor)]
    with ThreadPoolExecutor() as pool:
        faults = pool.map(partial(check, thorough=len(files) <= DECODED), [file for _, file in files])
    bad = {i: fault for (i, _), fault in zip(files, faults, strict=True) if fault is not None}
    if not bad:
        return source
    named = [f"{source.names[i]} ({fault})" for i, fault in bad.items()]
    if len(bad) > limit * len(source.images):
        raise UserError(
            f"{len(bad)} of the {len(source.images)} images in {path!r} cannot be read, more than the "
            f"{limit:.0%} allowed by `unreadable`; the first is {named[0]}"
        )
    LOG.warning(
        f"set aside {len(bad)} of {len(source.images)} images that cannot be read: {', '.join(named)}"
    )
    return source.without(set(bad))


def _channels(images: Sequence[Tensor | File]) -> int:
    """The most that any of a hundred images, spread evenly, has; colours count as 3."""
    return max(
        len(image) if isinstance(image, Tensor) else 1 if is_grey(image) else 3 for image in _some(images)
    )


def _common_size(images: Sequence[Tensor | File], path: str) -> tuple[int, int]:
    """(H, W) that a hundred images, spread evenly, share."""
    some = _some(images)
    sizes = {
        (image.shape[1], image.shape[2]) if isinstance(image, Tensor) else size_of(image) for image in some
    }
    if len(sizes) == 1:
        return sizes.pop()
    shown = " and ".join(f"{height}x{width}" for height, width in sorted(sizes)[:2])
    raise UserError(
        f"images of several sizes ({shown} pixels) in {path!r} need --data.size, such as --data.size 64"
    )


def _some(images: Sequence[Tensor | File], count: int = 100) -> Sequence[Tensor | File]:
    return images[:: max(1, len(images) // count)]
