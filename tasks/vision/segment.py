"""`triptych evaluate segmentation`: what the attention of each head finds, beside baselines and an oracle.

Shapes: n images, A heads, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from ..data import SPLITS, Split, generator
from ..evaluation.intervals import bootstrap
from ..model import Model
from ..panel import Row
from ..run import Run, load
from ..table import print_rows, record
from .attention import SHARE, attention, enlarge, grid_of, image_tokenizer, mass_mask
from .dense import Numbers, probe_rows
from .masked import Masked, MaskedImages, images
from .segmentation import best_head, box, objects, oracle

#: `Masked` -> what each head, or whatever stands for one, takes for objects, `(n, A, H, W)` bool.
Finder = Callable[[Masked], Tensor]


def segmentation(
    run: str,
    overrides: Mapping[str, Any],
    masks: str,
    numbers: Numbers = "objects",
    share: float = SHARE,
    beside: str | None = None,
    json: str | None = None,
) -> list[Row]:
    """Attention of the last block against masks, and a linear probe on patches, as tables and as JSON.

    Args:
        run: the run directory.
        overrides: other data, as `{"data.path": "DIR"}`.
        masks: where they are: `alpha`, a folder or an `.npz` (see `find_masks`).
        numbers: what the numbers in the masks are.
        share: of each head's attention that its mask holds.
        beside: another run, a supervised one say, whose attention is measured too.
        json: file for the figures.

    Raises:
        UserError: no test image has a mask with an object.
    """
    opened = load(run)
    data = images(opened, overrides)
    others = {f"beside: {beside}": load(beside)} if beside is not None else {}
    metric = f"Jaccard of the best head ({share:.0%} of the attention)"
    rows = attention_rows(opened, others, overrides, masks, metric, share)
    print_rows(f"{metric}, {run}", rows)
    record(opened.directory, "attention segmentation", rows, json)
    parts: dict[Split, MaskedImages] = {split: MaskedImages(data, masks, split) for split in SPLITS}
    if not all(map(len, parts.values())):
        return rows
    probed = probe_rows(opened, parts, numbers)
    print_rows(f"linear probe on patches, {run}", probed)
    record(opened.directory, "dense linear probe", probed, None)
    return [*rows, *probed]


def attention_rows(
    run: Run, others: Mapping[str, Run], overrides: Mapping[str, Any], masks: str, metric: str, share: float
) -> list[Row]:
    """The run, other runs, an untrained encoder, random maps, a box in the middle, and the best of patches.

    Other runs read the images in their own way, at their own size.
    """
    own = MaskedImages(images(run, overrides), masks, "test")
    areas = [one.double().mean() for index in own.indices for one in objects(own.mask(index))]
    if not areas:
        raise UserError(f"a segmentation needs objects, but {masks!r} has none for the test part")
    area = float(torch.stack(areas).mean())
    tokenizer, draws = image_tokenizer(run.model), generator("attention at random")

    def random(batch: Masked) -> Tensor:
        grid = grid_of(tokenizer, batch.view)
        maps = torch.rand(len(batch.view), run.model.encoder.heads, *grid, generator=draws)
        return enlarge(mass_mask(maps, share), batch.size)

    def centred(batch: Masked) -> Tensor:
        return box(area, batch.size).expand(len(batch.view), 1, -1, -1)

    def best(batch: Masked) -> list[float | None]:
        return [oracle(mask, grid_of(tokenizer, batch.view)) for mask in batch.masks]

    seen = {"this run": looks(run.model, share), "untrained encoder": looks(run.untrained(), share)}
    blind = {"random maps": random, f"box in the middle ({area:.0%} of the area)": centred}
    finders = {name: partial(scores, find) for name, find in (seen | blind).items()}
    each = through(own, {**finders, "best of whole patches": best})
    for name, other in others.items():
        theirs = MaskedImages(images(other, overrides), masks, "test")
        each |= through(theirs, {name: partial(scores, looks(other.model, share))})
    order = ["this run", *others, *(name for name in each if name != "this run" and name not in others)]
    return [_mean_row(name, metric, each[name], name != "this run") for name in order]


def looks(model: Model, share: float) -> Finder:
    """What each head of a model's last block attends to, as masks."""
    return lambda batch: enlarge(mass_mask(attention(model, batch.view), share), batch.size)


def scores(find: Finder, batch: Masked) -> list[float | None]:
    """DINO's figure of every image."""
    return [best_head(found, mask) for found, mask in zip(find(batch), batch.masks, strict=True)]


def through(
    data: MaskedImages, judges: Mapping[str, Callable[[Masked], list[float | None]]]
) -> dict[str, list[float]]:
    """The figures of every image that has an object, by each of the judges; the images are read once."""
    each: dict[str, list[float]] = {name: [] for name in judges}
    for batch in data:
        for name, judge in judges.items():
            each[name] += [figure for figure in judge(batch) if figure is not None]
    return each


def _mean_row(system: str, metric: str, each: list[float], baseline: bool) -> Row:
    values = torch.tensor(each, dtype=torch.float64)
    low, high = bootstrap(values, lambda some: float(some.mean()))
    return Row(system, metric, float(values.mean()), low, high, baseline)
