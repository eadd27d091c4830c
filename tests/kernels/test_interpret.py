"""The interpreter itself: what it must catch, and what Triton's own gets wrong."""

from __future__ import annotations

import sys
import threading

import jax
import ml_dtypes
import numpy as np
import pytest
import triton
import triton.language as tl

import kernels
from kernels.recurrent import triton as recurrent
from kernels.runtime import launch, launches
from kernels.verification import cooperative, interpret


@triton.jit
def copy_kernel(x, y, N: tl.constexpr, SHIFT: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i + SHIFT, mask=i < N, other=0.0), mask=i < N)


@triton.jit
def careless_store_kernel(x, y, N: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < N, other=0.0))


@triton.jit
def product_kernel(a, b, c, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(c + at, tl.dot(tl.load(a + at), tl.load(b + at)))


@triton.jit
def rounding_kernel(x, stored, cast, N: tl.constexpr):
    """Narrowed by the store, and by `.to` and widened again."""
    i = tl.arange(0, N)
    value = tl.load(x + i)
    tl.store(stored + i, value)
    tl.store(cast + i, value.to(stored.dtype.element_ty).to(tl.float32))


@triton.jit
def rounded_product_kernel(x, y, c, N: tl.constexpr):
    """x, narrowed to y's type, times y."""
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(c + at, tl.dot(tl.load(x + at).to(y.dtype.element_ty), tl.load(y + at)))


@triton.jit
def neighbour_kernel(x, y, shared, counter, BLOCKS: tl.constexpr, BARRIER: tl.constexpr):
    """Each program hands its value to the one before: right only if all have written before any reads."""
    block = tl.program_id(0)
    tl.store(shared + block, tl.load(x + block))
    if BARRIER:
        tl.debug_barrier()
        tl.atomic_add(counter, 1, sem="release")
        while tl.atomic_add(counter, 0, sem="acquire") < BLOCKS:
            pass
    tl.store(y + block, tl.load(shared + (block + 1) % BLOCKS))


def run(kernel, inputs, outputs, grid=(1,), **options):
    return interpret.execute(kernel, grid, inputs, outputs, **options)


def test_a_kernel_within_bounds_runs_and_what_it_leaves_out_is_poison():
    x = np.arange(5, dtype=np.float32)
    (y,) = run(copy_kernel, [x], [((8,), np.dtype(np.float32))], (2,), constants={"N": 5, "SHIFT": 0, "BLOCK": 4})
    np.testing.assert_array_equal(y, [0, 1, 2, 3, 4, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("shift", [1, -1, 10**9])
def test_a_load_out_of_bounds_raises(shift):
    x = np.arange(5, dtype=np.float32)
    with pytest.raises(interpret.OutOfBoundsError, match="load outside every array"):
        run(copy_kernel, [x], [((5,), np.dtype(np.float32))], constants={"N": 5, "SHIFT": shift, "BLOCK": 8})


def test_a_store_out_of_bounds_raises():
    x = np.arange(5, dtype=np.float32)
    with pytest.raises(interpret.OutOfBoundsError, match="store outside every array"):
        run(careless_store_kernel, [x], [((5,), np.dtype(np.float32))], constants={"N": 5, "BLOCK": 8})


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_products_are_right(dtype, rng):
    a, b = (rng.integers(-4, 5, (16, 16)).astype(dtype) for _ in range(2))
    (c,) = run(product_kernel, [a, b], [((16, 16), np.dtype(np.float32))], constants={"N": 16})
    np.testing.assert_array_equal(c, a.astype(np.float32) @ b.astype(np.float32))


NARROW = [np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)]


def every_kind_of_float(rng) -> np.ndarray:
    """4096 numbers: random bits, and what is special or stands halfway between two numbers of a narrower type."""
    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1.0075684,
        -1.0075684,
        3.4e38,
        65519.0,
        65520.0,
        6e-8,
        2.9e-8,
        1e-45,
        9.2e-41,
    ]
    narrow = rng.integers(0, 2**16, 1024).astype(np.uint32)
    ties = np.concatenate([(narrow << 16) + 2**15, (narrow << 16) + 2**15 - 1, (narrow << 13) + (0x38000000 + 2**12)])
    values = np.concatenate([np.array(special, np.float32), ties.astype(np.uint32).view(np.float32)])
    return np.concatenate([values, rng.integers(0, 2**32, 4096 - values.size, dtype=np.uint32).view(np.float32)])


def to_nearest_even(values: np.ndarray, fraction: int, least: int, largest: float) -> np.ndarray:
    """float64 of float32 values rounded to `fraction` bits after the first, with exponents from `least` on."""
    exact = values.astype(np.float64)
    _, exponent = np.frexp(exact)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, least) - fraction)
    rounded = np.rint(exact / unit) * unit  # rint takes ties to even; the division by a power of two is exact
    return np.where(np.abs(rounded) > largest, np.copysign(np.inf, exact), rounded)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_conversions_round_to_the_nearest_even(dtype, rng):
    x = every_kind_of_float(rng)
    outputs = [(x.shape, dtype), (x.shape, np.dtype(np.float32))]
    stored, cast = run(rounding_kernel, [x], outputs, constants={"N": x.size})
    kind = ml_dtypes.finfo(dtype)
    with np.errstate(invalid="ignore"):
        expected = to_nearest_even(x, kind.nmant, kind.minexp, float(kind.max))
    np.testing.assert_array_equal(stored.astype(np.float64), expected)
    np.testing.assert_array_equal(cast, stored.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(stored[expected == 0]), np.signbit(x[expected == 0]))
    assert stored[5] == (1.0078125 if dtype == NARROW[0] else np.float16(1.0075684))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_operands_of_products_are_rounded_to_the_nearest(dtype, rng):
    x, y = rng.standard_normal((2, 16, 16)).astype(np.float32)
    (c,) = run(rounded_product_kernel, [x, y.astype(dtype)], [((16, 16), np.dtype(np.float32))], constants={"N": 16})
    exact = x.astype(dtype).astype(np.float64) @ y.astype(dtype).astype(np.float64)
    # Sums of 16 products in float32; a wrong last bit of an operand would be 2**-8 of it.
    np.testing.assert_allclose(c, exact, rtol=0, atol=16 * 2**-24 * 16)


