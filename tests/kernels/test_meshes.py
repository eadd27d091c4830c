"""Every operator, and a model of each family, forward and backward on two devices: Auto, Explicit and Manual axes."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
OPERATORS = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import kernels

rng = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
images, steps, rows = draw(4, 9, 9, 4), draw(4, 6, 5), draw(8, 12)
cell = lambda gates: kernels.CellWeights(draw(5, gates * 7), draw(7, gates * 7), draw(gates * 7), draw(gates * 7))
labels = jnp.asarray(rng.integers(0, 12, 8), jnp.int32)
w1, w3, wl, grouped = draw(1, 1, 4, 6), draw(3, 3, 4, 6), draw(12, 5), draw(3, 3, 2, 6)
scale, shift = draw(4), draw(4)
# name -> function of the weights and of arrays that share the batch
CASES = {
    "max_pool": (lambda w, x: kernels.max_pool(x, 3, 2), None, images),
    "max_pool tiles": (lambda w, x: kernels.max_pool(x, 3), None, images),
    "conv 3x3": (lambda w, x: kernels.conv(x, w, 1, "SAME"), w3, images),
    "conv 1x1": (lambda w, x: kernels.conv(x, w, 1, "SAME"), w1, images),
    "conv grouped": (lambda w, x: kernels.conv(x, w, 1, "SAME", groups=2), grouped, images),
    "local_response_norm": (lambda w, x: kernels.local_response_norm(x), None, images),
    "batch_norm_act": (lambda w, x: kernels.batch_norm_act(x, *w)[0], (scale, shift), images),
    "linear_act": (lambda w, x: kernels.linear_act(x, w, None, "gelu"), wl, rows),
    "softmax_cross_entropy": (lambda w, x: kernels.softmax_cross_entropy(x, w[: x.shape[0]]), labels, rows),
    "mlp": (lambda w, x: kernels.mlp(x, [w, w.T], [jnp.zeros(5), jnp.zeros(12)]), wl, rows),
    "lstm": (lambda w, x: kernels.lstm(x, [w])[0], cell(4), steps),
    "gru": (lambda w, x: kernels.gru(x, [[w, w]])[0], cell(3), steps),
    "rnn": (lambda w, x: kernels.rnn(x, [w], seq_lengths=jnp.full(x.shape[0], 3))[0], cell(1), steps),
}
OVER_THE_BATCH = ("batch_norm_act",)  # whose results are not those of each part by itself


def close(found, expected, what):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # float32 sums over the batch, added up in another order
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(1, np.abs(b).max()), err_msg=what)


for name, (fn, w, x) in CASES.items():
    floating = w is not None and jnp.issubdtype(jax.tree.leaves(w)[0].dtype, jnp.floating)
    square = lambda w, x, fn=fn: jnp.sum(fn(w, x) ** 2)
    gradients = jax.grad(square, argnums=(0, 1) if floating else 1)
    both = lambda w, x: (fn(w, x), gradients(w, x))
    expected = jax.jit(both)(w, x)
    for kind in ("Auto", "Explicit", "Manual"):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit if kind == "Explicit" else AxisType.Auto,))
        spread, whole = jax.device_put(x, NamedSharding(mesh, P("data"))), jax.device_put(w, NamedSharding(mesh, P()))
        if kind == "Manual":
            if name in OVER_THE_BATCH or name == "softmax_cross_entropy":
                continue
            out = (P("data"), (P(), P("data")) if floating else P("data"))
            found = jax.jit(jax.shard_map(both, mesh=mesh, in_specs=(P(), P("data")), out_specs=out))(whole, spread)
        else:
            with jax.set_mesh(mesh):
                found = jax.jit(both)(whole, spread)
            if kind == "Explicit":
                assert found[0].sharding.spec[0] == "data", (name, found[0].sharding)
        close(found, expected, f"{name}: {kind}")
"""
INTERPRETED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import kernels

images = jnp.asarray(np.random.default_rng(0).standard_normal((4, 9, 9, 4)), jnp.float32)
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
spread = jax.device_put(images, NamedSharding(mesh, P("data")))
pool = lambda x: kernels.max_pool(x, 3, 2, implementation="interpret")
try:
    jax.jit(pool)(spread)
except Exception as error:
    assert "'interpret' and 'ptx' run in programs of one device, and this one has 2" in str(error), error
else:
    raise AssertionError("it ran")
for fn in (pool, jax.grad(lambda x: jnp.sum(pool(x) ** 2))):
    mapped = jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=P("data"), out_specs=P("data")))
    np.testing.assert_allclose(mapped(spread), fn(images), rtol=1e-6)
"""
MODELS = """
import contextlib, functools
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import zoo
from tests.zoo.test_forward_mode import alexnet, drawn

rng = np.random.default_rng(0)
SHAPES = {
    "lenet5": (4, 32, 32, 1), "resnet20_cifar": (4, 16, 16, 3), "alexnet": (2, 64, 64, 3), "bilstm_classifier": (4, 6, 32),
}
for name, shape in SHAPES.items():
    if name == "alexnet":  # its dense layers narrow, since 54 million weights would show no more
        params, state, apply = zoo.functional(alexnet())
        params = jax.tree.map_with_path(functools.partial(drawn, rng), params)
    else:
        params, state, apply = zoo.functional(zoo.create_model(name, num_classes=10, rngs=0))
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    step = jax.jit(jax.value_and_grad(lambda p, s, x: jnp.mean(apply(p, s, x)[0] ** 2)))
    expected = step(params, state, x)
    # Explicit axes also without jax.set_mesh: the arrays alone say what they are on.
    for kind, known in ((AxisType.Auto, True), (AxisType.Explicit, True), (AxisType.Explicit, False)):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        whole = NamedSharding(mesh, P())
        with jax.set_mesh(mesh) if known else contextlib.nullcontext():
            placed = jax.device_put(params, whole), jax.device_put(state, whole)
            found = step(*placed, jax.device_put(x, NamedSharding(mesh, P("data"))))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * max(1e-3, np.abs(b).max()), err_msg=f"{name} {kind} {known}")
"""


def on_two_devices(program: str) -> None:
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_every_operator() -> None:
    on_two_devices(OPERATORS)


def test_the_interpreter() -> None:
    on_two_devices(INTERPRETED)


@pytest.mark.slow
def test_a_model_of_each_family() -> None:
    on_two_devices(MODELS)
