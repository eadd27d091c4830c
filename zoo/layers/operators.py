"""The implementation that a whole model asks of the operators in kernels/."""

from __future__ import annotations

import contextlib

import kernels


def implementation_scope(implementation: str | None) -> contextlib.AbstractContextManager:
    """Operators called inside take `implementation` where they have it; None leaves the surrounding choice alone.

    A model names one implementation for all of its operators, but not every operator has each: a convolution, for one, has
    no Triton kernel. Those keep their automatic choice, as under `kernels.use`.
    """
    return contextlib.nullcontext() if implementation is None else kernels.use(implementation)
