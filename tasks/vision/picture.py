"""Pictures of what a vision transformer looks at: attention over images, what it finds, and its patches.

Shapes: n images, C channels, H x W pixels, A heads, R x Q patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from ...tokenizers.errors import UserError
from ...tokenizers.view import View
from ..data import PLAIN
from ..model import Model
from ..run import Run
from .attention import SHARE, attention, mass_mask, patch_features, principal_colours
from .data import Images
from .pixels import Pixels

#: Images in the picture, and heads that have a row or a column of their own.
SHOWN, HEADS = 12, 6

#: The colour of attention, red, green and blue.
GLOW = torch.tensor([0.95, 0.36, 0.05])
#: Pixels that a small picture is enlarged to, each a square: nothing is smoothed away.
LARGE = 160


def draw_attention(run: Run, path: Path) -> str:
    """Draw `SHOWN` test images of a run; see `draw_overview`. Returns what is seen, in one sentence."""
    data = run.data()
    assert isinstance(data, Images)
    return draw_overview(run.model, some_of_each(data), data.pixels or Pixels(), path)


def draw_overview(model: Model, view: View, pixels: Pixels, path: Path, layer: int = -1) -> str:
    """Draw images over their principal components, the mean attention, what it finds, and each head; a PNG.

    Returns:
        What is seen, in one sentence.
    """
    assert isinstance(view.data, Tensor)
    looks, colours = attention(model, view, layer), principal_colours(patch_features(model, view, layer))
    restored = pixels.restore(view.data)
    papers = [on_paper(image, small=True, like=restored) for image in restored]
    size, everyone = papers[0].shape[:2], looks.mean(1)
    outlines = [outlined(paper, mass_mask(look)) for paper, look in zip(papers, everyone, strict=True)]
    found = 1 - strip([1 - inside[:, :, None] for _, inside in outlines])[:, :, 0]  # gaps are outside
    held = f"{SHARE:.0%} of it"
    rows = {
        "image": papers,
        "patches, PCA": [enlarged(each.permute(2, 0, 1), size) for each in colours],
        "all heads": [glowing(p, look, smooth=True) for p, look in zip(papers, everyone, strict=True)],
        held: [faded for faded, _ in outlines],
    }
    for head in range(min(looks.shape[1], HEADS)):
        rows[f"head {head + 1}"] = [glowing(p, look) for p, look in zip(papers, looks[:, head], strict=True)]
    draw_rows(rows, "Attention, " + ("last block" if layer == -1 else f"block {layer}"), path, {held: found})
    where = "the last block" if layer == -1 else f"block {layer}"
    return (
        f"Attention from the class token to the patches of {len(view)} images in {where} (the deeper the "
        f"colour the more, each map scaled to its own maximum), the patches that hold {SHARE:.0%} of it, and "
        "the first three principal components of the patches' features as red, green and blue; a map has "
        f"only {looks.shape[2]} x {looks.shape[3]} cells, and it says where the model looks, not why it "
        "decides."
    )


def draw_rows(
    rows: Mapping[str, Sequence[Tensor]], title: str, path: Path, outlines: Mapping[str, Tensor] | None = None
) -> None:
    """Draw named rows of pictures `(H', W', 3)` of one size; a PNG.

    Args:
        rows: by name.
        title: above it all.
        path: to write.
        outlines: by a row's name, a mask over its whole strip.
    """
    columns = max(map(len, rows.values()))
    figure, axes = _cells(len(rows), 1, wide=max(1.5 + 1.1 * columns, 4.0), tall=1.1)
    for axis, (name, cells) in zip(axes[:, 0], rows.items(), strict=True):
        _show(axis, strip(cells), (outlines or {}).get(name))
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=13, labelpad=12)
    _save(figure, title, path)


def draw_image(image: Tensor, looks: Tensor, colours: Tensor, title: str, path: Path) -> None:
    """Draw one image with its principal components, and of all heads and each one map and mask; a PNG.

    Args:
        image: `(C, H, W)` between 0 and 1.
        looks: `(A, R, Q)`.
        colours: `(R, Q, 3)`, of `principal_colours`.
        title: above it all.
        path: to write.
    """
    maps = [("all heads", looks.mean(0)), *((f"head {h + 1}", look) for h, look in enumerate(looks))]
    length = -(-len(maps) // -(-len(maps) // (HEADS + 1)))  # lines of one length, but for the last
    lines = [maps[start : start + length] for start in range(0, len(maps), length)]
    figure, axes = _cells(2 * len(lines), 1 + len(lines[0]), wide=1.9 * (1 + len(lines[0])), tall=2.1)
    for axis in axes.flat:
        axis.set_axis_off()
    paper = on_paper(image)
    _show(axes[0, 0], paper, title="image")
    _show(axes[1, 0], enlarged(colours.permute(2, 0, 1), paper.shape[:2]), title="patches, PCA")
    for line, members in enumerate(lines):
        for column, (name, look) in enumerate(members, start=1):
            _show(axes[2 * line, column], glowing(paper, look), title=name)
            _show(axes[2 * line + 1, column], *outlined(paper, mass_mask(look)), title=f"{SHARE:.0%} of it")
    _save(figure, title, path, gap=0.24)


def some_of_each(data: Images, count: int = SHOWN) -> View:
    """The plain view of `count` test images, taken from all classes in turn.

    Raises:
        UserError: the test part is empty.
    """
    samples = data.samples("test", plain=True)
    if not len(samples):
        raise UserError("a picture needs images in the test part, but it has none")
    seen: dict[int, int] = {}
    order = []
    for index, label in enumerate(samples.labels):
        seen[label] = seen.get(label, 0) + 1
        order.append((seen[label], label, index))
    chosen = [index for _, _, index in sorted(order)[:count]]
    return samples.collate([samples[0, index] for index in chosen])[PLAIN]


def on_paper(image: Tensor, small: bool = False, like: Tensor | None = None) -> Tensor:
    """`(C, H, W)` as `(H', W', 3)` to look at: enlarged where small, and ink on black as ink on white.

    Of channels that are neither grey nor red, green and blue the mean is shown.

    Args:
        small: no larger than a cell of the overview either.
        like: the images that say whether it is ink on black, so that a row is of one kind; itself alone
            unless given.
    """
    image = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    height, width = image.shape[1:]
    factor = max(1, -(-LARGE // min(height, width)))
    large = enlarged(image, (height * factor, width * factor))
    if small and min(height, width) > LARGE:
        scale = LARGE / min(height, width)
        shrunk = T.resize(image, [round(height * scale), round(width * scale)], antialias=True)
        large = shrunk.permute(1, 2, 0)
    dark = len(image) == 1 and float((image if like is None else like).median()) < 0.2
    return 1 - large.expand(-1, -1, 3) if dark else large.expand(-1, -1, 3)


def strip(cells: Sequence[Tensor]) -> Tensor:
    """Pictures `(H', W', C)` of one size side by side, with a white gap between them; many axes are slow."""
    gap = cells[0].new_ones(cells[0].shape[0], max(2, cells[0].shape[1] // 14), cells[0].shape[2])
    joined = [part for cell in cells for part in (cell, gap)]
    return torch.cat(joined[:-1], dim=1)


def enlarged(image: Tensor, size: tuple[int, ...], smooth: bool = False) -> Tensor:
    """`(C, H, W)` as `(H', W', C)`."""
    mode = "bilinear" if smooth else "nearest"
    return F.interpolate(image[None].float(), size, mode=mode)[0].permute(1, 2, 0)


def glowing(paper: Tensor, look: Tensor, smooth: bool = False) -> Tensor:
    """A map `(R, Q)` over an image `(H', W', 3)`: the deeper the colour, the more attention."""
    heat = enlarged((look / look.max().clamp(min=1e-12))[None], paper.shape[:2], smooth)
    strength, grey = 0.85 * heat, paper.mean(-1, keepdim=True)  # no colour but the map's
    return (0.35 + 0.65 * grey) * (1 - strength) + GLOW * strength * (0.55 + 0.45 * grey)


def outlined(paper: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """The image with what was not found faded, and `(H', W')` where it was, for its outline."""
    inside = enlarged(found[None], paper.shape[:2])
    return torch.where(inside > 0.5, paper, 0.72 + 0.18 * paper), inside[:, :, 0]


def _cells(rows: int, columns: int, wide: float, tall: float) -> tuple[Any, Any]:
    """A figure of `wide` inches with rows of `tall` inches each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    height = tall * rows + 0.6
    figure, axes = plt.subplots(rows, columns, figsize=(wide, height), dpi=100, squeeze=False)
    left = 1.5 / wide if columns == 1 else 0.1 / wide
    figure.subplots_adjust(left=left, right=1 - 0.1 / wide, top=1 - 0.6 / height, bottom=0.05 / height)
    return figure, axes


def _save(figure: Any, title: str, path: Path, gap: float = 0.08) -> None:
    from matplotlib import pyplot as plt

    figure.subplots_adjust(wspace=0.08, hspace=gap)
    figure.suptitle(title, fontsize=15, y=1 - 0.1 / figure.get_figheight(), va="top")
    figure.savefig(path)
    plt.close(figure)


def _show(axis: Any, picture: Tensor, outline: Tensor | None = None, title: str = "") -> None:
    """One cell: a picture `(H', W', 3)`, and maybe the outline of a mask `(H', W')` on it."""
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    axis.imshow(picture.clamp(0, 1).numpy())
    if outline is not None and 0 < float(outline.mean()) < 1:
        axis.contour(outline.numpy(), levels=[0.5], colors=[tuple(GLOW.tolist())], linewidths=1.4)
    if title:
        axis.set_title(title, fontsize=11, pad=3)
    for side in axis.spines.values():
        side.set_visible(False)
