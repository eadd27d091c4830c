"""Ways to do an operator's work: XLA's best forms, each hand-written kernel, and the peers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from experiments.comparison.cases import Case, differentiated
from experiments.comparison.timing import Contender
from kernels.recurrent.xla import unrolled

PEERS = ("torch", "torch.compile", "flax")
LOOPS = ("rnn", "lstm", "gru")  # operators that XLA runs as a loop
# What XLA's GPU compiler puts into command buffers when asked for while loops too: launches without the host.
WHILE_BUFFERS = {"xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,WHILE"}
UNROLL = 8  # steps in a turn of XLA's loop


def leaves_to_numpy(out: Any) -> list[np.ndarray]:
    return [np.asarray(leaf.astype(jnp.float32), np.float64) for leaf in jax.tree.leaves(out)]


def scoped(case: Case, implementation: str | None, unroll: int = 1) -> Callable[..., Any]:
    """The case's function of its arrays under one implementation."""
    function = differentiated(case.forward, case.argnums)

    def call(*args: Any) -> Any:
        with kernels.use(implementation), unrolled(unroll):
            return function(*args)

    return call


def jax_contender(case: Case, function: Callable[..., Any], precision: Any, compiler_options: dict | None = None) -> Contender:
    """A function of the case's arrays, compiled, on inputs cast to `precision`."""
    dtypes = [a.dtype(precision) for a in case.arrays()]
    return Contender(
        jax.jit(function, compiler_options=compiler_options),
        prepare=lambda inputs: [jnp.asarray(x, dtype) for x, dtype in zip(inputs, dtypes, strict=True)],
        to_numpy=leaves_to_numpy,
    )


def torch_device() -> str:
    """Where torch runs; set up to be as fast as it can be at the precision that JAX takes by default (tf32 for float32)."""
    import torch

    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_wait(_: Any) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def torch_contender(case: Case, precision: str, compiled: bool) -> Contender:
    """torch's version: images channels last in memory, on the GPU where there is one."""
    import torch

    assert case.torch is not None
    peer, device = case.torch, torch_device()
    forward = peer.forward(torch.nn.functional)
    if compiled:
        forward = torch.compile(forward)
    dtypes = [str(a.dtype(precision)) for a in case.arrays()]

    def prepare(inputs: list[np.ndarray]) -> list[Any]:
        tensors = [torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in inputs]
        return peer.prepare([t.to(getattr(torch, dtype)) for t, dtype in zip(tensors, dtypes, strict=True)])

    def both(*tensors: Any) -> Any:
        *given, dy = tensors
        wanted = range(len(given)) if peer.every else case.argnums
        leaves = [a.detach().requires_grad_(i in wanted) for i, a in enumerate(given)]
        y = forward(*leaves)
        return y.detach(), *torch.autograd.grad(y, [leaves[i] for i in wanted], dy.to(y.dtype))

    def only(*tensors: Any) -> Any:
        with torch.no_grad():
            return forward(*tensors)

    def to_numpy(out: Any) -> list[np.ndarray]:
        leaves = out if isinstance(out, tuple) else (out,)
        return peer.restore([leaf.float().cpu().numpy().astype(np.float64) for leaf in leaves])

    return Contender(both if case.argnums else only, torch_wait, prepare, to_numpy, profiled=False)


def operator_contenders(case: Case, precision: str, peers: list[str]) -> dict[str, Callable[[], Contender]]:
    """XLA's forms, every hand-written implementation that this device can run, and the peers; each made when called."""
    on_gpu = kernels.device().platform == "cuda"
    made: dict[str, Callable[[], Contender]] = {}
    for name, reason in kernels.available(case.operator).items():
        if name != "interpret" and reason is None:
            made[name] = functools.partial(jax_contender, case, scoped(case, name), precision)
    if on_gpu and case.operator in LOOPS:
        made["xla +WHILE"] = lambda: jax_contender(case, scoped(case, "xla"), precision, WHILE_BUFFERS)
        made[f"xla unroll {UNROLL}"] = lambda: jax_contender(case, scoped(case, "xla", UNROLL), precision)
    for peer in peers:
        if peer == "flax" and case.flax is not None:
            made[peer] = lambda: jax_contender(case, differentiated(case.flax, case.argnums), precision)  # type: ignore[arg-type]
        elif peer != "flax" and case.torch is not None:
            made[peer] = functools.partial(torch_contender, case, precision, peer == "torch.compile")
    return made


def operator_reference(case: Case) -> list[np.ndarray]:
    """What the case's outputs on the inputs of seed 0 must be: XLA's, in float32 throughout."""
    exact = jax_contender(case, scoped(case, "xla"), jnp.float32)
    with jax.default_matmul_precision("highest"):
        return exact.to_numpy(exact.call(*exact.prepare(case.draw(np.random.default_rng(0)))))
