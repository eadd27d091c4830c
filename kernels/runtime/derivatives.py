"""A function with a gradient written by hand, differentiable in every way that JAX has.

jax.custom_vjp defines a gradient and excludes everything else: forward mode (jax.jvp, jacfwd), and second derivatives through a
kernel, which has none of its own. Here the hand-written function is paired with a plain one of equal value: the first gradient
is hand-written, and every other derivative is that of the plain function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.runtime import meshes


def differentiable(
    plain: Callable[..., Any],
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[[Any, Any], Sequence[Any]],
    alone: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """A function of the value of `plain`, with the gradient of `forward` and `backward`.

    Args:
      plain: differentiable by JAX; takes arrays and trees of them, returns floating-point arrays or a tree of them.
      forward: from the same arguments to the same results and what `backward` needs besides.
      backward: from that and the gradients of the results to the gradients of the arguments, one each in their structure; those
        of what is no floating-point array do not count.
      alone: what runs where no derivative is taken; by default `forward`.
    """

    @jax.custom_jvp
    def value(*args: Any) -> Any:
        return forward(*args)[0] if alone is None else alone(*args)

    @value.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        results, residuals = run(*primals)
        return results, _tangents(plain, pull, residuals, primals, tangents, results)

    @jax.custom_jvp
    def run(*args: Any) -> tuple[Any, Any]:
        return forward(*args)

    @run.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        results, residuals = run(*primals)
        return (results, residuals), (
            _tangents(plain, pull, residuals, primals, tangents, results),
            jax.tree.map(_no_tangent, residuals),
        )

    # What `backward` keeps moves with the arguments; its tangents are not asked for, since `plain` knows the arguments.
    @jax.custom_jvp
    def pull(residuals: Any, primals: Any, cotangents: Any) -> Any:
        return _floating(backward(residuals, cotangents), primals)

    @pull.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        residuals, args, cotangents = primals
        _, d_args, d_cotangents = tangents
        moving, rest = _split(args)

        def gradients(moving: list[Any], cotangents: Any) -> list[Any]:
            return jax.vjp(lambda moving: plain(*_joined(moving, rest)), moving)[1](cotangents)[0]

        d_out = jax.jvp(gradients, (moving, cotangents), (_floating(d_args, args), d_cotangents))[1]
        return pull(residuals, args, cotangents), d_out

    def call(*args: Any) -> Any:
        axes = meshes.varying_axes(*jax.tree.leaves(args))
        return value(*jax.tree.map(lambda leaf: meshes.vary(leaf, axes), args))

    return call


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _floating(tree: Any, like: Any) -> list[Any]:
    """Of a sequence of trees in the structures of `like`, the leaves where `like` has floating-point arrays."""
    found: list[Any] = []
    for part, kind in zip(tree, like, strict=True):
        leaves, structure = jax.tree.flatten(kind)
        parts = [None] * len(leaves) if part is None else structure.flatten_up_to(part)  # type: ignore[attr-defined]
        found += [p for p, leaf in zip(parts, leaves, strict=True) if _is_floating(leaf)]
    return found


def _split(args: Any) -> tuple[list[Any], tuple[list[Any], Any]]:
    """The floating-point leaves, and what `_joined` needs to put them back."""
    leaves, structure = jax.tree.flatten(args)
    return [leaf for leaf in leaves if _is_floating(leaf)], (
        [None if _is_floating(leaf) else leaf for leaf in leaves],
        structure,
    )


def _joined(moving: Sequence[Any], rest: tuple[list[Any], Any]) -> Any:
    given = iter(moving)
    return jax.tree.unflatten(rest[1], [next(given) if leaf is None else leaf for leaf in rest[0]])


def _no_tangent(leaf: Any) -> Any:
    """Zero in the tangent's type; under shard_map that says along which mesh axes it varies."""
    kind = jax.typeof(leaf)
    zero = jnp.zeros_like(leaf) if _is_floating(leaf) else np.zeros(kind.shape, jax.dtypes.float0)
    return meshes.vary(zero, meshes.varying_axes(leaf))


