"""Files of weights, written in one step or not at all, and the same bytes for the same values."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from kernels.runtime.files import put_in_place


def write_safetensors(path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata to a .safetensors file; an error leaves what was there."""
    import safetensors.numpy

    content = safetensors.numpy.save(dict(arrays), dict(metadata))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.writelines(_in_order(content))
        put_in_place(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _in_order(content: bytes) -> tuple[bytes, bytes, memoryview]:
    """A file in pieces, its metadata sorted: safetensors writes them in an order that changes from call to call."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as safetensors does, so that the values are aligned
    return len(text).to_bytes(8, "little"), text, memoryview(content)[end:]
