"""What a linear probe reads off patches: classes of pixels.

Shapes: n images, R x Q patches, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from ...tokenizers.view import View
from ..data import Split, generator
from ..evaluation.heads import Recipe
from ..evaluation.intervals import bootstrap
from ..evaluation.sweep import Parts, Sample, choose
from ..model import Model
from ..panel import Row
from ..run import Run
from .attention import enlarge, grid_of, image_tokenizer, patch_features
from .masked import MaskedImages
from .masks import VOID
from .segmentation import mean_iou, overlaps, patch_classes

#: Patches that the probe learns from, about; as many of every image.
PATCHES = 50_000

#: Whether the numbers in masks tell objects apart (all are one class to the probe) or name classes.
Numbers = Literal["objects", "classes"]


def probe_rows(run: Run, parts: Mapping[Split, MaskedImages], numbers: Numbers) -> list[Row]:
    """A linear classifier of patches: the run's, an untrained encoder's and the raw pixels'."""
    classes = 2 if numbers == "objects" else 1 + max(_top(part) for part in parts.values())
    metric = f"mean IoU of {classes} classes"
    untrained = run.untrained()
    systems: dict[str, Callable[[View], Tensor]] = {
        "this run, patches": lambda view: patch_features(run.model, view),
        "untrained encoder, patches": lambda view: patch_features(untrained, view),
        "raw pixels of patches": lambda view: _raw_patches(run.model, view),
    }
    rows = []
    for system, read in systems.items():
        overlap = _probe(read, parts, classes, numbers)
        low, high = bootstrap(overlap, mean_iou)
        rows.append(Row(system, metric, mean_iou(overlap), low, high, not system.startswith("this run")))
    return rows


def _probe(
    read: Callable[[View], Tensor], parts: Mapping[Split, MaskedImages], classes: int, numbers: Numbers
) -> Tensor:
    """Heads trained, one chosen on the validation part, and the test part's overlaps, `(images, 2, K)`."""
    samples = {split: _patches(read, parts[split], classes, numbers) for split in ("train", "val")}
    few = (samples["val"],)
    chosen, rate = choose([Parts("", ((samples["train"],), few, few))], Recipe(epochs=20, batch=512), seeds=1)
    found = []
    for batch in parts["test"]:
        features = read(batch.view)
        logits = chosen.probes[0].logits([features.flatten(0, 2)])[rate]
        told = enlarge(logits.argmax(1).view(features.shape[:3])[:, None], batch.size)[:, 0]
        true = _classes(batch.masks, numbers)
        found += [overlaps(t, m, classes) for t, m in zip(told, true, strict=True)]
    return torch.stack(found)


def _patches(read: Callable[[View], Tensor], data: MaskedImages, classes: int, numbers: Numbers) -> Sample:
    """Features and classes of the patches that are not void."""
    draws, each = generator("patches"), -(-PATCHES // len(data))
    xs, labels = [], []
    for batch in data:
        features = read(batch.view)
        grid = (features.shape[1], features.shape[2])
        for x, mask in zip(features.flatten(1, 2), _classes(batch.masks, numbers), strict=True):
            label = patch_classes(mask, grid, classes)
            index = (label != VOID).nonzero().squeeze(1)
            index = index[torch.randperm(len(index), generator=draws)[:each]]
            xs.append(x[index])
            labels.append(label[index])
    return Sample(torch.cat(xs), torch.cat(labels))


def _top(data: MaskedImages) -> int:
    """The largest number in any mask."""
    tops = [mask[mask != VOID].max() for index in data.indices if (mask := data.mask(index)).ne(VOID).any()]
    return int(max(tops, default=torch.tensor(0)))


def _classes(masks: Tensor, numbers: Numbers) -> Tensor:
    if numbers == "classes":
        return masks
    return torch.where(masks == VOID, masks, (masks > 0).to(masks.dtype))


def _raw_patches(model: Model, view: View) -> Tensor:
    tokenizer = image_tokenizer(model)
    source = tokenizer.embed(view.whole()).source
    assert source is not None
    return source.view(len(view), *grid_of(tokenizer, view), -1)
