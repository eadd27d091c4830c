"""What `fuzz` feeds and to whom: for each reader sound files, how a file is changed, and the errors that it may refuse with."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import io
import json
import pathlib
import pickle
import random
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from PIL import Image

import zoo
from experiments import data, recipes, status
from experiments.data import cifar, imagefolder, mnist
from experiments.errors import UserError
from experiments.generation.images import read_latents
from experiments.measuring import result
from experiments.training import checkpoints, restore, run_files
from zoo.weights import WeightsFileError, WeightsMismatchError


class Sample(NamedTuple):
    """A sound file: its content, and what packs that, so that what is inside can be changed too."""

    content: bytes
    pack: Callable[[bytes], bytes] = bytes

    def whole(self) -> bytes:
        return self.pack(self.content)


class Reader(NamedTuple):
    """Reads the file named `file`; `samples` are sound ones, `refusals` the errors that refuse one."""

    file: str
    samples: Callable[[], list[Sample]]
    read: Callable[[pathlib.Path], Any]
    refusals: tuple[type[Exception], ...] = (ValueError,)


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def _cifar_python() -> list[Sample]:
    images, labels = _random().integers(0, 256, (2, 3072), np.uint8), [3, 7]
    entries: dict[bytes, Any] = {b"data": images, b"labels": labels, b"filenames": [b"a.png", b"b.png"]}
    return [
        Sample(pickle.dumps(entries | {b"labels": kind}, protocol))
        for protocol in (2, 4)
        for kind in (labels, np.array(labels))
    ]


def _tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("cifar/readme", "cifar/data_batch_1.bin"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _cifar_binary() -> list[Sample]:
    return [Sample(bytes([label]) + _random().integers(0, 256, 3072, np.uint8).tobytes()) for label in (0, 9)]


def _cifar_archive() -> list[Sample]:
    (sample, _), pack = _cifar_binary(), functools.partial(gzip.compress, compresslevel=1, mtime=0)
    return [Sample(_tar(sample.content), pack), Sample(_tar(sample.content))]


def _idx() -> list[Sample]:
    content = struct.pack(">4B3I", 0, 0, 8, 3, 4, 5, 5) + _random().integers(0, 256, 100, np.uint8).tobytes()
    return [Sample(content, functools.partial(gzip.compress, mtime=0)), Sample(content)]


def _npy() -> list[Sample]:
    samples = []
    for array in (np.ones((3, 8), np.float32), np.ones((2, 8), np.int64), np.asfortranarray(np.ones((4, 8)))):
        stream = io.BytesIO()
        np.save(stream, array)
        samples.append(Sample(stream.getvalue()))
    return samples


@functools.cache
def _linear() -> nnx.Module:
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def _safetensors() -> list[Sample]:
    import safetensors.numpy

    tensors: dict[str, np.ndarray] = {"weight": np.ones((3, 2), np.float32), "bias": np.ones(3, np.float16), "n": np.array(3)}
    return [Sample(safetensors.numpy.save(tensors, metadata)) for metadata in (None, {"format": "pt"})]


def _pth() -> list[Sample]:
    import torch

    stream, old = io.BytesIO(), io.BytesIO()
    tensors = {"weight": torch.ones(3, 2), "bias": torch.ones(3, dtype=torch.bfloat16), "counter": torch.tensor(3)}
    torch.save(tensors, stream)
    torch.save({"state_dict": tensors, "epoch": 3}, old, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(stream) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    inner = next(name for name in parts if name.endswith("data.pkl"))

    def pack(content: bytes) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for name, part in (parts | {inner: content}).items():
                archive.writestr(name, part)
        return made.getvalue()

    return [Sample(parts[inner], pack), Sample(stream.getvalue()), Sample(old.getvalue())]


def _weights(path: pathlib.Path) -> None:
    with contextlib.suppress(WeightsMismatchError):  # then it was read, and holds other names or shapes
        zoo.load_weights(_linear(), path)


def _images() -> list[Sample]:
    picture, samples = Image.fromarray(_random().integers(0, 256, (9, 12, 3), np.uint8)), []
    for form, mode in (("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA")):
        stream = io.BytesIO()
        picture.convert(mode).save(stream, form)
        samples.append(Sample(stream.getvalue()))
    return samples


def _results() -> list[Sample]:
    head = {"measured": True, "how": "measured", "device": "cpu", "versions": {"jax": "1"}, "date": "2026-01-01"}
    rows = {"experiment": "ptx", "measured": False, "how": "executed", "commit": "", "protocol": "", "cases": []}
    return [Sample(json.dumps(head | more).encode()) for more in ({"experiment": "parity", "models": {"x": 1}}, rows)]


def _settings() -> list[Sample]:
    folder = {"recipe": dataclasses.asdict(recipes.find("resnet18", "imagefolder:photos"))}
    known = {"recipe": dataclasses.asdict(recipes.find("lenet5", None)), "preprocessing": None}
    return [Sample(json.dumps(kept).encode()) for kept in (folder | {"preprocessing": _LOOK.as_dict()}, known)]


def _settings_of(path: pathlib.Path) -> None:
    restore.recipe_of(path.parent)
    run_files.read_preprocessing(path.parent)
    status.table(path.parent, [status.status_of(path.parent)])


def _figures() -> list[Sample]:
    rows: list[dict[str, Any]] = [
        {"step": 10, "split": "train", "loss": 0.5, "learning_rate": 1e-3, "examples_per_second": 1e4},
        {"step": 10, "split": "test", "loss": 0.25, "accuracy": 0.75, "real_accuracy": 0.9},
        {"step": 20, "split": "train", "loss": 2.5e-5, "learning_rate": 0.0},
    ]
    return [Sample("".join(json.dumps(row) + "\n" for row in rows[:count]).encode()) for count in (2, 3)]


def _figures_of(path: pathlib.Path) -> None:
    run_files.read_metrics(path.parent)
    status.table(path.parent, [status.status_of(path.parent)])


def _summary() -> list[Sample]:
    return [Sample(json.dumps({"model": "lenet5", "steps": 20, "eval_loss": 0.5, "eval_accuracy": 0.75, **more}).encode())
            for more in ({}, {"parameters_sha256": "0" * 64})]  # fmt: skip


def _summary_of(path: pathlib.Path) -> None:
    run_files.read_json(path)
    status.table(path.parent, [status.status_of(path.parent)])


@functools.cache
def _checkpoint_files() -> dict[str, bytes]:
    """A checkpoint of a linear layer by the names of its files."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(checkpoints.Checkpoints(pathlib.Path(folder))) as kept:
        kept.save(1, {"params": nnx.state(_linear())}, {"step": 1}, loss=0.5, wait=True)
        root = pathlib.Path(folder, "1")
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _checkpoint() -> list[Sample]:
    """Behind a byte that says which file of the checkpoint it is."""
    files = _checkpoint_files().values()
    return [Sample(content, functools.partial(bytes.__add__, bytes([place]))) for place, content in enumerate(files)]


