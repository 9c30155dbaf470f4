"""A share of the labels of the train part: what training from few labels is measured with."""

from __future__ import annotations

import logging
from dataclasses import replace

from ...tokenizers.errors import UserError
from ..data import seed_of
from .sources import Source

LOG = logging.getLogger("triptych")


def keep_labels(source: Source, labels: float, draw: int) -> Source:
    """The source with some of the train part's labels, drawn class by class; all images stay.

    What is drawn depends on the draw, the images' names and their classes, and on nothing else: any config
    draws the same. A larger share of one draw holds the smaller ones. Other parts keep their labels.

    Args:
        source: of all images.
        labels: below 1, the share of each class that keeps its label, rounded, at least one image; from 1,
            how many of each class do, at most.
        draw: seed of the draw.

    Raises:
        UserError: `labels` is neither a share nor a whole number, or the train part has no labels.
    """
    if labels <= 0 or (labels > 1 and labels != int(labels)):
        raise UserError(f"labels must be a share below 1 or a whole number a class, but is {labels}")
    classes: dict[str, list[int]] = {}
    for index, (label, split) in enumerate(zip(source.labels, source.splits, strict=True)):
        if split == "train" and label is not None:
            classes.setdefault(label, []).append(index)
    if not classes:
        raise UserError(f"labels is {labels:g}, but the train part has no labels to keep")
    kept: set[int] = set()
    for members in classes.values():
        count = max(1, round(labels * len(members))) if labels < 1 else int(labels)
        kept.update(sorted(members, key=lambda i: seed_of(draw, "labels", source.names[i]))[:count])
    total = sum(map(len, classes.values()))
    LOG.info(f"{len(kept)} of {total} labels of the train part are kept, in draw {draw}")
    columns = zip(source.labels, source.splits, strict=True)
    return replace(
        source,
        labels=[label if i in kept or split != "train" else None for i, (label, split) in enumerate(columns)],
    )
