"""What can be known of the GPU kernels without a GPU: they compile for the H200, fit it, move the bytes they claim and no more,
and stay sharded under a mesh."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import kernels
from kernels.batch_norm_act import config as batch_norm_config
from kernels.linear_act import config as linear_config
from kernels.local_response_norm import config as lrn_config
from kernels.max_pool import config as pool_config
from kernels.mlp import config as mlp_config
from kernels.runtime import dispatch, launch, tuning
from kernels.softmax_cross_entropy import config as loss_config
from kernels.verification import aot, traffic

S = jax.ShapeDtypeStruct
H200 = "nvidia-h200"
BF16 = jnp.bfloat16


def with_gradients(fn):
    def both(*args):
        y, pullback = jax.vjp(fn, *args)
        return y, pullback(y)

    return both


def batch_norm(x, scale, bias, residual=None):
    return kernels.batch_norm_act(x, scale, bias, residual)[0]


def loss(logits):
    return kernels.softmax_cross_entropy(logits, jnp.zeros(logits.shape[:-1], jnp.int32), 0.1)


def pool(x):
    return kernels.max_pool(x, 3, 2, "SAME")


def dropped(x, w, b):
    return kernels.linear_act(x, w, b, "relu", dropout_rate=0.5, dropout_seed=0)


def small_mlp(x, w0, b0, w1, b1):
    return kernels.mlp(x, [w0, w1], [b0, b1], "relu", "tanh")


def small_lenet5(x, *layers):
    return kernels.lenet5(x, layers[::2], layers[1::2])


def layers(*shapes):
    return [s for shape in shapes for s in (S(shape, BF16), S(shape[-1:], jnp.float32))]


LENET5 = layers((5, 5, 1, 6), (5, 5, 6, 16), (400, 120), (120, 84), (84, 10))
GENERATOR = layers((100, 256), (256, 1024))
CHANNELS = S((512,), jnp.float32)
WIDE = S((64, 28, 28, 512), BF16)
CASES = [
    *((pool_config, c, pool, (S((64, 55, 55, 96), BF16),)) for c in pool_config.CANDIDATES),
    *((lrn_config, c, kernels.local_response_norm, (S((64, 27, 27, 96), BF16),)) for c in lrn_config.CANDIDATES),
    *((loss_config, c, loss, (S((256, 1000), BF16),)) for c in loss_config.CANDIDATES),
    *((batch_norm_config, c, batch_norm, (WIDE, CHANNELS, CHANNELS, WIDE)) for c in batch_norm_config.CANDIDATES),
    *(
        (linear_config, c, kernels.linear_act, (S((4096, 512), BF16), S((512, 512), BF16), CHANNELS))
        for c in linear_config.CANDIDATES
    ),
    (linear_config, linear_config.CANDIDATES[4], dropped, (S((4096, 512), BF16), S((512, 512), BF16), CHANNELS)),
]  # fmt: skip


def name_of(case) -> str:
    module, candidate, fn, _ = case
    return "-".join([module.__name__.split(".")[1], fn.__name__, *map(str, dataclasses.astuple(candidate))])


CASES += [(mlp_config, c, small_mlp, (S((4096, 100), BF16), *GENERATOR)) for c in mlp_config.CANDIDATES]
FORWARD_ONLY = (small_mlp, small_lenet5)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_candidate_compiles_and_fits(case):
    module, candidate, fn, args = case
    operator = module.__name__.split(".")[1]
    with launch.recording() as launches, aot.lowering_for(H200), tuning.candidate(operator, dataclasses.asdict(candidate)):
        jax.eval_shape(fn if fn in FORWARD_ONLY else with_gradients(fn), *args)
    assert launches
    for call in launches:
        found = aot.kernel_resources(call, H200)
        what = f"{call.kernel.__name__}: {found}"
        assert found.spilled == 0, what
        assert found.shared_memory <= dispatch.H200.shared_memory, what
        if module is batch_norm_config:  # its barrier never opens unless all blocks are resident
            assert found.registers * 32 * call.num_warps <= 65_536, what
            assert call.grid[0] <= dispatch.H200.cores


@pytest.mark.parametrize("channels", [1, 5])
def test_lenet5_compiles_and_fits(channels):
    first, *others = LENET5
    with launch.recording() as launches, aot.lowering_for(H200):
        jax.eval_shape(small_lenet5, S((4096, 32, 32, channels), BF16), S((5, 5, channels, 6), first.dtype), *others)
    found = aot.kernel_resources(launches[0], H200)
    assert found.spilled == 0
    assert found.shared_memory <= dispatch.H200.shared_memory


@pytest.mark.parametrize(
    ("fn", "args"),
    [(small_mlp, (S((4096, 100), BF16), *GENERATOR)), (small_lenet5, (S((4096, 32, 32, 1), BF16), *LENET5))],
    ids=["mlp", "lenet5"],
)
def test_a_small_network_is_one_launch(fn, args):
    assert traffic.total(compiled(fn, *args)[0])[0] == 1


def compiled(fn, *args):
    found = aot.compile_for(H200, fn, *args)
    return traffic.kernels_of(found.as_text()), found.memory_analysis().temp_size_in_bytes


def test_max_pools_gradient_moves_its_floor():
    x = S((256, 55, 55, 64), BF16)
    y = 256 * 27 * 27 * 64
    launches, _ = compiled(
        lambda x, dy: jax.vjp(lambda x: kernels.max_pool(x, 3, 2), x)[1](dy)[0], x, S((256, 27, 27, 64), BF16)
    )
    forward, backward = (k for k in launches if "triton" in k.kind)
    assert forward.bytes == 2 * x.size + 2 * y + y
    assert backward.bytes == 2 * x.size + 2 * y + y
    assert len(launches) == 2


def test_max_pool_without_a_gradient_is_fused_with_what_is_around_it():
    x = S((256, 55, 55, 64), BF16)
    fn = lambda x: kernels.max_pool(jax.nn.relu(x), 3, 2)
    assert len(compiled(fn, x)[0]) == 1
    with kernels.use("triton"):  # where it is named it runs
        assert len([k for k in compiled(fn, x)[0] if "triton" in k.kind]) == 1


@pytest.mark.parametrize(("shape", "forward", "backward"), [((256, 28, 28, 128), 2, 3), ((256, 56, 56, 256), 3, 5)])
def test_batch_norm_passes_over_its_input(shape, forward, backward):
    """Two and three where slices of channels stay in the L2 cache, three and five where they do not."""
    x, channels = S(shape, BF16), S(shape[-1:], jnp.float32)
    launches, _ = compiled(lambda x, s, b, dy: jax.vjp(batch_norm, x, s, b)[1](dy), x, channels, channels, x)
    found = [k.bytes / (2 * x.size) for k in launches if "triton" in k.kind]
    assert found == pytest.approx([forward, backward], rel=0.05)  # scale, bias and the blocks' sums come on top


def test_local_response_norm_moves_half_of_what_xla_does():
    x = S((256, 55, 55, 64), BF16)
    moved = {}
    for implementation in ("xla", "triton"):
        with kernels.use(implementation):
            fn = lambda x, dy: jax.vjp(lambda x: kernels.local_response_norm(x), x)[1](dy)[0]
            moved[implementation] = traffic.total(compiled(fn, x, x)[0])[1]
    assert moved["triton"] <= moved["xla"] / 2


def test_without_a_gradient_linear_act_keeps_nothing_for_one():
    x, w, b = S((1024, 128), BF16), S((128, 512), BF16), CHANNELS
    launches, _ = compiled(lambda *a: kernels.linear_act(*a, "gelu"), x, w, b)
    (kernel,) = (k for k in launches if "triton" in k.kind)
    floor = 2 * (x.size + w.size + 1024 * 512) + 4 * b.size
    assert floor <= kernel.bytes <= floor + 64  # the key that dropout would take, and an output that is not used


def running_statistics(x, scale, bias, mean, var):
    return kernels.batch_norm_act_running(x, scale, bias, mean, var)


def test_batch_norm_moves_running_statistics_in_its_own_launch():
    x, channels = S((256, 14, 14, 128), BF16), S((128,), jnp.float32)
    found = aot.compile_for(H200, running_statistics, x, *[channels] * 4, donate=(3, 4))
    assert traffic.total(traffic.kernels_of(found.as_text()))[0] == 1  # in place: not even a copy


def places_of(ptx: str, parameter: int) -> tuple[list[int], list[int]]:
    """The lines of a kernel that load from and store to the array that is this parameter."""
    addresses: set[str] = set()
    loads, stores = [], []
    for number, line in enumerate(ptx.splitlines()):
        text = line.split("//")[0].strip()
        if found := re.search(rf"ld\.param\.b64\s+(%rd\d+), \[\w+_param_{parameter}\]", text):
            addresses.add(found[1])
        elif found := re.search(r"\b(ld|st)\.global\S*.*\[ ?(%rd\d+) ?\+", text):
            if found[2] in addresses:
                (loads if found[1] == "ld" else stores).append(number)
        elif (found := re.match(r"(?:cvta\S+|add\.s64|mad\.wide\S*|mov\.b64)\s+(%rd\d+), (.*);", text)) and any(
            f"%{register}" in addresses for register in re.findall(r"%(rd\d+)", found[2])
        ):
            addresses.add(found[1])
    return loads, stores


@pytest.mark.parametrize("lag", [0, 1])
def test_a_barrier_stands_between_reading_and_writing_running_statistics_in_place(lag):
    """Every warp of a block loads the old value, and one stores the new to the same place."""
    x, channels = S((256, 14, 14, 128), BF16), S((128,), jnp.float32)
    config = dataclasses.asdict(batch_norm_config.Config(64, 128, 16, lag))
    with launch.recording() as launches, aot.lowering_for(H200), tuning.candidate("batch_norm_act", config):
        jax.eval_shape(running_statistics, x, *[channels] * 4)
    ptx = aot.kernel_resources(launches[0], H200).ptx
    barriers = [number for number, line in enumerate(ptx.splitlines()) if "bar.sync" in line.split("//")[0]]
    names = launches[0].kernel.arg_names
    for old, new in (("old_mean", "new_mean"), ("old_var", "new_var")):
        loads, _ = places_of(ptx, names.index(old))
        _, stores = places_of(ptx, names.index(new))
        assert loads
        assert stores
        assert all(any(load < barrier < store for barrier in barriers) for load in loads for store in stores)


SHARDED = {
    "max_pool": (lambda x: kernels.max_pool(x, 3, 2, implementation="triton"), (S((16, 9, 9, 8), BF16),), (P("data"),)),
    "local_response_norm": (kernels.local_response_norm, (S((16, 3, 3, 8), BF16),), (P("data"),)),
    "softmax_cross_entropy": (loss, (S((16, 10), BF16),), (P("data"),)),
    "batch_norm_act": (batch_norm, (S((16, 3, 3, 8), BF16), S((8,), jnp.float32), S((8,), jnp.float32)), (P("data"), P(), P())),
    "running_statistics": (running_statistics, (S((16, 3, 3, 8), BF16), *[S((8,), jnp.float32)] * 4), (P("data"), *[P()] * 4)),
    "linear_act": (dropped, (S((16, 32), BF16), S((32, 64), BF16), S((64,), jnp.float32)), (P("data"), P(), P())),
}  # fmt: skip


def assert_two_of_sixteen(hlo: str, x: jax.ShapeDtypeStruct) -> None:
    """Each device is given two of the sixteen examples of x, and none holds them all."""
    shape = ",".join(map(str, (2, *x.shape[1:])))
    assert re.search(rf"^ENTRY .*\bbf16\[{shape}\]", hlo, re.M)
    assert not re.search(r"\bbf16\[16,", hlo)


def test_a_program_that_is_not_sharded_is_told_apart():
    fn, args, _ = SHARDED["local_response_norm"]
    with kernels.use("triton"):
        for specs, shares in (((P("data"),), True), ((P(),), False)):
            hlo = aot.compile_sharded(H200, 8, fn, args, specs).as_text()
            if shares:
                assert_two_of_sixteen(hlo, args[0])
            else:
                with pytest.raises(AssertionError):
                    assert_two_of_sixteen(hlo, args[0])


@pytest.mark.parametrize("name", SHARDED)
def test_a_sharded_batch_stays_sharded(name):
    """Compiled for eight H200s with the batch shared out: no gather is added; statistics and weight gradients are summed."""
    fn, args, specs = SHARDED[name]
    squares = lambda *a: sum(jnp.sum(jnp.square(y.astype(jnp.float32))) for y in jax.tree.leaves(fn(*a)))
    step = jax.grad(squares, argnums=tuple(range(len(args))))
    in_plain_jax = name in ("batch_norm_act", "running_statistics")  # their sums span the mesh: XLA's fusions stand in
    with kernels.use(None if in_plain_jax else "triton"):
        hlo = aot.compile_sharded(H200, 8, step, args, specs).as_text()
    assert "all-gather" not in hlo
    assert ("all-reduce" in hlo) == (len(args) > 1)
    if not in_plain_jax:
        assert "triton_kernel_call" in hlo
    assert_two_of_sixteen(hlo, args[0])


@pytest.mark.parametrize("name", SHARDED)
def test_export_for_the_gpu(name):
    fn, args, _ = SHARDED[name]
    with aot.lowering_for(H200):
        exported = jax.export.export(
            jax.jit(fn),
            platforms=["cuda"],
            disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("triton_kernel_call")],
        )(*args)
    assert "triton_kernel_call" in exported.mlir_module()


SMALL = {
    "mlp": (small_mlp, (S((16, 100), BF16), *GENERATOR)),
    "lenet5": (small_lenet5, (S((16, 32, 32, 1), BF16), *LENET5)),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_on_a_mesh_and_exported(name):
    """Each of eight H200s runs its two examples of the batch, with the whole weights; and the kernel goes into an export."""
    fn, args = SMALL[name]
    with kernels.use("triton"):
        hlo = aot.compile_sharded(H200, 8, fn, args, (P("data"), *[P()] * (len(args) - 1))).as_text()
        with aot.lowering_for(H200):
            check = jax.export.DisabledSafetyCheck.custom_call("triton_kernel_call")
            exported = jax.export.export(jax.jit(fn), platforms=["cuda"], disabled_checks=[check])(*args)
    assert "triton_kernel_call" in hlo
    assert "all-gather" not in hlo
    assert_two_of_sixteen(hlo, args[0])
    assert "triton_kernel_call" in exported.mlir_module()
