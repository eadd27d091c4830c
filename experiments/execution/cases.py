"""The cases: usual ones, with shapes that are odd and options of every kind, and special values."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from experiments.execution.case import Case
from kernels.commands import cases
from kernels.commands.cases import GATES, batch_norm_act, lenet5, linear_act, local_response_norm, loss, max_pool, mlp
from kernels.runtime import precision

NAN, INFINITY = float("nan"), float("inf")
STRANGE = (NAN, INFINITY, -INFINITY, -0.0, 0.0, 1e-7, -3e-39)  # 1e-7 is subnormal in float16, -3e-39 in the others
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "gelu", None)


# With states before the first step, which the zoo's models have too.
recurrent = functools.partial(cases.recurrent, state=True)


def alone(what: cases.Case) -> cases.Case:
    return dataclasses.replace(what, backward=False)


def usual() -> list[Case]:
    found = [
        max_pool((2, 7, 5, 3), 3, 2, padding="SAME"),
        max_pool((1, 9, 8, 40), 2, 2),
        max_pool((2, 5, 6, 16), 3, 1, padding=((1, 1), (1, 1))),
        max_pool((2, 13, 11, 5), padding=((1, 1), (1, 1))),
        max_pool((1, 7, 7, 3), ceil_mode=True),
        local_response_norm((2, 3, 3, 11)),
        local_response_norm((3, 5, 5, 64), size=3, beta=0.5),
        local_response_norm((3, 9, 9, 96), size=3, alpha=1.0),
        loss(7, 13, 0.1),
        loss(9, 1000),
        loss(3, 4500),
        batch_norm_act((3, 5, 5, 24), residual=True),
        batch_norm_act((2, 15, 15, 11), "gelu"),
        batch_norm_act((4, 15, 15, 40), "tanh", residual=True),
        batch_norm_act((5, 8, 8, 160), "leaky_relu", residual=True, running=True, momentum=0.3),
        batch_norm_act((33, 16), running=True),
        linear_act(33, 70, 45, "gelu"),
        linear_act(130, 150, 140, "relu", dropout_rate=0.5, dropout_seed=0),
        linear_act(17, 16, 9, "tanh", bias=False),
        linear_act(16, 48, 32, "leaky_relu", dropout_rate=0.3, dropout_seed=3),
        mlp(35, 20, 33, 70, "relu", "tanh"),
        mlp(67, 100, 130, 40, "leaky_relu", None),
        lenet5(3, 1, 10),
        lenet5(17, 3, 33),
    ]
    for cell in GATES:
        found += [
            recurrent(cell, 3, 3, 5, 20, lengths=[3, 1, 2]),
            recurrent(cell, 3, 3, 5, 20, reverse=True),
            recurrent(cell, 3, 3, 5, 20, 2, lengths=[3, 2, 1]),
            recurrent(cell, 3, 3, 5, 40, 1, 2, lengths=[3, 1, 2]),
            recurrent(cell, 2, 3, 6, 24, 2, 2, state=False, biases=False),
        ]
    found += [
        recurrent("lstm", 70, 2, 5, 70),
        recurrent("gru", 2, 2, 5, 100, 3),
        recurrent("lstm", 2, 2, 5, 200),
    ]
    dropped = [recurrent(cell, 3, 3, 5, 20, 3, lengths=[3, 1, 2], dropout=0.5, dropout_key=jax.random.key(3)) for cell in GATES]
    products = [
        # Forward only: the backward pass has products of XLA's, and on a CPU it knows none of these.
        Case("usual", alone(linear_act(37, 70, 45, "gelu")), f"products {name}", products=name, dtypes=("float32",))
        for name, way in precision.PRODUCTS.items()
        if name not in precision.LEVELS and way != precision.ONE_PASS
    ]
    exact = [
        Case("usual", what, "products float32", products="float32", dtypes=("float32",))
        for what in (mlp(35, 20, 33, 70, "relu", "tanh"), lenet5(3, 1, 10))
    ]
    kinked = [recurrent("rnn", 18, 3, 5, units, activation="relu") for units in (100, 130)]
    kinks = [Case("usual", what, kinked=True) for what in kinked]
    return (
        kinks
        + [Case("usual", what) for what in found]
        + [Case("usual", what, wide=False) for what in dropped]
        + products
        + exact
    )


def special() -> list[Case]:
    """NaN, infinities, signed zeros, subnormal numbers, labels outside the classes, and inputs that are all the same."""

    def strange(what: cases.Case, *of: str, values: tuple[float, ...] = STRANGE, share: float = 0.02, about: str = "") -> Case:
        return Case("special", what, about or "special values", strange=values, share=share, of=of)

    def whole(what: cases.Case, of: str, value: float) -> Case:
        return strange(what, of, values=(value,), share=1.0, about=f"all {value:g}")

    outside = np.array([0, -1, 13, 12, 2**31 - 1, -(2**31), 3], np.int32)
    return [
        strange(max_pool((2, 9, 9, 24), padding="SAME"), "x", share=0.1),
        whole(max_pool((1, 6, 6, 3), padding="SAME"), "x", -INFINITY),
        strange(max_pool((1, 8, 8, 16), 2, 2), "x", values=(0.0, -0.0), share=1.0, about="zeros of both signs"),
        *(strange(local_response_norm((2, 3, 3, 40), beta=beta), "x") for beta in (0.7, 0.5)),
        # Beside an infinity the reference's gradient is NaN: it derives its two square roots at zero.
        strange(local_response_norm((2, 3, 3, 40), beta=0.75), "x", values=(NAN, -0.0, 0.0, 1e-7, -3e-39)),
        strange(loss(7, 13, 0.1, outside), "logits", share=0.1, about="labels outside, special values"),
        Case("special", loss(7, 13, 0.1, outside), "labels outside"),
        whole(loss(7, 13), "logits", -INFINITY),
        strange(loss(7, 9000), "logits", values=(-INFINITY, 80.0, -80.0), share=0.5, about="-infinity and 80"),
        *(strange(batch_norm_act((40, 24), activation, residual=True), "residual") for activation in ACTIVATIONS),
        whole(batch_norm_act((70, 16)), "x", 3.0),
        *(strange(linear_act(40, 24, 32, activation), "b", share=0.4) for activation in ACTIVATIONS),
        strange(mlp(20, 30, 40, 24, "relu", "tanh"), "x"),
        strange(lenet5(3, 1, 10), "x", share=0.001),
        *(strange(recurrent(cell, 3, 3, 5, 20, 2), "x", values=(NAN, INFINITY), share=0.1) for cell in GATES),
        strange(recurrent("rnn", 3, 3, 5, 20, 2, activation="relu"), "x", values=(NAN, INFINITY), share=0.1),
    ]
