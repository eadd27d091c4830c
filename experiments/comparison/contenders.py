"""The contenders of a case: XLA's best forms, each hand-written kernel, and the peers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernels
import zoo
from experiments.comparison.case import Case, differentiated
from experiments.comparison.programs import DONATED, UNROLL, Weights, program
from experiments.measuring.clock import Contender
from kernels.recurrent.xla import unrolled
from kernels.runtime.dispatch import ON_HOST

PEERS = ("torch", "torch.compile", "flax")
LOOPS = ("rnn", "lstm", "gru")  # operators that XLA runs as a loop
# What XLA's GPU compiler puts into command buffers when asked for while loops too: launches without the host.
WHILE_BUFFERS = {"xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,WHILE"}


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
    """A function of the case's arrays, compiled, with the zoo's options if none are given, on inputs cast to `precision`."""
    dtypes = [a.dtype(precision) for a in case.arrays()]
    return Contender(
        jax.jit(function, compiler_options=compiler_options or zoo.compiler_options()),
        prepare=lambda inputs: [jnp.asarray(x, dtype) for x, dtype in zip(inputs, dtypes, strict=True)],
        to_numpy=leaves_to_numpy,
    )


def torch_contender(case: Case, precision: str, compiled: bool) -> Contender:
    """torch's version: images channels last in memory, on the GPU where there is one."""
    import torch

    from experiments.peers import torch_runtime

    assert case.torch is not None
    peer, device = case.torch, torch_runtime.device()
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

    to_numpy = lambda out: peer.restore(torch_runtime.to_numpy(out))
    return Contender(both if case.argnums else only, torch_runtime.wait, prepare, to_numpy, profiled=False)


def operator_contenders(case: Case, precision: str, peers: list[str]) -> dict[str, Callable[[], Contender]]:
    """XLA's forms, every hand-written implementation that this device can run, and the peers; each made when called."""
    on_gpu = kernels.device().platform == "cuda"
    made: dict[str, Callable[[], Contender]] = {}
    for name, reason in kernels.available(case.operator).items():
        if name not in ON_HOST and reason is None:
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
    """The correct outputs on the inputs of seed 0: XLA's, in float32 throughout."""
    exact = jax_contender(case, scoped(case, "xla"), jnp.float32)
    with jax.default_matmul_precision("highest"):
        return exact.to_numpy(exact.call(*exact.prepare(case.draw(np.random.default_rng(0)))))


# -- whole models ---------------------------------------------------------------------------------------------------------


def model_contender(
    weights: Weights, precision: Any, implementation: str | None, unroll: int = 1, compiler_options: dict | None = None
) -> Contender:
    case = weights.case
    graph, *state = weights.split(precision)
    dtypes = [a.dtype(precision) for a in case.arrays()]
    state = jax.device_put(state)
    cast = lambda inputs: [jnp.asarray(x, dtype) for x, dtype in zip(inputs, dtypes, strict=True)]
    function, options = program(case, graph, implementation, unroll), compiler_options or zoo.compiler_options()
    to_numpy = lambda out: leaves_to_numpy(out[:2] if case.train else out)
    if case.train and kernels.device().platform == "cpu":
        # Weights are updated in place, as torch's are: fresh memory for them costs time on a CPU. On a GPU it does not, and the
        # profiler calls a program twice with the same arguments.
        step = jax.jit(function, donate_argnums=DONATED, compiler_options=options)
        return Contender(_carrying(step, state), prepare=cast, to_numpy=to_numpy)
    call = jax.jit(function, compiler_options=options)
    return Contender(call, prepare=lambda inputs: [*state, *cast(inputs)], to_numpy=to_numpy)


def _carrying(step: Callable[..., Any], state: list[Any]) -> Callable[..., Any]:
    """Loss and norm of the gradient; each call goes on from the weights of the one before."""
    carried = jax.tree.map(jnp.array, state)  # copies, since they are given away

    def call(*inputs: jax.Array) -> Any:
        loss, norm, *carried[:] = step(*carried, *inputs)
        return loss, norm

    return call


def model_contenders(weights: Weights, precision: str, peers: list[str]) -> dict[str, Callable[[], Contender]]:
    """XLA's code; on a GPU the kernels that the zoo chooses, and of recurrent models XLA's other forms; torch's twin."""
    case = weights.case
    found: dict[str, Callable[[], Contender]] = {"xla": lambda: model_contender(weights, precision, "xla")}
    if kernels.device().platform == "cuda":
        found["zoo"] = lambda: model_contender(weights, precision, None)
        if case.family == "recurrent":
            found["xla +WHILE"] = lambda: model_contender(weights, precision, "xla", compiler_options=WHILE_BUFFERS)
            found[f"xla unroll {UNROLL}"] = lambda: model_contender(weights, precision, "xla", UNROLL)
    for peer in peers:
        if peer != "flax" and case.has_twin:
            found[peer] = functools.partial(_torch_twin, weights, precision, peer == "torch.compile")
    return found


def _torch_twin(weights: Weights, precision: str, compiled: bool) -> Contender:
    from experiments.comparison import torch_models  # imports torch

    return torch_models.torch_contender(weights, precision, compiled)


def model_reference(weights: Weights) -> list[np.ndarray]:
    """Loss and norm of the gradient, or logits, on the inputs of seed 0: XLA's, in float32 throughout."""
    exact = model_contender(weights, jnp.float32, "xla")
    with jax.default_matmul_precision("highest"):
        return exact.to_numpy(exact.call(*exact.prepare(weights.case.draw(np.random.default_rng(0)))))
