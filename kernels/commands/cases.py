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
    """

    operator: str
    name: str
    shapes: Mapping[str, Any]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    roundings: float = 4
    backward: bool = True

    def draw(self, dtype: Any, seed: int = 0) -> dict[str, Any]:
        """The floating-point arguments."""
        rng = np.random.default_rng(seed)

        def one(shape: tuple[int, ...]) -> jax.Array:
            scale = shape[0] ** -0.5 if len(shape) == 2 and self.operator in (*GATES, "mlp", "lenet5", "linear_act") else 1.0
            return jnp.asarray(rng.standard_normal(shape) * scale, jnp.float32).astype(dtype)

        return jax.tree.map(one, dict(self.shapes), is_leaf=_is_shape)

    def call(self, arguments: Mapping[str, Any], implementation: str | None) -> Any:
        return dispatch.function(self.operator)(**arguments, **self.fixed, **self.options, implementation=implementation)


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


def _labels(rows: int, classes: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, classes, rows).astype(np.int32)


def _max_pool(shape: tuple[int, ...], window: int = 3, strides: int = 2, **options: Any) -> Case:
    name = f"{_by(shape)} {window}/{strides}" + "".join(f" {key} {value}" for key, value in options.items())
    return Case("max_pool", name, {"x": shape}, options={"window": window, "strides": strides, **options})


def _batch_norm(shape: tuple[int, ...], residual: bool = False, running: bool = False, activation: str = "relu") -> Case:
    channel = shape[-1:]
    given = {"x": shape, "scale": channel, "bias": channel} | ({"residual": shape} if residual else {})
    fixed = {"running": (jnp.zeros(channel), jnp.ones(channel))} if running else {}
    name = f"{_by(shape)} {activation}" + " residual" * residual + " running" * running
    # A gradient is a difference of sums over all rows.
    return Case("batch_norm_act", name, given, fixed, {"activation": activation}, roundings=16)


def _linear(rows: int, inputs: int, outputs: int, activation: str = "relu", **options: Any) -> Case:
    given = {"x": (rows, inputs), "w": (inputs, outputs), "b": (outputs,)}
    name = f"{rows}x{inputs}x{outputs} {activation}" + "".join(f" {key}" for key in options)
    return Case("linear_act", name, given, options={"activation": activation, **options}, roundings=8)


def _loss(rows: int, classes: int, smoothing: float = 0.0) -> Case:
    name = f"{rows}x{classes}" + f" smoothing {smoothing}" * bool(smoothing)
    fixed = {"labels": _labels(rows, classes)}
    return Case("softmax_cross_entropy", name, {"logits": (rows, classes)}, fixed, {"label_smoothing": smoothing})


def _mlp(rows: int, inputs: int, outputs: int) -> Case:
    given = {"x": (rows, inputs), "weights": [(inputs, 256), (256, outputs)], "biases": [(256,), (outputs,)]}
    options = {"activation": "relu", "final_activation": "tanh"}
    return Case("mlp", f"{rows}x{inputs}x256x{outputs}", given, options=options, roundings=8, backward=False)


def _lenet5(batch: int, channels: int = 1) -> Case:
    weights = [(5, 5, channels, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10)]
    given = {"x": (batch, 32, 32, channels), "weights": weights, "biases": [(w[-1],) for w in weights]}
    # Five layers, and the first two not scaled by their number of inputs.
    return Case("lenet5", f"batch {batch}, {channels} channels", given, roundings=32, backward=False)


def _conv(shape: tuple[int, ...], outputs: int, kernel: int, groups: int = 1) -> Case:
    given = {"x": shape, "w": (kernel, kernel, shape[-1] // groups, outputs)}
    options = {"strides": 1, "padding": "SAME", "groups": groups}
    return Case("conv", f"{_by(shape)} {kernel}x{kernel} to {outputs}", given, options=options, roundings=16)


def _recurrent(
    cell: str,
    batch: int,
    time: int,
    features: int,
    hidden: int,
    layers: int = 1,
    directions: int = 1,
    lengths: bool = False,
    peepholes: bool = False,
    **options: Any,
) -> Case:
    columns = GATES[cell] * hidden

    def weights(inputs: int) -> CellWeights:
        peep = (3, hidden) if peepholes else None
        return CellWeights((inputs, columns), (hidden, columns), (columns,), (columns,), None, peep)  # type: ignore[arg-type]

    stack = [[weights(directions * hidden if layer else features)] * directions for layer in range(layers)]
    name = f"batch {batch}, {time} steps, {features} to {hidden}, {layers} layers" + ", both ways" * (directions == 2)
    fixed = {"seq_lengths": np.random.default_rng(time).integers(1, time + 1, batch, np.int32)} if lengths else {}
    # Rounded at every step, and what a state was rounded by comes back through the following ones.
    name += ", lengths" * lengths + ", peepholes" * peepholes + "".join(f", {key} {value}" for key, value in options.items())
    return Case(cell, name, {"x": (batch, time, features), "layers": stack}, fixed, options, roundings=16)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


SMALL = (
    _max_pool((2, 13, 11, 5), padding=((1, 1), (1, 1))),
    _max_pool((3, 8, 9, 64), 2, 2),
    _max_pool((1, 7, 7, 3), ceil_mode=True),
    _max_pool((2, 9, 8, 3), dilation=2),
    Case("local_response_norm", "2x5x5x7", {"x": (2, 5, 5, 7)}),
    Case("local_response_norm", "3x9x9x96 size 3", {"x": (3, 9, 9, 96)}, options={"size": 3, "alpha": 1.0}),
    _batch_norm((4, 7, 5, 24), residual=True),
    _batch_norm((33, 16), running=True),
    _batch_norm((2, 3, 3, 130), activation="gelu"),
    _linear(37, 29, 41, "gelu"),
    _linear(130, 64, 96),
    _linear(16, 48, 32, "leaky_relu", dropout_rate=0.3, dropout_seed=3),
    _loss(9, 1000),
    _loss(5, 33, 0.1),
    _conv((2, 9, 9, 8), 16, 3),
    _conv((2, 6, 6, 8), 8, 1),
    Case("avg_pool", "2x9x8x3 3/2", {"x": (2, 9, 8, 3)}, options={"window": 3, "strides": 2, "padding": "SAME"}),
    *(
        Case(
            "conv_transpose", f"2x5x5x6 4x4/{strides} to 8", {"x": (2, 5, 5, 6), "w": (4, 4, 6, 8)}, roundings=16, options=more
        )
        for strides in (2, 3)
        for more in ({"strides": strides, "padding": 1},)
    ),
    _lenet5(5),
    _lenet5(17, 3),
    _mlp(33, 20, 7),
    *(_recurrent(cell, 3, 5, 6, 24) for cell in GATES),
    *(_recurrent(cell, 2, 4, 5, 16, 2, lengths=True) for cell in GATES),
    *(_recurrent(cell, 2, 3, 8, 16, 1, 2) for cell in GATES),
    _recurrent("gru", 2, 3, 8, 16, 1, 2, reset_after=False),
    _recurrent("lstm", 2, 3, 8, 16, 1, 2, peepholes=True),
)
# As in the zoo's models. The first of each operator is what `check` adds on a GPU: blocks enough for what goes wrong between
# them.
LARGE = (
    *(_max_pool(shape) for shape in ((256, 28, 28, 480), (1024, 55, 55, 64), (256, 112, 112, 64))),
    *(
        Case("local_response_norm", _by(shape), {"x": shape})
        for shape in ((256, 56, 56, 64), (1024, 55, 55, 96), (1024, 27, 27, 256))
    ),
    *(_batch_norm(shape, shape[-1] >= 256) for shape in ((256, 14, 14, 256), (256, 112, 112, 64), (256, 28, 28, 512))),
    *(_linear(*sizes) for sizes in ((4096, 1024, 256), (65536, 128, 512), (1024, 9216, 4096))),
    *(_loss(*sizes) for sizes in ((4096, 10), (1024, 1000), (8192, 50257))),
    *(_mlp(*sizes) for sizes in ((4096, 100, 784), (4096, 784, 1))),
    *(_lenet5(batch) for batch in (4096, 256)),
    *(_recurrent("lstm", *sizes) for sizes in ((64, 128, 256, 256), (10, 512, 128, 256, 6), (16, 1024, 768, 768))),
    *(_recurrent("gru", *sizes) for sizes in ((64, 128, 256, 256), (32, 128, 512, 512, 3))),
    *(_recurrent("rnn", *sizes) for sizes in ((64, 128, 256, 256), (8, 256, 1024, 256, 6))),
    _recurrent("lstm", 64, 128, 256, 256, 1, 2),
)


@functools.cache
def to_check(operator: str, on_gpu: bool) -> tuple[Case, ...]:
    large = next((case for case in LARGE if case.operator == operator), None)
    return tuple(case for case in SMALL if case.operator == operator) + ((large,) if on_gpu and large else ())