def _tangents(plain: Callable, pull: Callable, residuals: Any, primals: Any, tangents: Any, results: Any) -> Any:
    """The tangents of the results: those of `plain`; transposed, the gradients of `pull`."""
    fixed, fixed_structure = jax.tree.flatten((residuals, primals, results))
    out_structure = jax.tree.structure(results)

    def push(fixed: Sequence[Any], moving: Sequence[Any]) -> list[Any]:
        _, args, _ = jax.tree.unflatten(fixed_structure, fixed)
        at, rest = _split(args)
        run = lambda moving: plain(*_joined(moving, rest))
        return jax.tree.leaves(jax.jvp(run, (at,), (list(moving),))[1])

    def transpose(fixed: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        residuals, args, _ = jax.tree.unflatten(fixed_structure, fixed)
        return pull(residuals, args, jax.tree.unflatten(out_structure, cotangents))

    moving = _floating(tangents, primals)
    kinds = tuple(jax.typeof(leaf) for leaf in jax.tree.leaves(results))
    first = len(jax.tree.leaves(residuals))
    owners = tuple(first + i for i, leaf in enumerate(jax.tree.leaves(primals)) if _is_floating(leaf))
    out = _tangent().bind(*fixed, *moving, push=push, transpose=transpose, count=len(fixed), kinds=kinds, owners=owners)
    return jax.tree.unflatten(out_structure, out)


@functools.cache
def _tangent() -> Any:
    """The primitive behind `_tangents`, made when it is first needed: what it takes to make one is not quick to import.

    tangent(*fixed, *moving) is push(fixed, moving), linear in `moving`; its transpose is `transpose(fixed, cotangents)`. The
    first `count` arguments are fixed; those that the moving ones are tangents of stand at `owners`, and the results end them.
    """
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    run = lambda *args, push, count, **_: push(args[:count], args[count:])
    tangent = Primitive("hand_written_derivative")
    tangent.multiple_results = True
    tangent.def_impl(run)
    tangent.def_abstract_eval(lambda *_, kinds, **__: list(kinds))
    mlir.register_lowering(tangent, mlir.lower_fun(run, multiple_results=True))
    ad.primitive_jvps[tangent] = _jvp
    ad.primitive_transposes[tangent] = _transpose
    batching.primitive_batchers[tangent] = _batch
    return tangent


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, push: Callable, count: int, **params: Any) -> Any:
    from jax.interpreters import ad

    out = _tangent().bind(*primals, push=push, count=count, **params)
    if all(type(t) is ad.Zero for t in tangents[:count]):
        moving = [ad.instantiate_zeros(t) for t in tangents[count:]]
        return out, _tangent().bind(*primals[:count], *moving, push=push, count=count, **params)
    moves = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]

    def run(*moving: Any) -> list[Any]:
        args = list(primals)
        for i, value in zip(moves, moving, strict=True):
            args[i] = value
        return push(args[:count], args[count:])

    return out, jax.jvp(run, [primals[i] for i in moves], [tangents[i] for i in moves])[1]


def _transpose(cotangents: Sequence[Any], *args: Any, transpose: Callable, count: int, **_: Any) -> list[Any]:
    from jax.interpreters import ad

    found = transpose(args[:count], [ad.instantiate_zeros(ct) for ct in cotangents])
    needed = [ct if ad.is_undefined_primal(arg) else None for ct, arg in zip(found, args[count:], strict=True)]
    return [None] * count + needed


def _batch(
    args: Sequence[Any], dims: Sequence[Any], *, push: Callable, transpose: Callable, count: int, kinds: Any, owners: Any
) -> Any:
    from jax.interpreters import batching

    size = next(arg.shape[dim] for arg, dim in zip(args, dims, strict=True) if dim is not None)
    moving = [batching.bdim_at_front(arg, dim, size) for arg, dim in zip(args[count:], dims[count:], strict=True)]
    axes = (tuple(dims[:count]), 0)
    mapped_push = lambda fixed, moving: jax.vmap(push, axes, axis_size=size)(tuple(fixed), list(moving))
    mapped_transpose = lambda fixed, cts: jax.vmap(transpose, axes, axis_size=size)(tuple(fixed), list(cts))
    mapped = tuple(jax.core.ShapedArray((size, *kind.shape), kind.dtype) for kind in kinds)
    params = {"push": mapped_push, "transpose": mapped_transpose, "count": count, "kinds": mapped, "owners": owners}
    out = _tangent().bind(*args[:count], *moving, **params)
    if any(dim is not None and dims[owner] is None for dim, owner in zip(dims[count:], owners, strict=True)):
        return out, [0] * len(out)
    # Tangents are mapped only where what they are tangents of is. Then those of a result that is not mapped are all the same,
    # and JAX takes them for one.
    results = dims[count - len(out) : count]
    return [o if dim is not None else o[0] for o, dim in zip(out, results, strict=True)], [
        None if dim is None else 0 for dim in results
    ]
