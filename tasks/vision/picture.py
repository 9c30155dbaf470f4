"""Where the class token looks: attention maps over test images, head by head.

Shapes: n images, C channels, H x W pixels, A heads, R x Q patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...tokenizers.errors import UserError
from ...tokenizers.image import ImagePatches
from ...tokenizers.tokens import concat
from ...tokenizers.view import View
from ..data import PLAIN
from ..model import Model
from ..run import Run
from .data import Images
from .pixels import Pixels
from .views import MODALITY

#: Images in the picture.
SHOWN = 12

#: The colour of attention, red, green and blue.
GLOW = torch.tensor([0.95, 0.36, 0.05])


@torch.no_grad()
def attention(model: Model, view: View, layer: int = -1) -> Tensor:
    """Attention from the class token to the patches in one block, `(n, A, R, Q)`; each map sums to one.

    Raises:
        UserError: the model has no class token.
    """
    tokenizers, encoder = model.branch(model.evaluate_with)
    tokenizer = tokenizers[MODALITY]
    assert isinstance(tokenizer, ImagePatches)
    if "class" not in tokenizer.prefix:
        raise UserError(f"attention maps need a class token, but the prefix is {list(tokenizer.prefix)}")
    assert isinstance(view.data, Tensor)
    rows, columns = (side // patch for side, patch in zip(view.data.shape[-2:], tokenizer.patch, strict=True))
    maps = torch.stack(encoder.attention_maps(concat([tokenizer(view)]), layer))  # type: ignore[operator]
    looks = maps[:, :, tokenizer.prefix.index("class"), len(tokenizer.prefix) :]
    return (looks / looks.sum(-1, keepdim=True)).unflatten(-1, (rows, columns))


def draw_attention(run: Run, path: Path) -> str:
    """Draw `SHOWN` test images, the mean attention of the last block over them, and each head; a PNG.

    Returns:
        What is seen, in one sentence.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    data = run.data()
    assert isinstance(data, Images)
    view = some_of_each(data)
    assert isinstance(view.data, Tensor)
    looks, pixels = attention(run.model, view), (data.pixels or Pixels()).restore(view.data)
    heads = looks.shape[1]
    rows = ["image", "all heads", *(f"head {h + 1}" for h in range(heads))]
    figure, axes = plt.subplots(
        len(rows),
        len(pixels),
        figsize=(14, 1.19 * len(rows) + 0.5),
        dpi=100,
        squeeze=False,
        facecolor="white",
    )
    for column, image in enumerate(pixels):
        _show(axes[0, column], image)
        _show(axes[1, column], image, looks[column].mean(0), smooth=True)
        for head in range(heads):
            _show(axes[2 + head, column], image, looks[column, head])
    for row, name in enumerate(rows):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=13, labelpad=12)
    figure.suptitle("Where the class token looks in the last block", fontsize=16, y=1 - 0.15 / len(rows))
    figure.subplots_adjust(
        left=0.08, right=0.995, top=1 - 0.45 / len(rows), bottom=0.012, wspace=0.08, hspace=0.08
    )
    figure.savefig(path)
    plt.close(figure)
    return (
        f"Attention from the class token to the patches of {len(pixels)} held-out images in the last block "
        f"(the deeper the colour the more, each map scaled to its own maximum); a map has only "
        f"{looks.shape[2]} x {looks.shape[3]} cells, and it says where the model looks, not why it decides."
    )


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


def _show(axis: Any, image: Tensor, look: Tensor | None = None, smooth: bool = False) -> None:
    """One cell: the image `(C, H, W)`, and over it one map `(R, Q)`."""
    axis.set_xticks([])
    axis.set_yticks([])
    size = [max(160, side) for side in image.shape[1:]]
    large = F.interpolate(image[None], size, mode="nearest")[0].permute(1, 2, 0)
    if len(image) == 1:
        large = 1 - large.expand(-1, -1, 3)  # dark ink on white paper
    if look is not None:
        heat = F.interpolate((look / look.max())[None, None], size, mode="bilinear" if smooth else "nearest")
        strength = 0.85 * heat[0, 0, :, :, None]
        large = (0.35 + 0.65 * large) * (1 - strength) + GLOW * strength * (0.55 + 0.45 * large)
    axis.imshow(large.numpy())
    for side in axis.spines.values():
        side.set_edgecolor("#c4cad4")
