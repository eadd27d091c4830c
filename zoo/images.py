"""Prepares images for a model. Pillow decodes and resizes them."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.arguments import need
from zoo.preprocessing import Preprocessing
from zoo.registry import model_info
from zoo.weights.info import weights_info
from zoo.weights.names import layer_at

if TYPE_CHECKING:
    from PIL import Image

# 16-bit greys by their names in Pillow; the luminance of red, green and blue as it takes it too.
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_LUMINANCE = (0.299, 0.587, 0.114)


def preprocess(model: nnx.Module | str, image: Any, *, preprocessing: Preprocessing | None = None) -> jax.Array:
    """An image, or a list of images, as the model's input: float32 [batch, height, width, channels].

    Same as torchvision's `weights.transforms()` on `image.convert("RGB")`. Transparency is dropped, grey becomes three equal
    channels, colours become grey if the model reads grey, 16 bits stay 16 bits, and a photograph is rotated according to its
    EXIF data, which torchvision leaves to the caller.

    Args:
      model: a model, whose weights name their preprocessing; or a name from `list_models`, or of published weights, such as
        "resnet50.IMAGENET1K_V1".
      image: a path, a PIL image, or an array [height, width] or [height, width, 1, 3 or 4]: uint8, uint16, or a
        floating-point type with values from 0 to 1.
      preprocessing: replaces the model's.

    Raises:
      ValueError: the image cannot be read, or its preprocessing is unknown.
      ModuleNotFoundError: Pillow is not installed.
    """
    chosen = preprocessing or preprocessing_of(model)
    images = list(image) if isinstance(image, list | tuple) or getattr(image, "ndim", 0) == 4 else [image]
    if not images:
        raise ValueError("image: an empty list given, at least one image is needed")
    return jnp.asarray(np.stack([_prepared(one, chosen) for one in images]))


def preprocessing_of(model: nnx.Module | str) -> Preprocessing:
    """How an image is made ready for a model, or for weights of this name.

    Raises:
      ValueError: nothing says so, or it has another number of channels than the model.
    """
    if isinstance(model, str):
        info = model_info(model.partition(".")[0])
        found = info.preprocessing_for(model) if "." in model else info.preprocessing
        if found is None:
            raise ValueError(
                f"preprocessing: needed, since {model} has no published weights that say how images are made ready"
            )
        return found
    name = getattr(model, "zoo_name", type(model).__name__)
    found = weights_info(model).preprocessing
    if found is None and hasattr(model, "zoo_name"):
        found = model_info(name).preprocessing
    if found is None:
        raise ValueError(f"preprocessing: needed, since nothing says how images are made ready for this {name}")
    channels = layer_at(model, model.input_layer).in_channels if hasattr(model, "input_layer") else found.channels
    if channels != found.channels:
        raise ValueError(f"preprocessing: needed, since this {name} reads {channels} channels, its weights {found.channels}")
    return found


class _ImageFile(io.BufferedReader):
    """An open file; what is asked for beyond its end sets no memory aside, whatever length a chunk of it claims."""

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(io.FileIO(path))
        self._name, self._size = repr(os.fspath(path)), os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, max(0, self._size - self.tell())))

    def __repr__(self) -> str:  # which Pillow puts into its errors
        return self._name


@contextlib.contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """`PIL.Image.open` for a file of a stranger's: in memory no more than a small multiple of the file and of the picture."""
    with _ImageFile(path) as file, pillow().open(file) as picture:
        yield picture


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture with 8 bits each of red, green and blue, as `preprocess` reads it: turned as its EXIF data say, 16 bits scaled.

    Raises:
      ValueError: a picture of floats, or values that 16 bits do not hold.
    """
    first, *_ = _read_picture(picture, grey=False)
    if first.mode == "F":  # 16 bits of grey, from 0 to 1
        first = pillow().fromarray(np.round(np.asarray(first) * 255).astype(np.uint8)).convert("RGB")
    return first


def pillow() -> Any:
    """The module PIL.Image.

    Raises:
      ModuleNotFoundError: Pillow is not installed; the message names the extra.
    """
    return need("PIL.Image", "images", "image: to read and resize it")


def _prepared(image: Any, chosen: Preprocessing) -> np.ndarray:
    planes = _read(image, grey=chosen.channels == 1)
    size = _new_size(planes[0].size, chosen.resize_size)
    method = pillow().Resampling[chosen.interpolation.upper()]
    resized = [plane if plane.size == size else plane.resize(size, method) for plane in planes]
    values = np.dstack([np.asarray(plane) for plane in resized])
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / 255
    low, high = map(np.float32, chosen.value_range)
    values = low + _middle(values, chosen.crop_size) * (high - low)
    return (values - np.array(chosen.mean, np.float32)) / np.array(chosen.std, np.float32)


def _new_size(size: tuple[int, int], wanted: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) of an image of `size` that was resized."""
    if isinstance(wanted, tuple):
        return wanted[1], wanted[0]
    width, height = size
    longer = int(wanted * max(size) / min(size))
    return (wanted, longer) if width <= height else (longer, wanted)


