"""Devices as JAX describes them, made up."""

from __future__ import annotations

from typing import Any


class JaxDevice:
    """What jax.devices() has: a name, a platform and attributes, some of which older versions lack."""

    def __init__(self, device_kind: str, platform: str = "gpu", **attributes: Any) -> None:
        self.device_kind, self.platform = device_kind, platform
        for name, value in attributes.items():
            setattr(self, name, value)


def nvidia(name: str, capability: str, **attributes: Any) -> JaxDevice:
    return JaxDevice(name, compute_capability=capability, device_vendor="NVIDIA Corporation", **attributes)
