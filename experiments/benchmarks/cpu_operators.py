"""The CPU formulations of convolution and pooling beside XLA's own and torch's: python -m experiments.benchmarks.cpu_operators.

XLA's programs are compiled with `zoo.compiler_options`.
The rules in kernels/conv/cpu.py and kernels/max_pool/xla.py were derived from these figures. Writes
experiments/results/cpu/cpu-operators.json. torch is needed for the comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import zoo
from experiments.measuring import clock, result
from kernels.conv import cpu
from kernels.max_pool import xla as pooling

# name: input, window and features, stride, padding
CONVOLUTIONS = {
    "LeNet-5 first": ((128, 32, 32, 1), (5, 5, 1, 6), 1, 0),
    "LeNet-5 second": ((128, 14, 14, 6), (5, 5, 6, 16), 1, 0),
    "ResNet-20 first stage": ((32, 32, 32, 16), (3, 3, 16, 16), 1, 1),
    "ResNet-20 second stage": ((32, 16, 16, 32), (3, 3, 32, 32), 1, 1),
    "3x3, 64 channels": ((16, 32, 32, 64), (3, 3, 64, 64), 1, 1),
    "3x3, 64 to 128, stride 2": ((16, 32, 32, 64), (3, 3, 64, 128), 2, 1),
    "3x3 at 2x2, 256 channels": ((64, 2, 2, 256), (3, 3, 256, 256), 1, 1),
    "3x3 at 1x1, 512 channels": ((64, 1, 1, 512), (3, 3, 512, 512), 1, 1),
    "1x1, 64 to 256": ((16, 28, 28, 64), (1, 1, 64, 256), 1, 0),
}
# name: input, window, stride, padding
POOLS = {
    "LeNet-5 first": ((128, 28, 28, 6), 2, 2, 0),
    "AlexNet first": ((16, 55, 55, 64), 3, 2, 0),
    "ResNet stem": ((8, 56, 56, 64), 3, 2, 1),
    "Inception branch": ((16, 14, 14, 480), 3, 1, 1),
}


def timed(fn: Callable, *args: Any) -> Callable[[], Any]:
    compiled = jax.jit(fn, compiler_options=zoo.compiler_options())
    return lambda: jax.block_until_ready(compiled(*args))


def convolution(shape, w_shape, stride: int, pad: int, rng: np.random.Generator) -> dict[str, dict]:
    """Seconds of the output and of each gradient: ours, XLA's own convolution, torch."""
    x, w = (rng.standard_normal(s, np.float32) for s in (shape, w_shape))
    where = ((stride, stride), ((pad, pad), (pad, pad)))
    dy = np.asarray(cpu.lax_conv(jnp.asarray(x), jnp.asarray(w), *where))
    plain = lambda x, w: cpu.lax_conv(x, w, *where)
    tx, tdy = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()) for a in (x, dy))
    tw = torch.from_numpy(w.transpose(3, 2, 0, 1).copy())
    return {
        "output": clock.interleaved(
            {
                "ours": timed(lambda x, w: cpu.output(x, w, *where), x, w),
                "xla": timed(plain, x, w),
                "torch": lambda: torch.nn.functional.conv2d(tx, tw, None, stride, pad),
            }
        ),
        "input gradient": clock.interleaved(
            {
                "ours": timed(lambda w, dy: cpu.input_gradient(w, dy, shape, *where), w, dy),
                "xla": timed(lambda w, dy: jax.linear_transpose(lambda x: plain(x, w), x)(dy)[0], w, dy),
                "torch": lambda: torch.nn.grad.conv2d_input(tx.shape, tw, tdy, stride, pad),  # type: ignore[attr-defined]
            }
        ),
        "weight gradient": clock.interleaved(
            {
                "ours": timed(lambda x, dy: cpu.weight_gradient(x, dy, w_shape, *where), x, dy),
                "xla": timed(lambda x, dy: jax.linear_transpose(lambda w: plain(x, w), w)(dy)[0], x, dy),
                "torch": lambda: torch.nn.grad.conv2d_weight(tx, tw.shape, tdy, stride, pad),  # type: ignore[attr-defined]
            }
        ),
    }


def pool(shape, window: int, stride: int, pad: int, rng: np.random.Generator) -> dict[str, dict]:
    """Seconds of the output and its gradient together."""
    x = np.maximum(rng.standard_normal(shape, np.float32), 0)
    where = ((window, window), (stride, stride), ((pad, pad), (pad, pad)))
    tx = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()

    def with_gradient(form: Callable) -> Callable:
        def both(x: jax.Array) -> Any:
            y, pullback = jax.vjp(lambda x: form(x, *where), x)
            return pullback(y)

        return timed(both, jnp.asarray(x))

    def torchs() -> None:
        y = torch.nn.functional.max_pool2d(tx, window, stride, pad)
        y.backward(y.detach())

    forms = {"ours": with_gradient(pooling.by_position), "xla": with_gradient(pooling.reduce_window), "torch": torchs}
    return {"output and gradient": clock.interleaved(forms)}


def main() -> None:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "protocol": "float32, the three in turn, 15 rounds; seconds",
        "convolution": {name: convolution(*case, rng) for name, case in CONVOLUTIONS.items()},
        "max_pool": {name: pool(*case, rng) for name, case in POOLS.items()},
    }
    for operator in ("convolution", "max_pool"):
        for name, parts in found[operator].items():
            for part, times in parts.items():
                shown = ", ".join(f"{who} {t['median'] * 1e3:.2f}" for who, t in times.items())
                print(f"{operator}, {name}, {part} (ms): {shown}")
    print(result.save("cpu-operators", found))


if __name__ == "__main__":
    zoo.keep_freed_memory()
    main()
