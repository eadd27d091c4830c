"""The description of a model's preprocessing, which `zoo.images` applies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resize, center-crop, scale and normalize, in this order.

    Attributes:
      resize_size: length of the shorter side, keeping the aspect ratio; or (height, width).
      crop_size: (height, width) of the center crop; black where it extends beyond the image.
      interpolation: of the resizing, which antialiases (except for "nearest").
      mean, std: per channel, 1 (grey) or 3 (RGB); the model reads (value - mean) / std.
      value_range: the values of black and of white before normalization.
    """

    resize_size: int | tuple[int, int]
    crop_size: tuple[int, int]
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    value_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        sizes = self.resize_size if isinstance(self.resize_size, tuple) else (self.resize_size, self.resize_size)
        for name, pair in (("resize_size", sizes), ("crop_size", self.crop_size)):
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(n, int) and n > 0 for n in pair)):
                kinds = "a whole number above 0 or a pair of them" if name == "resize_size" else "(height, width)"
                raise ValueError(f"{name}: {getattr(self, name)!r} given, {kinds} is needed")
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise ValueError(f"interpolation: {self.interpolation!r} given, it is one of {known}")
        for name, lengths in (("mean", (1, 3)), ("std", (len(self.mean),)), ("value_range", (2,))):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) not in lengths or not all(map(_finite, values)):
                needed = " or ".join(map(str, lengths))
                raise ValueError(f"{name}: {values!r} given, a tuple of {needed} numbers is needed")
        if 0 in self.std:
            raise ValueError(f"std: {self.std!r} given, numbers other than 0 are needed")

    @property
    def channels(self) -> int:
        return len(self.mean)

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold, and `from_dict` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `as_dict`, lists for tuples too.

        Raises:
          ValueError: a value outside its range, or a name that is missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(values) != names:
            raise ValueError(
                f"preprocessing: {', '.join(sorted(values)) or 'nothing'} given, {', '.join(sorted(names))} needed"
            )
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**plain)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def imagenet(resize_size: int) -> Preprocessing:
    """That of torchvision's weights: 224 x 224 out of the middle, mean and deviation of ImageNet's training images."""
    return Preprocessing(resize_size, (224, 224))
