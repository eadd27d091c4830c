"""What `check` and `tune` run: operators on random arrays, of small odd sizes to check and of model sizes to measure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.recurrent.cells import CellWeights
from kernels.runtime import dispatch

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


@dataclasses.dataclass(frozen=True)
class Case:
    """An operator on arrays of certain shapes.

    Attributes:
      operator: its public name.
      name: what tells it from the operator's other cases.
      shapes: argument name -> a shape or a nest of them; an array is standard normal in the case's dtype, divided by the square
        root of its first axis where it is a matrix of weights.
      fixed: argument name -> an array of its own, such as labels.
      options: what else the operator is called with.
      roundings: the tolerance, in units of `dtypes.ROUNDING`: how many roundings an element of a result or gradient has seen.
      backward: whether its gradients are checked and timed too.
      function: which of its functions is called, if not the one of its name.
    """

    operator: str
    name: str
    shapes: Mapping[str, Any]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    roundings: float = 4
    backward: bool = True
    function: str = ""

    def draw(self, dtype: Any, seed: int = 0) -> dict[str, Any]:
        """The floating-point arguments."""
        rng = np.random.default_rng(seed)

        def one(shape: tuple[int, ...]) -> jax.Array:
            scale = shape[0] ** -0.5 if len(shape) == 2 and self.operator in (*GATES, "mlp", "lenet5", "linear_act") else 1.0
            return jnp.asarray(rng.standard_normal(shape) * scale, jnp.float32).astype(dtype)

        return jax.tree.map(one, dict(self.shapes), is_leaf=_is_shape)

    def call(self, arguments: Mapping[str, Any], implementation: str | None) -> Any:
        return dispatch.function(self.operator, self.function)(
            **arguments, **self.fixed, **self.options, implementation=implementation
        )


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and all(isinstance(n, int) for n in node)


def both_ways(fn: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """From the arguments and the gradients of the results to the results and the gradients of the arguments."""

    def run(arguments: Any, cotangents: Any) -> Any:
        results, pullback = jax.vjp(fn, arguments)
        return results, pullback(cotangents)

    return run


def cotangents_of(fn: Callable[[Any], Any], arguments: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    drawn = lambda o: jnp.asarray(rng.standard_normal(o.shape), jnp.float32).astype(o.dtype)
    return jax.tree.map(drawn, jax.eval_shape(fn, arguments))


def by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def said(options: dict[str, Any]) -> str:
    """Options in words."""
    return "".join(f", {name.replace('_', ' ')} {value}" for name, value in options.items())


def max_pool(shape: tuple[int, ...], window: int = 3, strides: int = 2, **options: Any) -> Case:
    given = {"window": window, "strides": strides, **options}
    return Case("max_pool", f"{by(shape)} {window}/{strides}{said(options)}", {"x": shape}, options=given)


def local_response_norm(shape: tuple[int, ...], **options: Any) -> Case:
    return Case("local_response_norm", f"{by(shape)}{said(options)}", {"x": shape}, options=options)


def loss(rows: int, classes: int, smoothing: float = 0.0, labels: np.ndarray | None = None) -> Case:
    numbers = np.random.default_rng(rows).integers(0, classes, rows, np.int32) if labels is None else labels
    name = f"{rows}x{classes}" + f", smoothing {smoothing}" * bool(smoothing)
    fixed, options = {"labels": numbers}, {"label_smoothing": smoothing}
    return Case("softmax_cross_entropy", name, {"logits": (rows, classes)}, fixed, options)


def batch_norm_act(
    shape: tuple[int, ...], activation: str | None = "relu", residual: bool = False, running: bool = False, **options: Any
) -> Case:
    channel = shape[-1:]
    given = {"x": shape, "scale": channel, "bias": channel} | ({"residual": shape} if residual else {})
    moving = np.random.default_rng(3).standard_normal((2, *channel)).astype(np.float32)
    fixed = {"running_mean": jnp.asarray(moving[0]), "running_var": jnp.abs(jnp.asarray(moving[1]))} if running else {}
    name = f"{by(shape)} {activation}" + ", residual" * residual + ", running" * running + said(options)
    # A gradient is a difference of sums over all rows.
    function = "batch_norm_act_running" if running else "batch_norm_act"
    return Case("batch_norm_act", name, given, fixed, {"activation": activation, **options}, roundings=16, function=function)


def linear_act(
    rows: int, inputs: int, outputs: int, activation: str | None = "relu", bias: bool = True, **options: Any
) -> Case:
    given = {"x": (rows, inputs), "w": (inputs, outputs)} | ({"b": (outputs,)} if bias else {})
    name = f"{rows}x{inputs}x{outputs} {activation}" + ", no bias" * (not bias) + said(options)
    return Case("linear_act", name, given, options={"activation": activation, **options}, roundings=8)


def mlp(rows: int, inputs: int, hidden: int, outputs: int, activation: str = "relu", final: str | None = "tanh") -> Case:
    given = {"x": (rows, inputs), "weights": [(inputs, hidden), (hidden, outputs)], "biases": [(hidden,), (outputs,)]}
    options = {"activation": activation, "final_activation": final}
    name = f"{by((rows, inputs, hidden, outputs))} {activation}, {final}"
    return Case("mlp", name, given, options=options, roundings=8, backward=False)


def lenet5(batch: int, channels: int = 1, classes: int = 10) -> Case:
    weights = [(5, 5, channels, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, classes)]
    given = {"x": (batch, 32, 32, channels), "weights": weights, "biases": [(w[-1],) for w in weights]}
    name = f"batch {batch}, {channels} channels, {classes} classes"
    return Case("lenet5", name, given, roundings=32, backward=False)  # five layers, the first two not scaled


def recurrent(
    cell: str,
    batch: int,
    steps: int,
    features: int,
    hidden: int,
    layers: int = 1,
    directions: int = 1,
    lengths: list[int] | None = None,
    state: bool = False,
    biases: bool = True,
    peepholes: bool = False,
    **options: Any,
) -> Case:
    columns = GATES[cell] * hidden
    bias: Any = (columns,) if biases else None

    def weights(inputs: int) -> CellWeights:
        peep = (3, hidden) if peepholes else None
        return CellWeights((inputs, columns), (hidden, columns), bias, bias, None, peep)  # type: ignore[arg-type]

    stack = [[weights(directions * hidden if layer else features)] * directions for layer in range(layers)]
    given: dict[str, Any] = {"x": (batch, steps, features), "layers": stack}
    if state:
        one = (layers * directions, batch, hidden)
        given["initial_state"] = (one, one) if cell == "lstm" else one
    name = f"{batch} of {steps} steps, {features} to {hidden}"
    name += f", {layers} layers" * (layers > 1) + ", both ways" * (directions == 2) + ", no biases" * (not biases)
    name += ", peepholes" * peepholes
    name += ", lengths" * (lengths is not None) + said({k: v for k, v in options.items() if k != "dropout_key"})
    fixed = {} if lengths is None else {"seq_lengths": np.array(lengths, np.int32)}
    # Rounded at every step, and what a state was rounded by comes back through the following ones.
    return Case(cell, name, given, fixed, options, roundings=16)


def conv(shape: tuple[int, ...], outputs: int, kernel: int, groups: int = 1) -> Case:
    given = {"x": shape, "w": (kernel, kernel, shape[-1] // groups, outputs)}
    options = {"strides": 1, "padding": "SAME", "groups": groups}
    return Case("conv", f"{by(shape)} {kernel}x{kernel} to {outputs}", given, options=options, roundings=16)


SMALL = (
    max_pool((2, 13, 11, 5), padding=((1, 1), (1, 1))),
    max_pool((3, 8, 9, 64), 2, 2),
    max_pool((1, 7, 7, 3), ceil_mode=True),
    max_pool((2, 9, 8, 3), dilation=2),
    local_response_norm((2, 5, 5, 7)),
    local_response_norm((3, 9, 9, 96), size=3, alpha=1.0),
    batch_norm_act((4, 7, 5, 24), residual=True),
    batch_norm_act((33, 16), running=True),
    batch_norm_act((2, 3, 3, 130), "gelu"),
    linear_act(37, 29, 41, "gelu"),
    linear_act(130, 64, 96),
    linear_act(16, 48, 32, "leaky_relu", dropout_rate=0.3, dropout_seed=3),
    loss(9, 1000),
    loss(5, 33, 0.1),
    conv((2, 9, 9, 8), 16, 3),
    conv((2, 6, 6, 8), 8, 1),
    Case("avg_pool", "2x9x8x3 3/2", {"x": (2, 9, 8, 3)}, options={"window": 3, "strides": 2, "padding": "SAME"}),
    *(
        Case(
            "conv_transpose", f"2x5x5x6 4x4/{strides} to 8", {"x": (2, 5, 5, 6), "w": (4, 4, 6, 8)}, roundings=16, options=more
        )
        for strides in (2, 3)
        for more in ({"strides": strides, "padding": 1},)
    ),
    lenet5(5),
    lenet5(17, 3),
    mlp(33, 20, 256, 7),
    *(recurrent(cell, 3, 5, 6, 24) for cell in GATES),
    *(recurrent(cell, 2, 4, 5, 16, 2, lengths=[2, 4]) for cell in GATES),
    *(recurrent(cell, 2, 3, 8, 16, 1, 2) for cell in GATES),
    recurrent("gru", 2, 3, 8, 16, 1, 2, reset_after=False),
    recurrent("lstm", 2, 3, 8, 16, 1, 2, peepholes=True),
)
# As in the zoo's models. The first of each operator is what `check` adds on a GPU: blocks enough for what goes wrong between
# them.
LARGE = (
    *(max_pool(shape) for shape in ((256, 28, 28, 480), (1024, 55, 55, 64), (256, 112, 112, 64))),
    *(local_response_norm(shape) for shape in ((256, 56, 56, 64), (1024, 55, 55, 96), (1024, 27, 27, 256))),
    *(
        batch_norm_act(shape, residual=shape[-1] >= 256)
        for shape in ((256, 14, 14, 256), (256, 112, 112, 64), (256, 28, 28, 512))
    ),
    *(linear_act(*sizes) for sizes in ((4096, 1024, 256), (65536, 128, 512), (1024, 9216, 4096))),
    *(loss(*sizes) for sizes in ((4096, 10), (1024, 1000), (8192, 50257))),
    *(mlp(*sizes) for sizes in ((4096, 100, 256, 784), (4096, 784, 256, 1))),
    *(lenet5(batch) for batch in (4096, 256)),
    *(recurrent("lstm", *sizes) for sizes in ((64, 128, 256, 256), (10, 512, 128, 256, 6), (16, 1024, 768, 768))),
    *(recurrent("gru", *sizes) for sizes in ((64, 128, 256, 256), (32, 128, 512, 512, 3))),
    *(recurrent("rnn", *sizes) for sizes in ((64, 128, 256, 256), (8, 256, 1024, 256, 6))),
    recurrent("lstm", 64, 128, 256, 256, 1, 2),
)


@functools.cache
def to_check(operator: str, on_gpu: bool) -> tuple[Case, ...]:
    large = next((case for case in LARGE if case.operator == operator), None)
    return tuple(case for case in SMALL if case.operator == operator) + ((large,) if on_gpu and large else ())
