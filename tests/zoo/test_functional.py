"""zoo.functional under the transformations that a JAX project uses, and the modes that it switches."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

import zoo
from zoo.models.resnet import BasicBlock


def small(**options) -> zoo.ResNet:
    options = {"widths": (8, 16), "cifar": True, "num_classes": 5, "rngs": nnx.Rngs(0)} | options
    return zoo.ResNet(BasicBlock, (1, 1), **options)


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (4, 9, 8, 3))


def test_jit_grad_and_state(images: jax.Array) -> None:
    model = small()
    params, state, apply = zoo.functional(model)
    before = jax.tree.leaves(nnx.state(model))

    @jax.jit
    def step(params, state):
        def loss(params):
            logits, new = apply(params, state, images, train=True)
            return jnp.square(logits).mean(), new

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), new

    first, params, state = step(params, state)
    second, params, state = step(params, state)
    assert second < first
    assert state["bn1"]["num_batches_tracked"] == 2
    for old, new in zip(before, jax.tree.leaves(nnx.state(model)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_statistics_move_in_training_only(images: jax.Array) -> None:
    params, state, apply = zoo.functional(small())
    _, same = apply(params, state, images)
    jax.tree.map(np.testing.assert_array_equal, state, same)
    _, new = apply(params, state, images, train=True)
    assert not np.allclose(new["bn1"]["mean"], state["bn1"]["mean"])


def test_all_keys_are_strings_and_lists_keep_their_order() -> None:
    """With ten members and more, "10" comes before "2" among strings."""
    model = zoo.ResNet(BasicBlock, (11,), widths=(4,), cifar=True, num_classes=2, rngs=nnx.Rngs(0))
    params, state, apply = zoo.functional(model)
    flat = flatten_dict(params, sep="/")
    assert "layer1/10/conv1/kernel" in flat
    np.testing.assert_array_equal(flat["layer1/2/conv1/kernel"], model.layer1[2].conv1.kernel[...])
    for number in (2, 10):  # each array back to where it came from
        changed = unflatten_dict(flat | {f"layer1/{number}/bn2/bias": jnp.full((4,), 7.0)}, sep="/")
        other = nnx.clone(model)
        other.layer1[number].bn2.bias[...] = jnp.full((4,), 7.0)
        expected, x = zoo.functional(other)[0], jnp.ones((2, 4, 4, 3))
        jax.tree.map(np.testing.assert_array_equal, changed, expected)
        np.testing.assert_array_equal(jax.jit(apply)(changed, state, x)[0], jax.jit(apply)(expected, state, x)[0])
        assert not np.array_equal(jax.jit(apply)(params, state, x)[0], jax.jit(apply)(changed, state, x)[0])


def test_vmap_over_models(images: jax.Array) -> None:
    views = [zoo.functional(small(rngs=nnx.Rngs(seed))) for seed in (0, 1)]
    params, state = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *(view[k] for view in views)) for k in (0, 1))
    together = jax.jit(jax.vmap(lambda p, s: views[0][2](p, s, images)[0]))(params, state)
    apart = jnp.stack([apply(p, s, images)[0] for p, s, apply in views])
    np.testing.assert_allclose(together, apart, atol=1e-5)  # float32, fused differently


def test_scan_over_batches(images: jax.Array) -> None:
    params, state, apply = zoo.functional(small())
    batches = jnp.stack([images, images + 1])

    def body(state, batch):
        logits, state = apply(params, state, batch, train=True)
        return state, logits

    scanned, logits = jax.jit(lambda state: jax.lax.scan(body, state, batches))(state)
    for batch, expected in zip(batches, logits, strict=True):
        state, ours = body(state, batch)
        np.testing.assert_allclose(ours, expected, atol=1e-5)  # float32, fused differently
    np.testing.assert_allclose(scanned["bn1"]["var"], state["bn1"]["var"], rtol=1e-5)


SHARDED = """
import jax, numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
import zoo
from zoo.models.resnet import BasicBlock
model = zoo.ResNet(BasicBlock, (1, 1), widths=(8, 16), cifar=True, num_classes=5, rngs=nnx.Rngs(0))
params, state, apply = zoo.functional(model)
images = jax.random.normal(jax.random.key(1), (4, 9, 8, 3))
step = jax.jit(lambda p, s, x: apply(p, s, x, train=True))
alone, alone_state = step(params, state, images)
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
spread = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
whole = jax.NamedSharding(mesh, jax.P())
logits, new_state = step(jax.device_put(params, whole), jax.device_put(state, whole), spread)
np.testing.assert_allclose(logits, alone, atol=1e-5)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new_state, alone_state)
assert not logits.sharding.is_fully_replicated
"""


def test_batch_sharded_over_two_devices_gives_the_statistics_of_the_whole_batch() -> None:
    import os

    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", SHARDED], check=True, timeout=240, env=environment)


def test_random_numbers_come_from_the_key(images: jax.Array) -> None:
    params, state, apply = zoo.functional(small(dropout=0.5, stochastic_depth=0.5))
    draw = lambda seed: apply(params, state, images, train=True, rngs=jax.random.key(seed))[0]
    np.testing.assert_array_equal(draw(0), draw(0))
    assert not np.allclose(draw(0), draw(1))
    with pytest.raises(ValueError, match=r"rngs: a jax.random.key is needed"):
        apply(params, state, images, train=True)
    np.testing.assert_array_equal(apply(params, state, images)[0], apply(params, state, images)[0])


def test_remat_changes_nothing(images: jax.Array) -> None:
    def outcome(remat):
        params, state, apply = zoo.functional(small(remat=remat, stochastic_depth=0.5))
        call = lambda p: jax.value_and_grad(
            lambda p: (lambda y, s: (jnp.square(y).mean(), s))(*apply(p, state, images, train=True, rngs=jax.random.key(0))),
            has_aux=True,
        )(p)
        return jax.jit(call)(params), "remat" in str(jax.make_jaxpr(call)(params))

    plain, plain_remat = outcome(False)
    for choice in (True, ["layer2"]):
        other, remat = outcome(choice)
        assert remat
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, other)  # float32, fused differently
    assert not plain_remat
    with pytest.raises(ValueError, match=r"remat: \['layer9'\] given, .*stem, layer1, layer2"):
        small(remat=["layer9"])


def test_bfloat16_computation(images: jax.Array) -> None:
    model = small(dtype=jnp.bfloat16)
    logits = model(images)
    assert logits.dtype == jnp.bfloat16
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {"float32"}
    assert model.bn1.mean[...].dtype == jnp.float32
