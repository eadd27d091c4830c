"""Functions that several @triton.jit kernels share."""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """To 3e-7 of its value, however small: near zero, where 1 - exp(-2 x) would cancel, by Cephes' polynomial for float32."""
    z = x * x
    series = (((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z - 3.33332819422e-1
    e = tl.exp(-2.0 * tl.abs(x))
    magnitude = (1.0 - e) / (1.0 + e)
    return tl.where(tl.abs(x) < 0.625, x * (1.0 + series * z), tl.where(x < 0, -magnitude, magnitude))


@triton.jit
def tanh_gradient(x):
    """1 - tanh(x) ** 2, without the cancellation where that is tiny."""
    e = tl.exp(-2.0 * tl.abs(x))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def normal_cdf(x):
    """Of the standard normal distribution, also where it is tiny and 1 + erf would cancel: exp(-x**2 / 2) times a polynomial.

    The polynomial, in t = 1 / (1 + 0.21 |x|), is a minimax fit of their quotient, 2e-8 of it off for any |x| up to 14.5, beyond
    which float32 has zero. What is left is that of exp: 5e-6 of the value at its smallest.
    """
    a = tl.abs(x)
    t = 1.0 / (1.0 + 0.21 * a)
    p = ((-0.07129488684570531 * t + 0.28180487151758604) * t - 0.32649372000702354) * t + 0.3449870200438432
    p = ((p * t - 0.09077274476343461) * t + 0.12347212598020323) * t + 0.06956975475102724
    p = (p * t + 0.08501243743532375) * t + 0.08371515132887106
    tail = tl.exp(-0.5 * a * a) * (p * t)
    return tl.where(x < 0, tail, 1.0 - tail)


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
        z = z * normal_cdf(z)
    return z


@triton.jit
def activation_gradient(z, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr):
    """Its derivative at z, at the kink of relu 0 and of leaky_relu 1, as JAX has them."""
    if ACTIVATION == "relu":
        slope = tl.where(z > 0, 1.0, 0.0)
    elif ACTIVATION == "leaky_relu":
        slope = tl.where(z >= 0, 1.0, SLOPE)
    elif ACTIVATION == "tanh":
        slope = tanh_gradient(z)
    elif ACTIVATION == "gelu":
        slope = normal_cdf(z) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
    else:
        slope = tl.full(z.shape, 1.0, tl.float32)
    return slope
