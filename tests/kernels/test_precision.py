"""jax.default_matmul_precision: each name that JAX accepts is answered as it says, or refused with a reason and left to XLA."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

import kernels
from kernels import CellWeights
from kernels.runtime import launch
from kernels.verification import aot

S = jax.ShapeDtypeStruct
H200 = "nvidia-h200"


def accepted() -> list[str]:
    """The names that this JAX accepts, from what it says of one that it does not."""
    with pytest.raises(ValueError, match="enum value") as refused, jax.default_matmul_precision("no such name"):
        pass
    return re.findall(r"'(\w+)'", str(refused.value).partition("]")[0])


LEVELS = {None: "tf32", "default": "tf32", "bfloat16": "tf32", "high": "tf32", "tensorfloat32": "tf32"}
LEVELS |= {"highest": "ieee", "float32": "ieee"}
ALGORITHMS = {
    "TF32_TF32_F32": "tf32",
    "TF32_TF32_F32_X3": "tf32x3",
    "BF16_BF16_F32_X3": "bf16x3",
    "BF16_BF16_F32_X6": "bf16x6",
    "F32_F32_F32": "ieee",
}
SPLIT = ("tf32x3", "bf16x3", "bf16x6")
# Names that no float32 kernel answers, and the 16-bit type of operands that they multiply exactly and add up in float32.
REFUSED = {
    "ANY_F8_ANY_F8_F32": None,
    "ANY_F8_ANY_F8_F32_FAST_ACCUM": None,
    "ANY_F8_ANY_F8_ANY": None,
    "ANY_F8_ANY_F8_ANY_FAST_ACCUM": None,
    "F16_F16_F16": None,
    "F16_F16_F32": "float16",
    "BF16_BF16_BF16": None,
    "BF16_BF16_F32": "bfloat16",
    "BF16_BF16_F32_X9": "both",
    "F64_F64_F64": None,
}


def layers(dtype, *shapes):
    return [a for shape in shapes for a in (S(shape, dtype), S(shape[-1:], jnp.float32))]


OPERATORS = {
    "linear_act": (kernels.linear_act, [(64, 32), (32, 48)], ()),
    "mlp": (lambda x, w0, b0, w1, b1, **i: kernels.mlp(x, [w0, w1], [b0, b1], **i), [(64, 32)], [(32, 16), (16, 8)]),
    "lenet5": (
        lambda x, *a, **i: kernels.lenet5(x, a[::2], a[1::2], **i),
        [(2, 32, 32, 1)],
        [(5, 5, 1, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10)],
    ),
    "gru": (lambda x, *w, **i: kernels.gru(x, [CellWeights(*w)], **i), [(2, 3, 8), (8, 24), (8, 24)], ()),
}


def way(operator: str, dtype: jnp.dtype, **options) -> str | None:
    """How the kernel is told to multiply; None where XLA runs."""
    fn, arrays, pairs = OPERATORS[operator]
    with launch.recording() as calls, aot.lowering_for(H200):
        jax.eval_shape(lambda *a: fn(*a, **options), *(S(shape, dtype) for shape in arrays), *layers(dtype, *pairs))
    return dict(calls[0].constants)["PRECISION"] if calls else None


def test_every_name_that_jax_accepts_is_known():
    assert set(accepted()) == {*LEVELS, *ALGORITHMS, *REFUSED} - {None}


@pytest.mark.parametrize("name", [*LEVELS, *ALGORITHMS, *REFUSED])
@pytest.mark.parametrize("operator", OPERATORS)
def test_each_name_of_float32(operator, name):
    expected = (LEVELS | ALGORITHMS).get(name)
    if operator == "gru":  # a recurrence takes three passes of tf32, which is a level's worth, and runs where it is named
        expected = "tf32x3" if name in LEVELS or name == "TF32_TF32_F32_X3" else None
    elif operator != "linear_act" and expected in SPLIT:
        expected = None
    named = {"implementation": "interpret"} if operator == "gru" else {}
    with jax.default_matmul_precision(name):
        if expected is not None:
            assert way(operator, jnp.float32, **named) == expected
            return
        assert way(operator, jnp.float32) is None
        with pytest.raises(kernels.ImplementationError, match=rf"asks for {name}, and of float32 it does \w+") as refused:
            way(operator, jnp.float32, implementation="interpret")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [*LEVELS, *ALGORITHMS, *REFUSED])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("operator", OPERATORS)
def test_each_name_of_16_bits(operator, dtype, name):
    """Their products are exact, and added up in float32, which is what most names ask for or more."""
    answered = REFUSED.get(name, "both") in ("both", dtype.dtype.name)
    with jax.default_matmul_precision(name):
        if answered:
            assert way(operator, dtype, implementation="interpret") is not None
        else:
            assert way(operator, dtype) is None
            with pytest.raises(kernels.ImplementationError, match=f"asks for {name}, and it adds up exact products of "):
                way(operator, dtype, implementation="interpret")


@pytest.mark.parametrize("name", [*LEVELS, *ALGORITHMS, *REFUSED])
def test_each_name_for_cudnn(name, monkeypatch):
    from jax.experimental import rnn

    asked = []

    def lstm(x, h, c, *_, precision, **sizes):
        asked.append(precision)
        return jnp.zeros((*x.shape[:2], 8)), h, c

    monkeypatch.setattr(rnn, "lstm", lstm)
    x, weights = jnp.zeros((2, 3, 8)), CellWeights(jnp.zeros((8, 32)), jnp.zeros((8, 32)))
    with kernels.target(H200), jax.default_matmul_precision(name):
        expected = {"tf32": "high", "ieee": "highest"}.get((LEVELS | ALGORITHMS).get(name))
        if expected is None:
            with pytest.raises(kernels.ImplementationError, match=f"asks for {name}"):
                kernels.lstm(x, [weights], implementation="cudnn")
        else:
            kernels.lstm(x, [weights], implementation="cudnn")
            assert asked == [expected]


@pytest.mark.parametrize(
    ("name", "kind", "passes"),
    [
        (None, "tf32", 1),
        ("TF32_TF32_F32_X3", "tf32", 3),
        ("BF16_BF16_F32_X3", "bf16", 3),
        ("BF16_BF16_F32_X6", "bf16", 6),
        ("F32_F32_F32", None, 0),
    ],
)
def test_what_float32_compiles_to(name, kind, passes):
    """The tensor cores' products, of the type and as many as the name says, or none; and there are registers enough."""
    x, w, b = S((4096, 512), jnp.float32), S((512, 512), jnp.float32), S((512,), jnp.float32)
    with launch.recording() as calls, aot.lowering_for(H200), jax.default_matmul_precision(name):
        jax.eval_shape(kernels.linear_act, x, w, b)
    found = aot.kernel_resources(calls[0], H200)
    products = re.findall(r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k(\d+)\.f32\.(\w+)", found.ptx)
    constants = dict(calls[0].constants)
    # Each of the block's warp groups takes 64 of its rows at a time, and all its columns.
    volume = sum(64 * int(n) * int(k) for n, k, _ in products) * calls[0].num_warps // 4
    assert volume == passes * constants["BLOCK_M"] * constants["BLOCK_N"] * constants["BLOCK_K"]
    assert {t for *_, t in products} == {kind} - {None}
    assert found.spilled == 0


def test_the_backward_pass_has_the_precision_of_the_forward_pass():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 4))
    with jax.default_matmul_precision("highest"):
        y, pullback = jax.vjp(lambda x, w: kernels.linear_act(x, w, implementation="interpret"), x, w)
    assert str(jax.make_jaxpr(pullback)(y)).count("Precision.HIGHEST") == 4  # of both operands of two products
