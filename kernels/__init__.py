"""Operators with hand-written GPU kernels, one public function each; every one also runs as plain JAX.

Imports neither zoo/ nor experiments/: one kernel can be taken alone. How an implementation is chosen: kernels/dispatch.py.
"""

from kernels.dispatch import ImplementationError, device, target, use
from kernels.recurrent.api import gru, lstm, rnn
from kernels.recurrent.cells import CellWeights

__all__ = ["CellWeights", "ImplementationError", "device", "gru", "lstm", "rnn", "target", "use"]
