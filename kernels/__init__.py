"""Operators with hand-written GPU kernels, one public function each; every one also runs as plain JAX.

Imports neither zoo/ nor experiments/: one kernel can be taken alone. How an implementation is chosen: kernels/dispatch.py.
"""

from kernels.dispatch import ImplementationError, device, target, use

__all__ = ["ImplementationError", "device", "target", "use"]
