"""Reader of torch's .pth files that needs no torch and runs no code from the file.

A file is a pickle that says how storages (raw bytes) become tensors. The unpickler here knows the few names that do so. For
other objects beside the tensors something stands in that does nothing (`foreign`); names that only code to be run has a need of
are refused. What a tensor is made of is checked against the size of its storage.

Layouts: the zip archive of torch >= 1.6 (archive/data.pkl, archive/data/KEY), and the older one of five pickles in a row.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import os
import pathlib
import pickle
import pickletools
import zipfile
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from zoo.weights.foreign import Foreign, stand_in
from zoo.weights.state_dicts import StateDict, find_state_dict

MOST_NODES = 200_000  # objects in a file
SPREAD = 4  # how many times its size a file may unpack to, beside 64 MiB
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}


def in_a_line(error: BaseException) -> str:
    """What an error says, whatever names from a file it quotes."""
    return " ".join(str(error).split())[:200]


class WeightsFileError(ValueError):
    """The file is not a readable file of weights; the message says what is wrong with it."""


@dataclasses.dataclass
class _Storage:
    """Raw elements, filled in after the pickle in a legacy file."""

    dtype: np.dtype
    elements: int
    data: np.ndarray | None = None


@dataclasses.dataclass
class _Tensor:
    """What a tensor is made of, until its storage is there."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, room: _Room) -> np.ndarray:
        data = self.storage.data
        if data is None:
            raise WeightsFileError("a tensor's storage is missing")
        sizes = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(not isinstance(n, int) or n < 0 for n in sizes):
            raise WeightsFileError(f"a tensor of shape {self.shape} and strides {self.strides} is malformed")
        room.take(math.prod(self.shape) * data.itemsize)
        if 0 in self.shape:
            return np.zeros(self.shape, data.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if last >= data.size:
            raise WeightsFileError(f"a tensor of shape {self.shape} reaches beyond its storage of {data.size} elements")
        strides = [s * data.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides).copy()


class _ParameterDict(collections.OrderedDict):
    """An OrderedDict that accepts the attributes (`_metadata`) a pickled state_dict sets."""


class _FactoryDict(_ParameterDict):
    """A defaultdict without what makes its values."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


def _rebuild_tensor(storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any) -> Any:
    if isinstance(storage, Foreign):
        return Foreign()
    if not isinstance(storage, _Storage):
        raise WeightsFileError("a tensor without a storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuild_from_type(rebuild: Any, _type: Any, arguments: tuple, *_: Any) -> Any:
    """A tensor with attributes, which are left out."""
    return rebuild(*arguments) if rebuild in (_rebuild_tensor, _rebuild_parameter) else Foreign()


_DICTS = {"OrderedDict": _ParameterDict, "Counter": _ParameterDict, "defaultdict": _FactoryDict}
_REBUILDERS = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
}


class _Room:
    """What a file may ask for: a bound on its objects, and on the bytes of what is unpacked or spread out from it."""

    def __init__(self, size: int):
        self.bytes = SPREAD * size + 2**26
        self.nodes = MOST_NODES

    def take(self, nbytes: int) -> None:
        self.bytes -= nbytes
        if self.bytes < 0:
            raise WeightsFileError(f"it unpacks to more than {SPREAD} times its size")


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: Any


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, load_storage: Any):
        super().__init__(stream, encoding="latin1")
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "collections" and name in _DICTS:
            return _DICTS[name]
        if f"{module}.{name}" in _REBUILDERS:
            return _REBUILDERS[f"{module}.{name}"]
        if module in ("torch", "torch.storage", "torch.cuda") and name in _STORAGES:
            return _StorageType(np.dtype(_STORAGES[name]))
        found = stand_in(module, name)
        if found is None:
            raise WeightsFileError(f"it asks for {module}.{name}, which a file of weights has no need of; nothing was run")
        return found

    def persistent_load(self, identity: Any) -> Any:
        return self._load_storage(identity)


def _unpickled(stream: BinaryIO, load_storage: Any) -> Any:
    """The next pickle of the stream; one that numbers its objects beyond their count would have Python make room for all."""
    start = stream.tell()
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise WeightsFileError(f"its object number {argument} is among the first {count}")
    stream.seek(start)
    return _Unpickler(stream, load_storage).load()


def _zip_storages(archive: zipfile.ZipFile, folder: str) -> Any:
    storages: dict[str, _Storage] = {}

    def load(identity: Any) -> _Storage | Foreign:
        kind, storage_type, key, _location, elements = identity
        if isinstance(storage_type, type) and issubclass(storage_type, Foreign):
            return storage_type()  # of elements that NumPy does not know
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise WeightsFileError("it holds something that is not a tensor")
        if key not in storages:
            data = np.frombuffer(archive.read(f"{folder}data/{key}"), storage_type.dtype)
            if data.size != elements:
                raise WeightsFileError(f"storage {key} has {data.size} elements, {elements} were announced")
            storages[key] = _Storage(storage_type.dtype, elements, data)
        return storages[key]

    return load


def _read_zip(stream: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(stream) as archive:
        _Room(size).take(sum(member.file_size for member in archive.infolist()))
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsFileError("it is a zip archive without one data.pkl, so torch.save did not write it")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise WeightsFileError("it was written on a big-endian machine, which is not supported")
        return _unpickled(io.BytesIO(archive.read(pickles[0])), _zip_storages(archive, folder))


def _read_legacy(stream: BinaryIO, size: int) -> Any:
    storages: dict[str, _Storage] = {}

    def load(identity: Any) -> _Storage:
        kind, storage_type, key, _location, elements, view = identity
        if kind != "storage" or not isinstance(storage_type, _StorageType) or view is not None:
            raise WeightsFileError("it holds something that is not a tensor")
        return storages.setdefault(key, _Storage(storage_type.dtype, elements))

    plain = lambda: _unpickled(stream, load)
    if plain() != _LEGACY_MAGIC:
        raise WeightsFileError("torch.save did not write it")
    protocol, system = plain(), plain()
    if protocol != 1001 or not system.get("little_endian", True):
        raise WeightsFileError("it was written in a layout that is not supported")
    value, keys = plain(), plain()
    for key in keys:
        if key not in storages:
            raise WeightsFileError(f"storage {key} belongs to no tensor")
        storage = storages[key]
        (elements,) = np.frombuffer(stream.read(8), np.int64)
        if elements != storage.elements or elements * storage.dtype.itemsize > size:
            raise WeightsFileError(f"storage {key} has {elements} elements, {storage.elements} were announced")
        data = np.frombuffer(stream.read(int(elements) * storage.dtype.itemsize), storage.dtype)
        if data.size != elements:
            raise WeightsFileError(f"storage {key} has {data.size} elements, {elements} were announced")
        storage.data = data
    return value


def _finished(value: Any, room: _Room) -> Any:
    room.nodes -= 1
    if room.nodes < 0:
        raise WeightsFileError(f"it holds more than {MOST_NODES:,} objects")
    if isinstance(value, _Tensor):
        return value.array(room)
    if isinstance(value, dict):
        return {name: _finished(item, room) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(item, room) for item in value)
    return value


def read_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a state_dict that torch.save wrote; in a checkpoint, the entry that holds it is looked for.

    Raises:
      WeightsFileError: damaged, cut off, not a file of weights, or one that asks for code to be run.
    """
    return read_checkpoint(path).tensors


def read_checkpoint(path: str | os.PathLike) -> StateDict:
    """As `read_pth`, with what else the file holds."""
    path = pathlib.Path(path)
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            if zipfile.is_zipfile(stream):
                value = _read_zip(stream, size)
            else:
                stream.seek(0)
                value = _read_legacy(stream, size)
            room = _Room(size)
            found = find_state_dict(_finished(value, room), lambda item: isinstance(item, np.ndarray))
        except WeightsFileError as error:
            raise WeightsFileError(f"source: {path}: {in_a_line(error)}") from None
        except Exception as error:  # the readers of pickles, archives and compression raise some twenty kinds
            raise WeightsFileError(
                f"source: {path}: damaged or no file of weights ({type(error).__name__}: {in_a_line(error)})"
            ) from None
    if not found.tensors:
        raise WeightsFileError(f"source: {path}: it holds no state_dict of tensors")
    return found
