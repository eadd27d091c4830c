"""Dropout of units and of whole branches."""

from __future__ import annotations

from flax import nnx


def _layer(name: str, rate: float, rngs: nnx.Rngs, broadcast_dims: tuple[int, ...]) -> nnx.Dropout | None:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{name}: {rate!r} given, a probability within 0 and 1 is needed")
    # No layer at all where the rate is zero, so that such a model needs no random numbers.
    return nnx.Dropout(rate, broadcast_dims=broadcast_dims, rngs=rngs) if rate else None


def dropout(rate: float, *, rngs: nnx.Rngs, name: str = "dropout") -> nnx.Dropout | None:
    """Srivastava et al. 2014: each value is zeroed with probability `rate`, and the others divided by 1 - rate.

    None where the rate is zero; call through `drop`. `name` is the argument to name in an error.
    """
    return _layer(name, rate, rngs, ())


def drop_path(rate: float, *, rngs: nnx.Rngs, name: str = "stochastic_depth") -> nnx.Dropout | None:
    """Stochastic depth (Huang et al. 2016): a residual branch [batch, height, width, channels] is dropped per example.

    Surviving branches are divided by 1 - rate, so that evaluation needs no change (torchvision's mode "row").
    """
    return _layer(name, rate, rngs, (1, 2, 3))


def drop(layer: nnx.Dropout | None, x):
    """`layer(x)`, or x itself where there is no layer."""
    return x if layer is None else layer(x)
