"""A model card, README.md, made from what is known of a model's weights."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re

from zoo.registry import model_info
from zoo.weights.info import WeightsInfo

FILE = "README.md"
PLACE = "path/to/this/folder"  # until it is known where the model can be loaded from
SHOWN = 20  # classes or tokens that are listed
# The hub's word for what the model is for, and a line that uses it.
_USES = {
    "image": ("image-classification", 'print(zoo.predict(model, "image.png"))'),
    "gan": ("unconditional-image-generation", "images = model.generator(latent_vectors{labels})  # [batch, {input}]"),
    "lm": ("text-generation", "logits = model(token_ids)  # [batch, time]"),
    "tagger": ("token-classification", "logits = model(token_ids)  # [batch, time]"),
    "other": ("", "outputs = model(inputs)  # [batch, {input}]"),
}


def model_card(info: WeightsInfo, place: str = PLACE) -> str:
    """The card of a model: what it is, what it was trained on, what it reached, how it is loaded from `place`.

    The last line holds a digest of what stands above it, so that a card that somebody edited is told from one that nobody did.
    """
    known = model_info(info.model)
    kind = _kind(info)
    purpose, line = _USES[kind]
    line = line.format(input=", ".join(map(str, known.input_shape)), labels=", labels" if info.classes else "")
    head = ["library_name: jax-kernel-zoo", *([f"pipeline_tag: {purpose}"] if purpose else [])]
    options = ", ".join(f"{name}={json.dumps(value)}" for name, value in json.loads(info.options).items())
    parts = [
        "\n".join(["---", *head, "tags:", "- jax", "- flax", f"- {info.model}", "---"]),
        f"# {info.model}" + (f", trained on {_plain(info.data)}" if info.data else ""),
        f"`{info.model}` of jax-kernel-zoo ({known.paper}), in Flax NNX" + (f", built with `{options}`." if options else "."),
    ]
    if info.figures:
        rows = [f"| {_plain(name)} | {_figure(name, value)} |" for name, value in info.figures]
        parts.append("\n".join(["| figure | value |", "| --- | ---: |", *rows]))
    for what, names in (("Classes", info.classes), ("Vocabulary", info.vocabulary)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            parts.append(f"{what} ({len(names)}): {', '.join(map(_plain, names[:SHOWN]))}{more}.")
    if info.preprocessing:
        chosen = info.preprocessing
        parts.append(
            f"An image is resized to {chosen.resize_size} ({chosen.interpolation}), its middle {chosen.crop_size} cut out, its "
            f"values brought to {chosen.value_range}, and normalized by mean {chosen.mean} and deviation {chosen.std}."
        )
    parts.append(f'```python\nimport zoo  # the package jax-kernel-zoo\nmodel = zoo.load_model("{place}")\n{line}\n```')
    return _signed("\n\n".join(parts) + "\n")


def write_card(folder: pathlib.Path, info: WeightsInfo) -> bool:
    """Write the card into a folder; False where a card is there that somebody wrote or edited, which is kept."""
    path = folder / FILE
    if path.exists() and not is_own(path):
        return False
    path.write_text(model_card(info), "utf-8", "replace")
    return True


def is_own(path: pathlib.Path) -> bool:
    """Whether a file is a card just as `model_card` wrote it."""
    text = path.read_text("utf-8", "replace")
    return text == _signed(_unsigned(text))


def moved(text: str, place: str) -> str:
    """A card, edited or not, that says where the model can be loaded from now."""
    new = _unsigned(text).replace(PLACE, place)
    return _signed(new) if text == _signed(_unsigned(text)) else text.replace(PLACE, place)


def _kind(info: WeightsInfo) -> str:
    family = model_info(info.model).family
    if info.preprocessing:
        return "image"
    if family == "gan":
        return "gan"
    kind = info.model.rpartition("_")[2]
    return kind if family == "recurrent" and kind in _USES else "other"


def _figure(name: str, value: float) -> str:
    return f"{value:.2%}" if name.endswith("accuracy") else f"{value:.6g}"


def _plain(text: str) -> str:
    """A text from a file, as it is: without line breaks, and nothing in it a mark of Markdown or HTML."""
    shown = json.dumps(text, ensure_ascii=False)[1:-1] if not text.isprintable() or not text.strip() else text
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", shown) if shown.strip() else f'"{shown}"'


def _signed(text: str) -> str:
    return f"{text}\n<!-- zoo.save_model {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]} -->\n"


def _unsigned(text: str) -> str:
    return re.sub(r"\n<!-- zoo\.save_model [0-9a-f]{16} -->\n\Z", "", text)
