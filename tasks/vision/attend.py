"""`triptych attend`: pictures of where the class token looks, for any images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...tokenizers.errors import UserError
from ...tokenizers.view import View
from ..data import PLAIN
from ..run import Run, load
from .attention import attention, image_tokenizer, patch_features, principal_colours
from .masked import images
from .options import ImageView
from .picture import SHOWN, draw_image, draw_overview, some_of_each
from .pixels import Pixels
from .read import SUFFIXES, UNREADABLE, read_image
from .views import MODALITY, Picture, ViewMaker


def attend(
    run: str,
    overrides: Mapping[str, Any],
    paths: Sequence[str] = (),
    output: str = "attention",
    layer: int | None = None,
    count: int = SHOWN,
) -> Path:
    """Draw each image with its attention, head by head, and one overview; returns the folder.

    Args:
        run: the run directory.
        overrides: `data.size`, say, for more patches: positions are resampled.
        paths: image files; or one folder, table or `.npz`, of whose test part a few are drawn. The run's own
            data where none is named.
        output: folder for `overview.png` and a PNG for each image.
        layer: block, from 1; the last unless given.
        count: images, at most.

    Raises:
        UserError: the run has no class token, or an image cannot be read.
    """
    from rich.console import Console

    opened = load(run)
    image_tokenizer(opened.model)
    files = [Path(path).expanduser() for path in paths]
    if files and all(file.suffix.lower() in SUFFIXES for file in files):
        if unread := sorted(set(overrides) - {"data.size"}):
            raise UserError(f"expected --data.size alone beside image files, but got --{unread[0]}")
        view, pixels = read_files(opened, files[:count], overrides.get("data.size"))
        names = distinct(files[:count])
    elif len(files) > 1:
        raise UserError(f"expected image files, or one folder or table, but got {', '.join(paths)}")
    else:
        data = images(opened, {**overrides, **({"data.path": paths[0]} if paths else {})})
        view, pixels = some_of_each(data, count), data.pixels or Pixels()
        known = data.names("test")
        names = [Path(known[index]).with_suffix("").as_posix().replace("/", "-") for index in view.ids]
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    _draw(opened, view, pixels, names, folder, -1 if layer is None else layer)
    Console().print(f"{len(names)} images and overview.png in {folder}", highlight=False)
    return folder


def distinct(files: Sequence[Path]) -> list[str]:
    """A name for each file: its own, its folder before it where several share one, else its place too."""
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        names = [f"{file.parent.name}-{file.stem}" if file.parent.name else file.stem for file in files]
    if len(set(names)) < len(names):
        names = [f"{index}-{name}" for index, name in enumerate(names)]
    return names


def read_files(run: Run, files: Sequence[Path], size: Any = None) -> tuple[View, Pixels]:
    """Image files as the run reads its data: the plain view, and how it is normalised.

    Args:
        size: pixels a side instead of the run's own; a multiple of the patch.

    Raises:
        UserError: a file is missing or is no image, or the size is no number.
    """
    facts = run.description["spec"]["data"][MODALITY]
    pixels = Pixels(**facts["pixels"]) if "pixels" in facts else Pixels()
    shape = (facts["size"][0], facts["size"][1])
    if size is not None:
        if not str(size).isdecimal():
            raise UserError(f"expected data.size to be pixels a side, but got {size!r}")
        shape = (int(size), int(size))
    pictures = []
    for index, file in enumerate(files):
        try:
            pictures.append(Picture(read_image(file, facts["channels"]), -1, index))
        except UNREADABLE as error:
            raise UserError(f"cannot read the image {str(file)!r}: {error}") from error
    return ViewMaker(PLAIN, ImageView(), shape, pixels, 0, False)(pictures), pixels


def _draw(run: Run, view: View, pixels: Pixels, names: Sequence[str], folder: Path, layer: int) -> None:
    assert isinstance(view.data, Tensor)
    draw_overview(run.model, view, pixels, folder / "overview.png", layer)
    looks, colours = (
        attention(run.model, view, layer),
        principal_colours(patch_features(run.model, view, layer)),
    )
    for index, name in enumerate(names):
        image = pixels.restore(view.data[index])
        draw_image(image, looks[index], colours[index], name, folder / f"{name}.png")
