"""The cases that are about how a launch is cut into blocks: every candidate of tuning, and recurrent plans of real sizes."""

from __future__ import annotations

import dataclasses

from experiments.execution.case import Case
from experiments.execution.cases import recurrent
from kernels.batch_norm_act import config as batch_norm_config
from kernels.commands.cases import GATES, batch_norm_act, lenet5, linear_act, local_response_norm, loss, max_pool, mlp
from kernels.lenet5 import config as lenet5_config
from kernels.linear_act import config as linear_config
from kernels.local_response_norm import config as norm_config
from kernels.max_pool import config as pool_config
from kernels.mlp import config as mlp_config
from kernels.recurrent import config as recurrent_config
from kernels.softmax_cross_entropy import config as loss_config

DTYPES = ("float32", "bfloat16")  # float16 is cut as bfloat16 is
# Shapes that no block divides. Batch norm has so many rows that the grid has more than one group of blocks, and slices enough
# for one to lag behind another.
CUT = (
    (pool_config, max_pool((2, 7, 9, 40), padding="SAME")),
    (norm_config, local_response_norm((2, 5, 3, 96))),
    (loss_config, loss(5, 1000, 0.1)),
    (batch_norm_config, batch_norm_act((2300, 136), residual=True)),
    (linear_config, linear_act(140, 200, 136, "gelu")),
    (mlp_config, mlp(67, 100, 256, 72, "relu", "tanh")),
    (lenet5_config, lenet5(17, 1, 10)),
)


def candidates() -> list[Case]:
    found = []
    for module, what in CUT:
        for config in module.CANDIDATES:
            chosen = dataclasses.asdict(config)
            found.append(Case("candidates", what, _told(chosen), (what.operator, chosen), dtypes=DTYPES))
    for cell in GATES:
        for config in recurrent_config.CANDIDATES:
            what = recurrent(cell, 2 * config.batch, 2, 8, 24)
            chosen = dataclasses.asdict(config)
            # In float32 there are registers for 16 sequences a block alone.
            dtypes = DTYPES if config.batch == 16 else ("bfloat16",)
            found.append(Case("candidates", what, _told(chosen), ("recurrent", chosen), dtypes=dtypes))
    return found


def _told(config: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in config.items())


def real() -> list[Case]:
    """Two time steps are enough for every barrier, and for the parity of what blocks exchange."""
    sizes = [("lstm", 10, 128, 256, 3), ("gru", 10, 128, 256, 3), ("rnn", 10, 128, 256, 3)]
    wide = [("lstm", 40, 64, 512, 1), ("gru", 40, 64, 512, 1), ("rnn", 40, 64, 512, 1)]
    large = [("lstm", 16, 64, 1024, 1), ("gru", 16, 64, 1024, 1), ("rnn", 8, 64, 1024, 1)]
    case = lambda cell, batch, features, hidden, layers: recurrent(cell, batch, 2, features, hidden, layers)
    return [Case("recurrent", case(*size), dtypes=("bfloat16",)) for size in sizes + wide] + [
        Case("recurrent", case(*size), dtypes=("bfloat16",), least=(9, 0)) for size in large
    ]