def _middle(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of [height, width, channels], with zeros around where it is larger."""
    for axis, wanted in enumerate(size):
        missing = max(0, wanted - values.shape[axis])
        around = [(0, 0)] * 3
        around[axis] = (missing // 2, missing - missing // 2)
        values = np.pad(values, around)
        start = round((values.shape[axis] - wanted) / 2)
        values = values[start : start + wanted] if axis == 0 else values[:, start : start + wanted]
    return values


def _read(image: Any, grey: bool) -> Sequence[Image.Image]:
    """One picture of 8 bits, or one of float32 from 0 to 1 for each channel, all of the same size."""
    Image = pillow()
    if isinstance(image, str | os.PathLike):
        try:
            with open_image(image) as opened:
                return _read_picture(opened, grey)
        except FileNotFoundError:
            raise ValueError(f"image: {image} does not exist") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"image: {image} cannot be read as an image ({error})") from error
    if isinstance(image, Image.Image):
        try:
            return _read_picture(image, grey)
        except (OSError, ValueError) as error:
            raise ValueError(f"image: a PIL image of mode {image.mode} given that cannot be read ({error})") from error
    return _read_array(image, grey)


def _read_picture(picture: Image.Image, grey: bool) -> Sequence[Image.Image]:
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode in _SIXTEEN_BITS:
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"values from {values.min()} to {values.max()}, 0 to 65535 are needed")
        return _float_planes(values.astype(np.float32)[..., None] / 65535, grey)
    if picture.mode == "F":
        raise ValueError("a picture of floats; give it as an array with values from 0 to 1")
    if picture.mode == "P" and isinstance(picture.info.get("transparency"), bytes):
        picture = picture.convert("RGBA")  # Pillow warns where it is left out directly
    return [picture.convert("L" if grey else "RGB")]


def _read_array(image: Any, grey: bool) -> Sequence[Image.Image]:
    values = np.asarray(image)
    kind = f"{values.dtype} {list(values.shape)}" if values.dtype != object else type(image).__name__
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[-1] not in (1, 3, 4) or 0 in values.shape:
        raise ValueError(
            f"image: {kind} given, a path, a PIL image or an array [height, width] or [height, width, 1, 3 or 4] is needed"
        )
    values = values[..., :3]
    if values.dtype == np.uint8:
        picture = pillow().fromarray(values[..., 0] if values.shape[-1] == 1 else np.ascontiguousarray(values))
        return [picture.convert("L" if grey else "RGB")]
    if values.dtype == np.uint16:
        return _float_planes(values.astype(np.float32) / 65535, grey)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"image: {kind} given, uint8, uint16 or a floating-point type is needed")
    values = values.astype(np.float32)
    if not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
        raise ValueError(f"image: {kind} with values from {values.min():.4g} to {values.max():.4g} given, 0 to 1 are needed")
    return _float_planes(values, grey)


def _float_planes(values: np.ndarray, grey: bool) -> Sequence[Image.Image]:
    """A picture of 32-bit floats for each channel of [height, width, 1 or 3], of which Pillow knows single ones only."""
    if grey and values.shape[-1] == 3:
        values = values @ np.array(_LUMINANCE, np.float32)[:, None]
    planes = [pillow().fromarray(np.ascontiguousarray(values[..., channel])) for channel in range(values.shape[-1])]
    return planes if grey or len(planes) == 3 else planes * 3
