"""What is known of the weights that a model holds; in a file of ours it stands in the safetensors metadata."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from zoo.preprocessing import Preprocessing

KEY = "jax-kernel-zoo"  # of the metadata


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """What is known of weights besides their values. A field is empty if nothing is known.

    Attributes:
      source: where they were loaded from.
      model: registry name of their model.
      options: the keywords of `zoo.create_model` with which it was built, as JSON.
      classes: names of the classes, in the order of the outputs.
      vocabulary: the tokens of the ids that the model reads.
      preprocessing: of images for the model.
      data: the data they were trained on.
      figures: (name, value) pairs of their results, such as ("test accuracy", 0.9918).
    """

    source: str = ""
    model: str = ""
    options: str = "{}"
    classes: tuple[str, ...] = dataclasses.field(default=(), hash=False)
    vocabulary: tuple[str, ...] = dataclasses.field(default=(), hash=False)
    preprocessing: Preprocessing | None = None
    data: str = ""
    figures: tuple[tuple[str, float], ...] = ()

    def to_metadata(self) -> dict[str, str]:
        """As safetensors metadata; the source is left out."""
        values = {
            "model": self.model,
            "options": json.loads(self.options),
            "classes": self.classes,
            "vocabulary": self.vocabulary,
            "preprocessing": self.preprocessing.as_dict() if self.preprocessing else None,
            "data": self.data,
            # JSON knows neither NaN nor infinity.
            "figures": {name: value for name, value in self.figures if math.isfinite(value)},
        }
        return {KEY: json.dumps({name: value for name, value in values.items() if value})}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> WeightsInfo:
        """What `to_metadata` wrote; all but the source is empty where the file is not of ours.

        Raises:
          ValueError: the entry is there, and not what `to_metadata` writes.
        """
        if KEY not in metadata:
            return cls(source)
        try:
            values = json.loads(metadata[KEY])
            unknown = sorted(values.keys() - {field.name for field in dataclasses.fields(cls)})
            if unknown:
                raise ValueError(f"{', '.join(unknown)} not known")
            preprocessing = values.get("preprocessing")
            found = cls(
                source,
                _text(values.get("model", "")),
                json.dumps(dict(values.get("options", {})), sort_keys=True),
                _texts(values.get("classes", [])),
                _texts(values.get("vocabulary", [])),
                Preprocessing.from_dict(preprocessing) if preprocessing else None,
                _text(values.get("data", "")),
                tuple((str(name), float(value)) for name, value in values.get("figures", {}).items()),
            )
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"source: {source}: its metadata {KEY} is damaged ({error})") from None
        return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list of texts")
    return tuple(map(_text, values))


def weights_info(model: Any) -> WeightsInfo:
    """What is known of the weights that were loaded into a model; all fields are empty if none were."""
    return getattr(model, "zoo_weights", None) or WeightsInfo()
