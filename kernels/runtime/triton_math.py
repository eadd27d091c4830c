"""Functions that several @triton.jit kernels share."""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    e = tl.exp(-2.0 * tl.abs(x))
    magnitude = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -magnitude, magnitude)


@triton.jit
def activate(z, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr):
    """The activation of that name (kernels/runtime/activations.py) of a float32 tile."""
    if ACTIVATION == "relu":
        z = tl.where(z > 0, z, tl.where(z != z, z, 0.0))  # a NaN stays one, as jax.nn.relu has it
    elif ACTIVATION == "leaky_relu":
        z = tl.where(z >= 0, z, SLOPE * z)
    elif ACTIVATION == "tanh":
        z = tanh(z)
    elif ACTIVATION == "gelu":
        z = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    return z


@triton.jit
def activation_gradient(z, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr):
    """Its derivative at z, at the kink of relu 0 and of leaky_relu 1, as JAX has them."""
    if ACTIVATION == "relu":
        slope = tl.where(z > 0, 1.0, 0.0)
    elif ACTIVATION == "leaky_relu":
        slope = tl.where(z >= 0, 1.0, SLOPE)
    elif ACTIVATION == "tanh":
        t = tanh(z)
        slope = 1.0 - t * t
    elif ACTIVATION == "gelu":
        slope = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
    else:
        slope = tl.full(z.shape, 1.0, tl.float32)
    return slope
