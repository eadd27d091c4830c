"""Images from a GAN: a grid, single files, or interpolations between latent vectors."""

from __future__ import annotations

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UserError
from experiments.training import samples
from experiments.training.restore import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num", type=int, default=64, help="how many images; the grid is as near to a square as it can be")
    parser.add_argument("--seed", type=int, default=0, help="of the latent vectors")
    parser.add_argument("--label", help="the class to draw, for a class-conditional network; all in turn if not given")
    parser.add_argument("--latent", type=pathlib.Path, help="a .npy file of latent vectors [num, latent size] to use instead")
    parser.add_argument("--interpolate", type=int, metavar="STEPS", help="draw num rows of STEPS images between two vectors")
    parser.add_argument("--single", action="store_true", help="one file per image; --out is a folder")
    parser.add_argument("--out", type=pathlib.Path, help="a PNG, or a folder with --single; in the workdir if not given")


def latents(run: Run, options: argparse.Namespace) -> jax.Array:
    """The vectors [num, latent_size] that the flags ask for, two a row for interpolations."""
    size = run.task.latent_size
    if options.latent is not None:
        try:
            z = np.load(options.latent, allow_pickle=False)
        except ValueError as error:
            raise UserError(f"--latent: {options.latent} is no .npy file of numbers ({error})") from error
        if z.ndim != 2 or z.shape[1] != size:
            raise UserError(f"--latent: {options.latent} holds {z.shape}, this generator needs [num, {size}]")
        return jnp.asarray(z, jnp.float32)
    count = options.num * (2 if options.interpolate else 1)
    return jax.random.normal(jax.random.key(options.seed), (count, size))


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
    if options.num < 1:
        raise UserError(f"--num: {options.num} given, at least 1 is needed")
    if options.interpolate is not None and options.interpolate < 2:
        raise UserError(f"--interpolate: {options.interpolate} given, at least 2 steps are needed")
    z = latents(run, options)
    if options.interpolate:
        z = jnp.asarray(samples.interpolate(np.asarray(z), options.interpolate))
    images = run.task.generate(run.stepper.state, z, labels_for(run, options.label, len(z)))
    workdir = pathlib.Path(run.recipe.directory)
    if options.single:
        folder = options.out or workdir / "generated"
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(samples.to_bytes(images)):
            samples.as_picture(image).save(folder / f"{index:05d}.png")
        print(f"{len(images)} images in {folder}")
        return
    path = options.out or workdir / ("interpolation.png" if options.interpolate else "generated.png")
    samples.save_grid(images, path, columns=options.interpolate)
    print(f"{len(images)} images in {path}")
