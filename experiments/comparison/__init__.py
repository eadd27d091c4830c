"""XLA's code, hand-written kernels and peers compared; `compare` does it for functions of one's own."""

from experiments.comparison.functions import Comparison, compare

__all__ = ["Comparison", "compare"]
