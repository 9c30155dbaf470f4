"""`triptych reconstruct`: test images as they are, as the encoder was shown them, and as they were rebuilt.

Shapes: n images, C channels, H x W pixels, R x Q patches of P values, S packed tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...objectives.objective import Read
from ...objectives.reconstruction import Reconstruction
from ...tokenizers.errors import UserError
from ...tokenizers.tokens import Tokens
from ..model import Model
from ..run import Run, load
from .attention import image_tokenizer
from .data import Images
from .masked import images
from .picture import SHOWN, draw_rows, enlarged, on_paper, some_of_each
from .pixels import Pixels

#: The colour of patches that the encoder did not see, which no grey picture has.
UNSEEN = torch.tensor([0.78, 0.87, 0.96])


@dataclass(frozen=True)
class Rebuilt:
    """Images in the units that the model reads.

    Attributes:
        original: `(n, C, H, W)`, turned if the task turns.
        shown: what the encoder read; patches that it did not are nan.
        rebuilt: what the model says of the pixels that it learns to tell, and the others as they were shown.
        told: `(n, C, H, W)` bool, those pixels.
    """

    original: Tensor
    shown: Tensor
    rebuilt: Tensor
    told: Tensor


def reconstruct(
    run: str, overrides: Mapping[str, Any], output: str = "reconstruction.png", count: int = SHOWN
) -> Path:
    """Draw a few test images, corrupted or masked as in training, beside what the model makes of them.

    Args:
        run: the run directory, of a model that reconstructs (`vision/mae`, `sit`, `sit-v3`, `joint-labels`).
        overrides: other data, as `{"data.path": "DIR"}`, or a harder task for the view.
        output: the PNG file.
        count: images, at most.

    Raises:
        UserError: the model reconstructs nothing.
    """
    from rich.console import Console

    caption = draw_reconstruction(load(run), Path(output), overrides, count)
    Console().print(f"{caption} In {output}", highlight=False, soft_wrap=True)
    return Path(output)


def draw_reconstruction(
    run: Run, path: Path, overrides: Mapping[str, Any] | None = None, count: int = SHOWN
) -> str:
    """Draw test images, what was shown and what was rebuilt, as a PNG; returns what is seen in a sentence."""
    data = images(run, overrides or {})
    found = rebuild(run.model, data, count)
    pixels = data.pixels or Pixels()
    originals = pixels.restore(found.original)
    rows = {
        "original": originals,
        "shown": pixels.restore(found.shown.nan_to_num(0.0)),
        "rebuilt": pixels.restore(found.rebuilt),
    }
    papers = {name: [on_paper(one, small=True, like=originals) for one in row] for name, row in rows.items()}
    unseen = (enlarged(one[:1].isnan(), papers["shown"][0].shape[:2]) for one in found.shown)
    papers["shown"] = [
        UNSEEN.where(mask > 0, paper) for mask, paper in zip(unseen, papers["shown"], strict=True)
    ]
    draw_rows(papers, "Reconstruction of test images", path)
    error = (found.rebuilt - found.original).abs()[found.told].mean()
    mean = (found.original.mean(0) - found.original).abs().expand_as(found.told)[found.told].mean()
    return (
        f"{len(originals)} test images, what the encoder was shown of them (blue: nothing), and what the "
        "model made of it where it learns to tell pixels, the others as they were shown; the mean absolute "
        f"error of what is told is {error:.2f} in the model's units, that of telling the mean of these "
        f"images {mean:.2f}."
    )


@torch.no_grad()
def rebuild(model: Model, data: Images, count: int = SHOWN) -> Rebuilt:
    """`count` test images of all classes in turn, spoilt as in training, and what the student makes of them.

    Raises:
        UserError: the model reconstructs no images.
    """
    tokenizer = image_tokenizer(model)
    member, samples = rebuilding(model), data.samples("test")
    if member is None:
        known = [name for name, _ in model.objective]
        raise UserError(f"expected a run that learns to reconstruct, but its objectives are {known}")
    chosen = some_of_each(data, count).ids
    view = samples.collate([samples[0, index] for index in chosen])[member.view]
    (tokens,) = model.encode({member.view: view}, [Read(member.view)]).values()
    told = member.reconstruct(tokens)
    assert isinstance(view.data, Tensor) and told.source is not None
    shape = view.data.shape
    target, learnt = told.source, member.counted(told)
    values = told.values
    if member.normalise:  # each patch is told but for its own mean and deviation
        mean, scale = target.mean(1, keepdim=True), (target.var(1, keepdim=True) + 1e-6).sqrt()
        values = values * scale + mean
    seen = tokenizer.patches_of(view.data)
    shown = seen.where(~_unseen(told)[:, None], torch.nan)

    def first(patches: Tensor) -> Tensor:
        return tokenizer.images_of(patches, shape)[: len(chosen)]

    return Rebuilt(first(target), first(shown), first(values.where(learnt, seen)), first(learnt))


def rebuilding(model: Model) -> Reconstruction | None:
    """The model's objective that reconstructs, if it has one."""
    return next((one for _, one in model.objective if isinstance(one, Reconstruction)), None)


def _unseen(tokens: Tokens) -> Tensor:
    """`(S,)` bool: content tokens that the encoder did not see."""
    count = sum(tokens.lengths)
    return torch.zeros(count, dtype=torch.bool) if tokens.masked is None else tokens.masked
