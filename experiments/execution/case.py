"""A case: an operator, its arguments, and the circumstances under which its kernels are compiled and executed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.commands import cases
from kernels.commands.dtypes import DTYPES, ROUNDING
from kernels.runtime import devices, precision, tuning

# Architecture -> the GPU whose number of multiprocessors, cache and shared memory plans are made for.
GPUS = {"sm_80": "a100-80gb", "sm_86": "rtx-3090", "sm_89": "rtx-4090", "sm_90": "h200", "sm_120": "rtx-5090"}
MULTIPLY = ("linear_act", "mlp", "lenet5")  # float32 as jax.default_matmul_precision says
# How far float32 products may be off, relative to the largest element of a result: tf32 keeps 10 bits of each operand, three
# products of bfloat16 halves 16. Three of tf32 and six of bfloat16 keep as many as float32 has.
OF_PRODUCTS = {precision.ONE_PASS: 2.0**-10, "bf16x3": 2.0**-15}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is executed.

    Attributes:
      group: "usual", "special", "candidates" or "recurrent".
      what: the operator and its arguments.
      about: what tells it from other cases of the same operator and arguments.
      candidate: an operator, or "recurrent", and the configuration that its kernels take; None for the rule's.
      products: a name of `precision.PRODUCTS`; None for JAX's default.
      strange: values that take the place of some of those of the arguments `of`, and how many of them.
      dtypes: that it is executed in.
      least: the compute capability it needs.
      wide: whether the reference is in float64. Of a mask drawn by jax.random.bernoulli it must be in float32: the bits that
        are drawn depend on that.
      kinked: gradients are compared with the interpreter alone, launch by launch. Of a layer whose every step has a ReLU a
        rounding may move an input to the other side of zero, and then the gradient is another one.
    """

    group: str
    what: cases.Case
    about: str = ""
    candidate: tuple[str, Mapping[str, Any]] | None = None
    products: str | None = None
    strange: tuple[float, ...] = ()
    share: float = 0.02
    of: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = DTYPES
    least: tuple[int, int] = (8, 0)
    wide: bool = True
    kinked: bool = False

    @property
    def operator(self) -> str:
        return self.what.operator

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.what.name, self.about)))

    @property
    def digest(self) -> str:
        """Of all that it says."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def reference(self) -> Any:
        """The dtype of the reference."""
        return np.float64 if self.wide else np.float32

    def draw(self, dtype: str) -> dict[str, Any]:
        """The floating-point arguments."""
        arguments = self.what.draw(dtype)
        rng = np.random.default_rng(2)

        def put(array: jax.Array) -> jax.Array:
            values = np.asarray(array, np.float32)
            at = rng.random(values.shape) < self.share
            values = np.where(at, rng.choice(np.array(self.strange, np.float32), values.shape), values)
            return jnp.asarray(values).astype(dtype)

        return arguments | {name: jax.tree.map(put, arguments[name]) for name in self.of}

    @contextlib.contextmanager
    def circumstances(self, architecture: str) -> Iterator[devices.Device]:
        """What is traced inside the block is planned for the architecture's GPU, as the case has it."""
        with contextlib.ExitStack() as stack:
            here = stack.enter_context(devices.target(GPUS[architecture]))
            if self.candidate is not None:
                operator, config = self.candidate
                stack.enter_context(tuning.candidate(operator, dict(config)))
            if self.products is not None:
                stack.enter_context(jax.default_matmul_precision(self.products))
            yield here

    def way(self, dtype: str) -> str | None:
        """How products of float32 are computed; None where there are none."""
        if dtype != "float32" or self.operator not in MULTIPLY:
            return None
        return precision.PRODUCTS[self.products]

    def tolerance(self, dtype: str) -> float:
        """Of results and gradients, against float64, relative to the largest element of each."""
        return self.what.roundings * OF_PRODUCTS.get(self.way(dtype) or "", ROUNDING[dtype])

    def launch_tolerance(self, dtype: str, output: Any) -> float:
        """Of an output of a launch, by its dtype, against the interpreter on the same arrays.

        Sums in another order and approximate functions move a float32 by a few roundings, and what is stored in 16 bits to the
        next number or the one after it; a recurrent state has gone through 16 bits in every step. Of products that round
        their operands it is `tolerance`: the interpreter does not round them.
        """
        if self.way(dtype) in OF_PRODUCTS:
            return self.tolerance(dtype)
        name = dtype if self.operator in cases.GATES else np.dtype(output).name
        return 2 * ROUNDING.get(name, ROUNDING["float32"])  # integers are equal or not
