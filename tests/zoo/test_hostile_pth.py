"""Files made to be read as weights and to do harm: each ends in one line that names it, in little memory and time."""

from __future__ import annotations

import io
import pathlib
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zoo.weights import WeightsFileError, read_pth


class Storage:
    """Pickled as torch pickles a storage: a persistent id."""

    def __init__(self, key: str, elements: int):
        self.identity = ("storage", Name("torch", "FloatStorage"), key, "cpu", elements)


class Name:
    """Pickled as the global MODULE.NAME."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Tensor:
    def __init__(self, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...]):
        self.arguments = (storage, 0, shape, strides, False, {})


class Pickler(pickle._Pickler):  # Python's own, whose output can be steered
    def persistent_id(self, item: Any) -> Any:
        return item.identity if isinstance(item, Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Tensor):
            self.save(Name("torch._utils", "_rebuild_tensor_v2"))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


def archive(path: pathlib.Path, data: bytes, storages: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as stream:
        stream.writestr("archive/data.pkl", data)
        for key, content in storages.items():
            stream.writestr(f"archive/data/{key}", content)


def memo_index(path: pathlib.Path) -> None:
    data = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.LONG_BINPUT + struct.pack("<I", 2**30) + pickle.STOP
    archive(path, data, {})


def spread_out(path: pathlib.Path) -> None:
    archive(path, pickled({"w": Tensor(Storage("0", 1), (30_000, 30_000), (0, 0))}), {"0": bytes(4)})


def spread_out_often(path: pathlib.Path) -> None:
    tensors = {f"w{n}": Tensor(Storage("0", 1), (1000, 1000), (0, 0)) for n in range(100)}
    archive(path, pickled(tensors), {"0": bytes(4)})


def deflated(path: pathlib.Path) -> None:
    size = 2**28
    archive(path, pickled({"w": Tensor(Storage("0", size // 4), (size // 4,), (1,))}), {"0": bytes(size)}, zipfile.ZIP_DEFLATED)


def shared_lists(path: pathlib.Path) -> None:
    node: list[Any] = []
    for _ in range(60):
        node = [node, node]
    archive(path, pickled({"w": node}), {})


def itself(path: pathlib.Path) -> None:
    node: dict[str, Any] = {}
    node["w"] = node
    archive(path, pickled(node), {})


def deep(path: pathlib.Path) -> None:
    archive(path, pickle.PROTO + b"\x02" + pickle.EMPTY_LIST * 5000 + pickle.APPEND * 4999 + pickle.STOP, {})


def _with_header(path: pathlib.Path, offset: int, value: int) -> None:
    """A whole archive with one field of its directory changed."""
    archive(path, pickled({"w": Tensor(Storage("0", 1), (1,), (1,))}), {"0": bytes(4)})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    struct.pack_into("<H", content, entry + offset, value)
    path.write_bytes(content)


def unknown_compression(path: pathlib.Path) -> None:
    _with_header(path, 10, 97)


def unknown_version(path: pathlib.Path) -> None:
    _with_header(path, 6, 24_2)


def encrypted(path: pathlib.Path) -> None:
    _with_header(path, 8, 1)


def damaged_deflate(path: pathlib.Path) -> None:
    archive(path, pickled({"w": Tensor(Storage("0", 64), (64,), (1,))}), {"0": bytes(256)}, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    start = content.index(zlib.compress(bytes(256), wbits=-15)[:4])
    content[start] ^= 0xFF
    path.write_bytes(content)


def legacy_length(path: pathlib.Path) -> None:
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    identity = ("storage", Name("torch", "FloatStorage"), "0", "cpu", 2**50, None)
    storage = Storage("0", 0)
    storage.identity = identity
    head = b"".join(map(pickled, parts)) + pickled({"w": Tensor(storage, (1,), (1,))}) + pickled(["0"])
    path.write_bytes(head + struct.pack("<q", 2**50) + bytes(64))


MADE = [
    memo_index, spread_out, spread_out_often, deflated, shared_lists, itself, deep, unknown_compression, unknown_version,
    encrypted, damaged_deflate, legacy_length,
]  # fmt: skip


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
@pytest.mark.timeout(60)
def test_it_ends_in_one_line_and_little_memory(make: Callable[[pathlib.Path], None], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "weights.pth"
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsFileError) as error:
            read_pth(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith(f"source: {path}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert peak < 2**27  # 64 MiB may be unpacked, and objects come on top; each file asks for gigabytes or has no end


def test_what_torch_would_write_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "weights.pth"
    values = np.arange(12, dtype=np.float32)
    storage = Storage("0", 12)
    archive(
        path, pickled({"w": Tensor(storage, (3, 4), (4, 1)), "tied": Tensor(storage, (4, 3), (1, 4))}), {"0": values.tobytes()}
    )
    found = read_pth(path)
    np.testing.assert_array_equal(found["w"], values.reshape(3, 4))
    np.testing.assert_array_equal(found["tied"], values.reshape(3, 4).T)
