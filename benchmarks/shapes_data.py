"""Filled shapes on textures as an `.npz` that `data.path` reads, and what nearest neighbours make of them.

    python benchmarks/shapes_data.py [--output FOLDER]

Ten shapes, 500 of each, parted as MNIST-5k is (360, 40 and 100 of each), on grounds made as its are, 40 x 40
pixels: every picture has a size, a place, a turn and a fill of its own. Masks are the shapes' pixels, for
`triptych evaluate segmentation`. Seconds; writes benchmarks/results/shapes_data.json.

Shapes: m pictures, H x W pixels; a shape is drawn in coordinates (x, y) in which it fills the unit circle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mnist_data import EACH, SIDE, save, texture
from record import write

RADIUS = (8.0, 14.0)  # pixels
FILL = (0.5, 1.0)
#: Points a pixel and axis at which a shape is drawn: its edges are smooth.
FINE = 4
NEIGHBOURS = 3

#: Coordinates `(H, W)` of points -> which of them are inside.
Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]


def star(points: int, inner: float) -> Shape:
    """A star by the radius of its inner corners; with `cos(pi / points)` a regular polygon."""

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        wedge = np.pi / points
        angle = np.abs(np.mod(np.arctan2(y, x), 2 * wedge) - wedge)  # 0 at an inner corner, `wedge` at a tip
        along, across = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
        return (along - inner) * np.sin(wedge) <= across * (np.cos(wedge) - inner)

    return inside


def polygon(corners: int) -> Shape:
    """A regular polygon."""
    return star(corners, float(np.cos(np.pi / corners)))


SHAPES: dict[str, Shape] = {
    "circle": lambda x, y: np.hypot(x, y) <= 1,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) <= 0.25,
    "half circle": lambda x, y: (np.hypot(x, y) <= 1) & (y >= 0),
    "crescent": lambda x, y: (np.hypot(x, y) <= 1) & (np.hypot(x - 0.5, y) > 0.8),
    "bar": lambda x, y: (np.abs(x) <= 0.95) & (np.abs(y) <= 0.3),
    "cross": lambda x, y: (
        (np.minimum(np.abs(x), np.abs(y)) <= 0.3) & (np.maximum(np.abs(x), np.abs(y)) <= 0.95)
    ),
    "triangle": polygon(3),
    "square": polygon(4),
    "hexagon": polygon(6),
    "star": star(5, 0.4),
}


def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures `(m, H, W)` uint8, their masks and labels `(m,)`, by class; the same every time."""
    random = np.random.default_rng(0)
    label = np.repeat(np.arange(len(SHAPES)), EACH)
    kinds = list(SHAPES.values())
    cover = np.stack([drawn(kinds[one], random) for one in label])
    fill = random.uniform(*FILL, (len(label), 1, 1))
    ground = np.stack([texture(random) for _ in label])
    images = np.round(255 * (cover * fill + (1 - cover) * ground)).astype(np.uint8)
    return images, cover >= 0.5, label


def drawn(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """How much of each pixel `(H, W)` a shape covers, at a size, a place and a turn drawn at random."""
    radius, turn = random.uniform(*RADIUS), random.uniform(0, 2 * np.pi)
    top, left = random.uniform(radius, SIDE - radius, 2)
    at = (np.arange(SIDE * FINE) + 0.5) / FINE
    down, right = np.meshgrid((at - top) / radius, (at - left) / radius, indexing="ij")
    inside = shape(right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn))
    covered: np.ndarray = inside.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))
    return covered


def prepare(folder: Path) -> Path:
    """The file, made where it is missing."""
    path = folder / "shapes_textured.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        save(path, *pictures())
    return path


def nearest(path: Path) -> dict[str, float]:
    """Accuracy of 3-NN on pixels over the test part, and for each class."""
    from sklearn.neighbors import KNeighborsClassifier

    with np.load(path) as arrays:
        x, y = (np.concatenate([arrays[f"{part}_{name}"] for part in ("train", "val")]) for name in "xy")
        test, label = arrays["test_x"], arrays["test_y"]
    machine = KNeighborsClassifier(NEIGHBOURS).fit(x.reshape(len(x), -1) / 255, y)
    right = machine.predict(test.reshape(len(test), -1) / 255) == label
    found = {"all": right.mean()} | {name: right[label == one].mean() for one, name in enumerate(SHAPES)}
    return {name: round(float(accuracy), 3) for name, accuracy in found.items()}


def main() -> None:
    """Make the file, judge it, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = Path.home() / ".cache" / "triptych-benchmarks"
    parser.add_argument("--output", type=Path, default=cache, help="folder of the file")
    path = prepare(parser.parse_args().output)
    accuracy = nearest(path)
    with np.load(path) as arrays:
        share = round(float(arrays["test_mask"].mean()), 3)
        sizes = {part: len(arrays[f"{part}_y"]) for part in ("train", "val", "test")}
    print(f"{path}: {sizes}; a shape covers {share} of a picture")
    print(f"3-NN on pixels, chance {1 / len(SHAPES)}: {accuracy}")
    figures = {"pictures": sizes, "covered": share, "chance": 1 / len(SHAPES), "3-NN on pixels": accuracy}
    print(write("shapes_data", figures, ("scikit-learn",)))


if __name__ == "__main__":
    main()
