"""What `jax.default_matmul_precision` asks for, and how products inside a hand-written kernel answer it.

Products of 16-bit operands are exact and are summed in float32. Every name asks for that or less, except those that round the
operands further or accumulate in another type; no kernel offers these. For float32 operands each name corresponds to one of
Triton's input precisions, or to none; a name that states a precision, not a method, means what XLA takes for it on a GPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

ONE_PASS, EXACT = "tf32", "ieee"  # Triton's names, those that every kernel has
# Further ones split each operand in two or three numbers of fewer bits, and need the registers for them.
SPLIT = ("tf32x3", "bf16x3", "bf16x6")
LEVELS: dict[str | None, str] = {
    **dict.fromkeys((None, "default", "bfloat16", "high", "tensorfloat32"), ONE_PASS),
    **dict.fromkeys(("highest", "float32"), EXACT),
}
PRODUCTS = LEVELS | {
    "TF32_TF32_F32": ONE_PASS,
    "TF32_TF32_F32_X3": "tf32x3",
    "BF16_BF16_F32_X3": "bf16x3",
    "BF16_BF16_F32_X6": "bf16x6",
    "F32_F32_F32": EXACT,
}
_OF_16_BITS = {"bfloat16": "BF16_BF16_F32", "float16": "F16_F16_F32"}


def asked() -> str | None:
    """The name in force where a program is traced; None for JAX's default."""
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]


def reason(dtype: jnp.dtype, ways: tuple[str, ...]) -> str | None:
    """Why a kernel that multiplies float32 in these ways does not answer the name in force for operands of `dtype`."""
    name = asked()
    if jnp.dtype(dtype) != jnp.float32:
        if name in PRODUCTS or name in ("BF16_BF16_F32_X9", _OF_16_BITS.get(jnp.dtype(dtype).name)):
            return None
        return f"jax.default_matmul_precision asks for {name}, and it adds up exact products of {dtype} in float32"
    if PRODUCTS.get(name) in ways:
        return None
    names = ", ".join(str(other) for other, way in PRODUCTS.items() if other not in LEVELS and way in ways)
    return f"jax.default_matmul_precision asks for {name}, and of float32 it does {names}"


def way(dtype: jnp.dtype) -> str:
    """How tl.dot multiplies operands of `dtype`, where `reason` has nothing against it; 16 bits in one way only."""
    return PRODUCTS[asked()] if jnp.dtype(dtype) == jnp.float32 else ONE_PASS
