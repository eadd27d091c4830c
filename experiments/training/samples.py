"""Pictures of generated images: grids, strips over time, interpolations."""

from __future__ import annotations

import math
import pathlib

import numpy as np
from PIL import Image

from experiments.errors import UserError
from kernels.runtime.sizes import cdiv


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Images from -1 to 1 as uint8."""
    return np.round((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)


def as_picture(image: np.ndarray) -> Image.Image:
    """uint8 [height, width, channels], one channel or three."""
    if image.shape[-1] not in (1, 3):
        raise UserError(f"images: {image.shape[-1]} channels, a picture has one or three")
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def grid(images: np.ndarray, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """[n, height, width, channels] as one picture [.., .., channels]; rows and columns as near to a square as n allows."""
    count, height, width, channels = images.shape
    if not count:
        raise UserError("num: 0 images, at least one is needed for a grid")
    columns = columns or math.ceil(math.sqrt(count))
    rows = cdiv(count, columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for index, image in enumerate(to_bytes(images)):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = image
    return sheet


def in_columns(images: np.ndarray, classes: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """The first `rows` images of each class 0 to columns - 1 as [rows * columns, height, width, channels] for a grid; white
    where a class has fewer."""
    found = np.ones((rows, columns, *images.shape[1:]), images.dtype)
    for column in range(columns):
        chosen = images[classes == column][:rows]
        found[: len(chosen), column] = chosen
    return found.reshape(-1, *images.shape[1:])


def save_grid(images: np.ndarray, path: pathlib.Path, columns: int | None = None) -> None:
    """Write a grid as PNG, small images enlarged without smoothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = as_picture(grid(images, columns))
    scale = max(1, round(560 / max(picture.size)))
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path)


def save_strip(folder: pathlib.Path, gif: pathlib.Path, strip: pathlib.Path, most: int = 40) -> None:
    """How the samples in `folder` changed: as an animation, and five of them side by side."""
    files = sorted(folder.glob("[0-9]*.png"))
    if not files:
        return
    chosen = [files[i] for i in sorted({round(p) for p in np.linspace(0, len(files) - 1, min(most, len(files)))})]
    frames = [Image.open(file).convert("P") for file in chosen]
    frames[0].save(gif, save_all=True, append_images=frames[1:], duration=[200] * (len(frames) - 1) + [2000], loop=0)
    five = [Image.open(files[round(p)]) for p in np.linspace(0, len(files) - 1, min(5, len(files)))]
    width, height = five[0].size
    sheet = Image.new(five[0].mode, (len(five) * (width + 8) - 8, height), "white")
    for index, picture in enumerate(five):
        sheet.paste(picture, (index * (width + 8), 0))
    sheet.save(strip)


def interpolate(z: np.ndarray, steps: int) -> np.ndarray:
    """Latent vectors [pairs * steps, size] along great circles between consecutive pairs of z, [2 * pairs, size].

    Normal vectors of high dimension lie close to a sphere, so a straight line between two leaves what the generator knows
    (White 2016, Sampling generative networks).
    """
    start, end = z[0::2, None], z[1::2, None]
    length = np.linalg.norm(start, axis=-1, keepdims=True), np.linalg.norm(end, axis=-1, keepdims=True)
    cosine = np.clip((start * end).sum(-1, keepdims=True) / (length[0] * length[1]), -1, 1)
    angle = np.maximum(np.arccos(cosine), 1e-6)
    t = np.linspace(0, 1, steps)[None, :, None]
    path = (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)
    return path.reshape(-1, z.shape[1]).astype(z.dtype)
