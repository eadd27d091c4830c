"""Operators with hand-written GPU kernels, a public function each; every one also runs as plain JAX.

Imports neither zoo/ nor experiments/: one kernel can be taken alone. Beside the operators' folders: runtime/
(how an implementation is chosen and launched), verification/ (what proves kernels without a GPU), tuned/ (block sizes).
A function has the name of the folder it comes from, and hides it: `import kernels.max_pool as m` gives the function.
`from kernels.max_pool import xla` reaches inside, and so does `kernels.max_pool.package.xla`.
"""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable
from typing import Any

from kernels.avg_pool.api import avg_pool
from kernels.batch_norm_act.api import batch_norm_act, batch_norm_act_running
from kernels.conv.api import conv
from kernels.conv_transpose.api import conv_transpose
from kernels.gru.api import gru
from kernels.lenet5.api import lenet5
from kernels.linear_act.api import linear_act
from kernels.local_response_norm.api import local_response_norm
from kernels.lstm.api import lstm
from kernels.max_pool.api import max_pool
from kernels.mlp.api import mlp
from kernels.recurrent.cells import CellWeights
from kernels.rnn.api import rnn
from kernels.runtime.dispatch import ImplementationError, available, device, target, use
from kernels.softmax_cross_entropy.api import softmax_cross_entropy

DISTRIBUTION = "jax-kernel-zoo"  # by this line zoo tells this package from another that is called kernels too
for _other in pathlib.Path(__file__).parents[1].glob("kernels-*.dist-info"):
    warnings.warn(
        f"kernels: {_other.name.removesuffix('.dist-info')}, another distribution whose package is called kernels, is "
        "installed in the same folder, where the two overwrite each other's files. These are jax-kernel-zoo's, and the other "
        "one is broken: give each an environment of its own.",
        stacklevel=2,
    )

__all__ = [
    "CellWeights",
    "ImplementationError",
    "autotune",
    "available",
    "avg_pool",
    "batch_norm_act",
    "batch_norm_act_running",
    "conv",
    "conv_transpose",
    "device",
    "gru",
    "lenet5",
    "linear_act",
    "local_response_norm",
    "lstm",
    "max_pool",
    "mlp",
    "rnn",
    "softmax_cross_entropy",
    "target",
    "use",
]


def autotune(fn: Callable[..., Any], *args: Any, minutes: float = float("inf")) -> list[Any]:
    """Measure, on the device at hand, every implementation and block size of each operator call that `fn(*args)` makes.

    The function is traced, not run. The fastest right ones go to the user's cache, where `implementation=None` finds them from
    then on; a function that jax.jit has compiled before keeps what it has. Everything runs in this process, so run
    `python -m kernels check` first: a kernel that hangs would hang it.

    Args:
      fn: takes `args`; may itself take gradients. args: arrays, or jax.ShapeDtypeStruct in their place.
      minutes: no call is begun that would end later, going by the longest so far.

    Returns:
      `kernels.commands.measure.Found`, one for each call measured: who won, and all times, in seconds.

    Raises:
      RuntimeError: no hand-written kernel runs on this device; the message says why.
      OSError: the cache cannot be written.
    """
    from kernels.commands import measure

    return measure.autotune(fn, args, minutes)