def _checkpoint_of(path: pathlib.Path) -> None:
    content, files = path.read_bytes(), _checkpoint_files()
    changed_one = list(files)[content[0] % len(files)] if content else None
    folder = path.parent / "1"
    for name, sound in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content[1:] if name == changed_one else sound)
    _weights(folder)


def _part(path: pathlib.Path) -> Any:
    return cifar.read_part(str(path.parent if path.suffix != ".gz" else path), ("data_batch_1",), cifar.CIFAR10)


_LOOK = imagefolder.square(8)
TEXT = Sample("def f(x):\n    return 'é'\n".encode() * 4)
TAGGED = Sample(b"the\tDET\ncat\tNOUN\n\nruns\tVERB\nfast\tADV\n\n" * 3)
READERS: dict[str, Reader] = {
    "cifar, Python": Reader("data_batch_1", _cifar_python, _part),
    "cifar, binary": Reader("data_batch_1.bin", _cifar_binary, _part),
    "cifar, archive": Reader("cifar.tar.gz", _cifar_archive, _part),
    "mnist": Reader("train-images-idx3-ubyte.gz", _idx, mnist.read_idx),
    "text": Reader("t.txt", lambda: [TEXT], lambda path: data.load(f"text:{path}"), (UserError,)),
    "tagging": Reader("t.tsv", lambda: [TAGGED], lambda path: data.load(f"tagging:{path}"), (UserError,)),
    "image": Reader("i.png", _images, lambda path: imagefolder.read_image(path, _LOOK, None)),
    "image for a model": Reader("i.png", _images, lambda path: zoo.preprocess("", path, preprocessing=_LOOK)),
    "latents": Reader("z.npy", _npy, lambda path: read_latents(path, 8, 1000), (UserError,)),
    "result file": Reader("r.json", _results, result.read, (UserError,)),
    "run's config.json": Reader("config.json", _settings, _settings_of, (UserError,)),
    "run's metrics.jsonl": Reader("metrics.jsonl", _figures, _figures_of, (UserError,)),
    "run's summary.json": Reader("summary.json", _summary, _summary_of, (UserError,)),
    "run's checkpoint": Reader("checkpoint", _checkpoint, _checkpoint_of, (WeightsFileError,)),
    "safetensors": Reader("w.safetensors", _safetensors, _weights, (WeightsFileError,)),
    "pth": Reader("w.pth", _pth, _weights, (WeightsFileError,)),
}

# Numbers at which sizes, signs and indices turn over.
TURNING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (b"", b"\0", b"\xff\xff", b"-1", b"1e999", b"NaN", b"null", b"9" * 25, b"[" * 3000, b"\x80\x04", b"../", b"\n")


@functools.cache
def samples(name: str) -> list[Sample]:
    """The sound files of a reader."""
    return READERS[name].samples()


def changed(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """One change of a file: bytes replaced, put in, cut out, doubled, or its end taken from `other`."""
    start = draw.randrange(len(content) + 1)
    stop = min(len(content), start + draw.choice((0, 1, 1, 2, 4, 8, 64, 1000)))
    kind = draw.randrange(7)
    if kind == 0:
        middle = bytes(draw.randrange(256) for _ in content[start:stop])
    elif kind == 1:
        middle = draw.choice(TURNING).to_bytes(8, draw.choice(("little", "big")))[: draw.choice((1, 2, 4, 8))]
        stop = min(len(content), start + len(middle))
    elif kind == 2:
        middle = draw.choice(WORDS)
    elif kind == 3:
        middle = b""
    elif kind == 4:
        middle = content[start:stop] * draw.choice((2, 3, 50))
    elif kind == 5:
        return content[:start] + other[draw.randrange(len(other) + 1) :]
    else:
        middle, stop = bytes(byte ^ 1 << draw.randrange(8) for byte in content[start : start + 1]), start + 1
    return content[:start] + middle + content[stop:]


def mutated(name: str, draw: random.Random) -> bytes:
    """A sound file of a reader after one to four changes, inside what is packed or to the whole."""
    sample, other = draw.choice(samples(name)), draw.choice(samples(name))
    inside = draw.random() < 0.5
    content, rest = (sample.content, other.content) if inside else (sample.whole(), other.whole())
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = changed(content, rest, draw)
    return sample.pack(content) if inside else content
