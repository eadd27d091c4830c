"""torch's device, with the settings under which it is fastest."""

from __future__ import annotations

from typing import Any

import torch


def device() -> str:
    """torch's device, set to the precision that JAX takes by default (tf32 for float32)."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait(_: Any) -> None:
    """Block until all launched work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def to_numpy(out: Any) -> list[Any]:
    """Outputs as float64 arrays, images channels last."""
    leaves = out if isinstance(out, tuple) else (out,)
    return [leaf.float().cpu().numpy().astype("float64") for leaf in leaves]