def test_integers_become_bfloat16_and_back(rng):
    x = rng.integers(-1000, 1000, 64).astype(np.int32)
    (y,) = run(copy_kernel, [x], [((64,), NARROW[0])], constants={"N": 64, "SHIFT": 0, "BLOCK": 64})
    np.testing.assert_array_equal(y, x.astype(np.float32).astype(NARROW[0]))
    (z,) = run(copy_kernel, [y], [((64,), np.dtype(np.int32))], constants={"N": 64, "SHIFT": 0, "BLOCK": 64})
    np.testing.assert_array_equal(z, y.astype(np.int32))


def test_a_barrier_across_the_grid_opens_when_programs_run_together():
    x = np.arange(6, dtype=np.float32)
    outputs = [((6,), np.dtype(np.float32)), ((6,), np.dtype(np.float32)), ((1,), np.dtype(np.int32))]
    constants = {"BLOCKS": 6, "BARRIER": True}
    y = run(neighbour_kernel, [x], outputs, (6,), zeroed_outputs=(2,), constants=constants, together=True)[0]
    np.testing.assert_array_equal(y, np.roll(x, -1))
    with pytest.raises(interpret.UnwrittenError, match="load of what nobody has written, in program"):
        # one after another, a program reads what the next has yet to write
        run(neighbour_kernel, [x], outputs, (6,), zeroed_outputs=(2,), constants={"BLOCKS": 6, "BARRIER": False})


def test_a_barrier_that_never_opens_is_reported(monkeypatch):
    monkeypatch.setattr(cooperative, "TIMEOUT", 0.2)
    outputs = [((1,), np.dtype(np.float32)), ((1,), np.dtype(np.float32)), ((1,), np.dtype(np.int32))]
    with pytest.raises(TimeoutError, match="its barrier never opened"):
        # it waits for two programs, and the grid has one
        run(
            neighbour_kernel,
            [np.zeros(1, np.float32)],
            outputs,
            zeroed_outputs=(2,),
            constants={"BLOCKS": 2, "BARRIER": True},
            together=True,
        )


def test_programs_that_run_together_can_rewrite_their_helpers_at_once():
    """CPython 3.11 raises SystemError where two threads build a syntax tree at the same time."""
    helpers = [f.fn for f in vars(recurrent).values() if isinstance(f, triton.JITFunction)]
    assert len(helpers) > 4
    errors = []

    def rewrite(fn):
        try:
            interpret._python_function(fn)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with interpret._interpreting(copy_kernel.fn):
            for _ in range(5):
                interpret._rewritten.cache_clear()
                threads = [threading.Thread(target=rewrite, args=(fn,)) for fn in helpers * 4]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
    finally:
        sys.setswitchinterval(interval)
        interpret._rewritten.cache_clear()
    assert not errors


def test_something_else_may_run_a_launch():
    seen = []

    def other(call, inputs):
        seen.append(call)
        return [result + 1 for result in interpret.interpreted(call, inputs)]

    x = np.arange(4, dtype=np.float32)
    constants = (("BLOCK", 4), ("N", 4), ("SHIFT", 0))
    call = launches.Launch(copy_kernel, (x.dtype, x.dtype), (1,), 4, 3, constants, (x.shape, x.shape), inputs=1)
    with interpret.instead(other):
        (y,) = interpret.launch(call, [x])
    np.testing.assert_array_equal(y, x + 1)
    assert seen == [call]
    (y,) = interpret.launch(call, [x])
    np.testing.assert_array_equal(y, x)


def test_a_launch_says_what_it_was_launched_with():
    x, channel = jax.ShapeDtypeStruct((40, 24), "bfloat16"), jax.ShapeDtypeStruct((24,), "float32")
    fn = lambda x, *c: kernels.batch_norm_act_running(x, *c, implementation="interpret")
    with launch.recording() as calls:
        jax.eval_shape(fn, x, *[channel] * 4)
    (call,) = calls
    assert (call.inputs, call.in_place, call.cooperative) == (6, ((4, 3), (5, 4)), True)
    assert [np.dtype(call.dtypes[call.inputs + i]) for i in call.zeroed_outputs] == [np.dtype(np.int32)] * 2
    assert len(call.shapes) == len(call.dtypes) == 14
