"""Images from a GAN: a grid, single files, or interpolations between latent vectors."""

from __future__ import annotations

import argparse
import math
import pathlib
import tokenize

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UserError
from experiments.flags import SEED, output, whole
from experiments.training import samples
from experiments.training.restore import Run

EXAMPLE = "--num 64 --out grid.png"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
MOST_VALUES = 2**28  # of all images together, 1 GiB of float32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num", type=whole(1), default=64, help="how many images (%(default)s); a column for each class, else nearly a square"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of the latent vectors (%(default)s)")
    parser.add_argument("--label", help="the class to draw, for a class-conditional network (all, cyclically)")
    parser.add_argument("--latent", type=pathlib.Path, help="a .npy file of latent vectors [num, latent size] to use instead")
    parser.add_argument("--interpolate", type=whole(2), metavar="STEPS", help="num rows of STEPS images between two vectors")
    parser.add_argument("--single", action="store_true", help="one file per image; --out is a folder")
    parser.add_argument("--out", type=output, help="a .png file, or a folder with --single; in the workdir if not given")


def read_latents(path: pathlib.Path, size: int, most: int) -> np.ndarray:
    """The vectors [1 to most, size], float32, in a .npy file, of which nothing is read before its header is found to fit.

    Raises:
      UserError: it holds something else.
    """
    try:
        with path.open("rb") as stream:
            read = _HEADERS[np.lib.format.read_magic(stream)]
            shape, by_column, dtype = read(stream)
            if dtype.kind not in "fiu":
                raise UserError(f"--latent: {path} holds {dtype}, real numbers are needed")
            if len(shape) != 2 or shape[1] != size or not 1 <= shape[0] <= most:
                raise UserError(f"--latent: {path} holds {shape}, this generator needs [num, {size}], num from 1 to {most:,}")
            content = stream.read(math.prod(shape) * dtype.itemsize)
        z = np.frombuffer(content, dtype).reshape(shape, order="F" if by_column else "C")
    except OSError as error:
        raise UserError(f"--latent: {path} cannot be read ({error.strerror or error})") from error
    # What NumPy reads a header with raises all of these.
    except (ValueError, KeyError, EOFError, MemoryError, RecursionError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise UserError(f"--latent: {path} is no .npy file of numbers ({' '.join(str(error).split())[:120]})") from error
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = z.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"--latent: {path} holds numbers that are not finite, or too large for float32")
    return vectors


def latents(run: Run, options: argparse.Namespace) -> jax.Array:
    """The vectors [num, latent_size] that the flags ask for, two a row for interpolations."""
    size, steps = run.task.latent_size, options.interpolate
    most = MOST_VALUES // math.prod(run.dataset.input_shape) // (steps or 1)
    if options.latent is not None:
        z = read_latents(options.latent, size, most * (2 if steps else 1))
        if steps and (len(z) % 2 or not z.any(1).all()):
            raise UserError(f"--latent: {options.latent} holds {z.shape}; to interpolate, pairs are needed, none of them zero")
        return jnp.asarray(z)
    if options.num > most:
        images = f"{options.num}{f' x {steps}' if steps else ''} images of {' x '.join(map(str, run.dataset.input_shape))}"
        raise UserError(f"--num: {images} asked for, at most {most:,} fit in the memory meant for them")
    return jax.random.normal(jax.random.key(options.seed), (options.num * (2 if steps else 1), size))


def labels_for(run: Run, label: str | None, count: int) -> jax.Array | None:
    """The classes to draw; None for a network that knows none."""
    classes = run.dataset.classes
    if not run.task.conditional:
        if label is not None:
            raise UserError(f"--label: {label!r} given, this network was trained without classes")
        return None
    if label is None:
        return jnp.arange(count) % len(classes)
    if label not in classes:
        raise UserError(f"--label: {label!r} given, the classes are {', '.join(classes)}")
    return jnp.full(count, classes.index(label))


def generate(run: Run, options: argparse.Namespace) -> None:
    """Write the images, and print where."""
    if options.out is not None and not options.single and options.out.suffix != ".png":
        raise UserError(f"--out: {options.out} given, a name that ends in .png is needed")
    z = latents(run, options)
    if options.interpolate:
        z = jnp.asarray(samples.interpolate(np.asarray(z), options.interpolate))
    images = run.task.generate(run.stepper.state, z, labels_for(run, options.label, len(z)))
    workdir = pathlib.Path(run.recipe.directory)
    if options.single:
        folder = options.out or workdir / "generated"
        folder.mkdir(exist_ok=True)
        for index, image in enumerate(samples.to_bytes(images)):
            samples.as_picture(image).save(folder / f"{index:05d}.png")
        print(f"{len(images)} images in {folder}")
        return
    path = options.out or workdir / ("interpolation.png" if options.interpolate else "generated.png")
    per_class = len(run.dataset.classes) if run.task.conditional and options.label is None else None  # a column for each class
    samples.save_grid(images, path, columns=options.interpolate or per_class)
    print(f"{len(images)} images in {path}")
