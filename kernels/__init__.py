"""Operators with hand-written GPU kernels, one public function each; every one also runs as plain JAX.

Imports neither zoo/ nor experiments/: one kernel can be taken alone. Beside the operators' folders: runtime/
(how an implementation is chosen and launched), verification/ (what proves kernels without a GPU), tuned/ (block sizes).
A function has the name of the folder it comes from, and hides it: `import kernels.max_pool as m` gives the function.
`from kernels.max_pool import xla` reaches inside, and so does `kernels.max_pool.package.xla`.
"""

from kernels.batch_norm_act.api import batch_norm_act
from kernels.conv.api import conv
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

__all__ = [
    "CellWeights",
    "ImplementationError",
    "available",
    "batch_norm_act",
    "conv",
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
