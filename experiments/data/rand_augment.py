"""RandAugment (Cubuk et al. 2019): two of fourteen changes, drawn for each image, all at one magnitude.

Ranges are those of torchvision's RandAugment: at magnitude 30, rotation by 30 degrees, shear by 0.3, translation by 0.45 of
the size, brightness and its kin by 0.9, posterizing to 4 bits, solarizing from 0.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

OPERATIONS_PER_IMAGE = 2


def affine(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Nearest pixels of [height, width, channels]: output (y, x), from the centre, is input matrix @ (y, x, 1), else black."""
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    at = jnp.einsum("ij,jyx->iyx", matrix, jnp.stack([y, x, jnp.ones_like(y)]), precision="highest")
    rows, columns = jnp.round(at[0] + (height - 1) / 2).astype(int), jnp.round(at[1] + (width - 1) / 2).astype(int)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return jnp.where(inside[..., None], image[rows.clip(0, height - 1), columns.clip(0, width - 1)], 0)


def grey(image: jax.Array) -> jax.Array:
    """Luma of RGB by ITU-R 601-2, as [height, width, 1]; of other numbers of channels the mean."""
    weights = jnp.array([0.299, 0.587, 0.114]) if image.shape[-1] == 3 else jnp.full(image.shape[-1], 1 / image.shape[-1])
    return (image * weights).sum(-1, keepdims=True)


def blend(one: jax.Array, other: jax.Array, amount: jax.Array) -> jax.Array:
    """`other` where amount is 0, `one` where it is 1, beyond it where it is more; within 0 and 1."""
    return jnp.clip(other + amount * (one - other), 0, 1)


def sharpen(image: jax.Array, amount: jax.Array) -> jax.Array:
    """Away from (amount above 1) or towards (below) a 3x3 smoothing; the border is left as it is."""
    kernel = jnp.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    height, width, _ = image.shape
    smooth = sum(kernel[i, j] * image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    return blend(image, image.at[1:-1, 1:-1].set(smooth), amount)


def autocontrast(image: jax.Array) -> jax.Array:
    """Each channel stretched to the range from 0 to 1; a constant one is left as it is."""
    low, high = image.min((0, 1)), image.max((0, 1))
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def equalize(image: jax.Array) -> jax.Array:
    """Each channel's 256 levels mapped so that they are about equally frequent, by PIL's rule."""

    def channel(values: jax.Array) -> jax.Array:
        levels = jnp.round(values * 255).astype(int)
        histogram = jnp.zeros(256, int).at[levels.ravel()].add(1)
        last = histogram[255 - jnp.argmax(histogram[::-1] > 0)]
        step = (histogram.sum() - last) // 255
        table = (step // 2 + jnp.cumsum(histogram) - histogram) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.clip(table[levels], 0, 255) / 255, values)

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Only the highest `bits` bits of eight kept."""
    step = 2.0 ** (8 - bits)
    return jnp.floor(jnp.round(image * 255) / step) * step / 255


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Values from `threshold` on inverted."""
    return jnp.where(image >= threshold, 1 - image, image)


def _rotation(degrees: jax.Array) -> jax.Array:
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    return jnp.array([[cosine, -sine, 0], [sine, cosine, 0]])


# change(image, strength, sign): strength from 0 to 1, sign -1 or 1.
CHANGES: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "identity": lambda image, s, sign: image,
    "shear_x": lambda image, s, sign: affine(image, jnp.array([[1, 0, 0], [0.3 * s * sign, 1, 0]])),
    "shear_y": lambda image, s, sign: affine(image, jnp.array([[1, 0.3 * s * sign, 0], [0, 1, 0]])),
    "translate_x": lambda image, s, sign: affine(image, jnp.array([[1, 0, 0], [0, 1, 0.45 * s * sign * image.shape[1]]])),
    "translate_y": lambda image, s, sign: affine(image, jnp.array([[1, 0, 0.45 * s * sign * image.shape[0]], [0, 1, 0]])),
    "rotate": lambda image, s, sign: affine(image, _rotation(30 * s * sign)),
    "brightness": lambda image, s, sign: blend(image, jnp.zeros_like(image), 1 + 0.9 * s * sign),
    "color": lambda image, s, sign: blend(image, grey(image), 1 + 0.9 * s * sign),
    "contrast": lambda image, s, sign: blend(image, grey(image).mean(), 1 + 0.9 * s * sign),
    "sharpness": lambda image, s, sign: sharpen(image, 1 + 0.9 * s * sign),
    "posterize": lambda image, s, sign: posterize(image, 8 - jnp.round(4 * s)),
    "solarize": lambda image, s, sign: solarize(image, 1 - s),
    "autocontrast": lambda image, s, sign: autocontrast(image),
    "equalize": lambda image, s, sign: equalize(image),
}


def rand_augment(images: jax.Array, key: jax.Array, magnitude: float) -> jax.Array:
    """`images` [batch, height, width, channels], float, from 0 to 1, each changed twice.

    Args:
      magnitude: 0 to 30; 9 is usual.
    """
    strength = jnp.asarray(magnitude / 30, images.dtype)

    def change(image: jax.Array, kind: jax.Array, sign: jax.Array) -> jax.Array:
        branches = [lambda image, sign, f=f: f(image, strength, sign).astype(image.dtype) for f in CHANGES.values()]
        return jax.lax.switch(kind, branches, image, sign)

    for step in jax.random.split(key, OPERATIONS_PER_IMAGE):
        kinds, signs = jax.random.split(step)
        kind = jax.random.randint(kinds, (len(images),), 0, len(CHANGES))
        sign = jnp.where(jax.random.bernoulli(signs, 0.5, (len(images),)), 1.0, -1.0)
        # One image after another, so that only the change drawn is computed; vmap would compute all fourteen.
        images = jax.lax.map(lambda drawn: change(*drawn), (images, kind, sign))
    return images
