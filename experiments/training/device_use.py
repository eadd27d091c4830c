"""How much of the device a step uses: memory where its backend counts it, arithmetic where its peak is known."""

from __future__ import annotations

from typing import Any

import jax

from experiments.measuring import device_model
from kernels.runtime import gpus


def devices() -> list[jax.Device]:
    """Those of this process."""
    return jax.local_devices()


def peak_memory() -> int | None:
    """Bytes that were in use at once on the fullest device of this process; None where its backend does not count them."""
    said = [device.memory_stats() or {} for device in devices()]
    return max((int(stats["peak_bytes_in_use"]) for stats in said if "peak_bytes_in_use" in stats), default=None)


def peak_operations(precision: str) -> float | None:
    """Operations a second of products in this precision, by the data sheet; None where the device is not known."""
    kind = gpus.kind_of(devices()[0].device_kind)
    if kind not in device_model.MODELS:
        return None
    return device_model.constants(kind)[precision]


def operations(lowered: jax.stages.Lowered, parts: int) -> float:
    """Floating-point operations of a program on each of the devices that share it, as XLA counts them, 0 where it does not.

    They are at least so many: a hand-written kernel's are not among them, and a loop's body counts once. Of the compiled
    program XLA leaves out what it handed to a library, of the program before that it leaves out nothing.
    """
    counts: list[Any] = [lowered.compile().cost_analysis(), lowered.cost_analysis()]
    compiled, whole = ((count or {}).get("flops", 0.0) for count in counts)
    return max(compiled, whole / parts, 0.0)


class DeviceUse:
    """The figures of the steps since they were last asked for."""

    def __init__(self, precision: str):
        self._peak = peak_operations(precision)

    def figures(self, stepper: Any, steps: int, seconds: float) -> dict[str, float]:
        """`peak_memory_bytes`, and `peak_share` of the device's arithmetic, each where it is known.

        Args:
          steps, seconds: taken since the last time.
        """
        found: dict[str, float] = {}
        if (memory := peak_memory()) is not None:
            found["peak_memory_bytes"] = memory
        if self._peak and (count := stepper.operations_per_step):
            found["peak_share"] = count * steps / max(seconds, 1e-9) / self._peak
        return found
