"""The kernel of linear_act for Hopper: in Mosaic GPU's interpreter against float64, compiled for the H200, and on a GPU."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

import kernels
from kernels.linear_act import config, pallas, vjp, xla
from kernels.runtime import activations, dispatch, measured, tuning
from kernels.verification import aot, traffic
from tests.kernels.checking import TOLERANCE, assert_close, assert_matches_float64, few, normal

S = jax.ShapeDtypeStruct
H200 = "nvidia-h200"
SMALL = config.PallasConfig(64, 64, 64, 2)


def drawn(dtype, rows, inputs, outputs, seed, with_bias=True):
    x, w, b = (normal(seed + i, shape, dtype) for i, shape in enumerate(((rows, inputs), (inputs, outputs), (outputs,))))
    return x, w / inputs**0.5, b.astype(jnp.float32) if with_bias else None


@pytest.mark.parametrize("shape", [(3, 5), (70, 64)])
def test_random_bits_are_jaxs(shape):
    """Which elements dropout keeps is then what every other implementation says."""
    key = jax.random.key(7, impl="threefry2x32")
    place = jnp.arange(np.prod(shape), dtype=jnp.uint32).reshape(shape)
    with jax.threefry_partitionable(True):
        expected = jax.random.bits(key, shape, jnp.uint32)
    np.testing.assert_array_equal(pallas.random_bits(*jax.random.key_data(key), place), expected)


@settings(few, max_examples=2)
@given(
    rows=st.sampled_from([1, 100, 130]),
    inputs=st.sampled_from([5, 72, 130]),
    outputs=st.sampled_from([3, 72]),
    activation=st.sampled_from(activations.NAMES),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_interpreted(rows, inputs, outputs, activation, with_bias, seed):
    """Several blocks, ragged in every dimension; the backward pass is fed with what this forward pass keeps for it."""
    dtype = (jnp.bfloat16, jnp.float16)[seed % 2]
    args = drawn(dtype, rows, inputs, outputs, seed, with_bias)
    check(args, activation, 0.0, None, seed)


def test_interpreted_with_dropout():
    check(drawn(jnp.bfloat16, 9, 8, 16, 0), "relu", 0.4, 3, 0)


def check(args, activation, rate, seed_of_dropout, seed):
    x = args[0]
    key = None if seed_of_dropout is None else jax.random.key_data(jax.random.key(seed_of_dropout, impl="threefry2x32"))
    static = vjp._static(activation, 0.1, rate)
    with tuning.candidate("linear_act.pallas", dataclasses.asdict(SMALL)):
        y, *before = jax.jit(lambda *a: pallas.forward(*a, vjp._state(key, 0), "interpret", static))(*args)
    dy = normal(seed + 9, y.shape, y.dtype)
    residuals = (*args, key, before[0] if before else y)
    gradients = vjp._backward(activation, 0.1, rate, None, "interpret", residuals, dy)[: len(args)]

    def reference(x, w, b):
        z = activations.apply(activation, x @ w + (0 if b is None else b), 0.1)
        return z if key is None else z * np.asarray(xla.kept(jnp.int32(seed_of_dropout), z.shape, rate)) / (1 - rate)

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), args)
        exact, pullback = jax.vjp(reference, *wide)
        expected = pullback(jnp.asarray(np.asarray(dy, np.float64)))
    assert_close(y, exact, TOLERANCE[x.dtype.name], "y")
    tolerance = 3 * TOLERANCE[x.dtype.name]  # y or z rounded, the gradient of z rounded, and its product with x or w
    for name, g, e in zip("xwb", gradients, expected, strict=True):
        if g is not None:
            assert_close(g, e, tolerance, f"gradient of {name}")


def shapes(rows, inputs, outputs, dtype=jnp.bfloat16):
    return S((rows, inputs), dtype), S((inputs, outputs), dtype), S((outputs,), jnp.float32)


def plain(x, w, b):
    return kernels.linear_act(x, w, b, "relu", implementation="pallas")


def dropped_gelu(x, w, b):
    return kernels.linear_act(x, w, b, "gelu", dropout_rate=0.4, dropout_seed=0, implementation="pallas")


@pytest.mark.parametrize(
    ("candidate", "fn"),
    [
        *((candidate, plain) for candidate in config.PALLAS_CANDIDATES),
        pytest.param(config.PALLAS_CANDIDATES[1], dropped_gelu, marks=pytest.mark.slow),  # the longest end, with both results
    ],
)
def test_every_candidate_compiles_and_fits(candidate, fn):
    with tuning.candidate("linear_act.pallas", dataclasses.asdict(candidate)):
        found = aot.mosaic_resources(fn, *shapes(4096, 512, 512))
    assert found.spilled == 0
    assert found.shared_memory <= dispatch.H200.shared_memory
    assert {"wgmma", "tma"} <= found.instructions


def test_it_moves_its_floor():
    """x, w, b and y once, where they are whole tiles of shared memory, even if their blocks hang over the edges."""
    x, w, b = shapes(1000, 192, 320)
    launches = traffic.kernels_of(aot.compile_for(H200, plain, x, w, b).as_text())
    (kernel,) = (k for k in launches if "mosaic" in k.kind)
    state = 12
    assert kernel.bytes == 2 * (x.size + w.size + 1000 * 320) + 4 * b.size + state
    assert traffic.total(launches)[1] == kernel.bytes + state


def descriptors(program: str) -> dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Of a kernel's arguments, by number, the sizes and strides of the TMA descriptors that they are reached through."""
    calls = [found.start() for found in re.finditer("call @mosaic_gpu_init_tma_desc", program)]
    host = program[: calls[-1]]
    made = dict(re.findall(r"^ *(%\w+) = (.*)$", host, re.MULTILINE))
    view = re.compile(r"memref\.reinterpret_cast (%\w+) to offset: \[0\], sizes: \[([\d, ]+)\], strides: \[([\d, ]+)\]")
    views = view.findall(host)
    assert len(views) == len(calls), "each descriptor is made from a view whose sizes are known"
    found: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for name, *numbers in views:
        text = made[name]
        while (argument := re.search(r"from_kernel_arg_idx = (\d+)", text)) is None:  # through what reshapes it
            text = made[re.findall(r"%\w+", text)[0]]
        sizes, strides = (tuple(map(int, part.split(","))) for part in numbers)
        found.setdefault(int(argument[1]), []).append((sizes, strides))
    return found


# Shapes that no other test compiles: of a kernel that this process has compiled already, Mosaic GPU writes nothing down.
RAGGED = {
    "blocks": ((1000, 320, 192), (1000, 320, 192)),  # whole tiles of shared memory, in blocks that hang over the edges
    "within a tile": ((8, 24, 40), (8, 24, 40)),
    "padded": ((129, 200, 3), (136, 256, 8)),
}


@pytest.mark.parametrize(("given", "reached"), RAGGED.values(), ids=RAGGED)
def test_it_reaches_no_memory_but_its_operands(given, reached, monkeypatch, tmp_path):
    """What no interpreter models, read off the program compiled for the H200.

    All that it reads and writes of device memory it does by TMA, and the descriptors name each element of x, w, b and y once
    and nothing else: `reached` are the sizes of those arrays, after XLA's padding. TMA reads zeros where a tile goes past the
    sizes of its descriptor, and writes nothing there: that the hardware does so is taken from its manual.
    """
    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    hlo = aot.compile_for(H200, plain, *shapes(*given)).as_text()
    ptx, log = (next(tmp_path.glob(f"*.{end}")).read_text() for end in ("ptx", "mlir-passes.log"))
    touched = re.findall(r"^\s*(?:@\S+\s+)?((?:ld|st|atom|red|cp)\.\S+)", ptx, re.MULTILINE)
    others = [op for op in touched if not op.startswith(("cp.async.bulk", "ld.shared", "st.shared", "ld.param"))]
    assert not others, "device memory is reached by TMA alone"

    rows, inputs, outputs = reached
    operands = {0: (rows, inputs), 1: (inputs, outputs), 3: (outputs,), 4: (rows, outputs)}  # 2 is dropout's, which is not read
    found = descriptors(log.split("// -----// IR Dump")[1])
    assert found.keys() == operands.keys()
    for number, shape in operands.items():
        for sizes, strides in found[number]:
            places = sum(n * step for n, step in zip(np.ix_(*map(np.arange, sizes)), strides, strict=True))
            np.testing.assert_array_equal(np.sort(places, axis=None), np.arange(np.prod(shape)))
    (call,) = re.findall(r"= (.*) custom-call\(.*mosaic_gpu", hlo)
    assert f"bf16[{rows},{outputs}]" in call, "and y is as large"


def test_what_lies_past_the_edge_of_rows_and_columns_reaches_no_result():
    """The interpreter takes whole blocks alone, so x, w and b lie in such blocks of NaN here: past the last row and column
    nothing is read into what counts. Along the inputs both operands need zeros there, which is what TMA reads (above)."""
    rows, inputs, outputs = 100, 40, 72
    x, w, b = drawn(jnp.bfloat16, rows, inputs, outputs, 0)
    embedded = [jnp.full(shape, jnp.nan, a.dtype) for shape, a in (((128, 64), x), ((64, 128), w), ((128,), b))]
    embedded[0] = embedded[0].at[:, inputs:].set(0).at[:rows, :inputs].set(x)
    embedded[1] = embedded[1].at[inputs:].set(0).at[:inputs, :outputs].set(w)
    embedded[2] = embedded[2].at[:outputs].set(b)
    with tuning.candidate("linear_act.pallas", dataclasses.asdict(SMALL)):
        static = vjp._static("gelu", 0.1, 0.0)
        results = jax.jit(lambda *a: pallas.forward(*a, vjp._state(None, 0), "interpret", static))(*embedded)
    x, w, b = (np.asarray(a, np.float64) for a in (x, w, b))
    z = x @ w + b
    expected = z * scipy.stats.norm.cdf(z), z  # y, and what the gradient needs of gelu
    for result, exact in zip(results, expected, strict=True):
        assert result.shape == (128, 128)
        assert_close(result[:rows, :outputs], exact, TOLERANCE["bfloat16"], "result")
        assert np.isnan(np.asarray(result[rows:], np.float32)).all(), "the poison was there"


def gradients(fn):
    return jax.grad(lambda *a: jnp.sum(jnp.square(fn(*a).astype(jnp.float32))), (0, 1, 2))


def dropped(x, w, b):
    return kernels.linear_act(x, w, b, "relu", dropout_rate=0.5, dropout_seed=0, implementation="pallas")


BATCH = shapes(512, 64, 128)


def test_under_vmap_scan_and_remat_it_compiles():
    """Rows that are mapped over join the others: one launch. Over mapped weights it is launched in a scan."""
    compiled = lambda fn, *args: aot.compile_for(H200, fn, *args).as_text()
    joined = compiled(jax.vmap(plain, (0, None, None)), S((3, 512, 64), jnp.bfloat16), *BATCH[1:])
    assert joined.count('custom_call_target="mosaic_gpu') == 1
    assert re.search(r"bf16\[1536,128\]\S* custom-call|\(bf16\[1536,128\]\S*\) custom-call", joined)
    assert "while(" not in joined
    looped = compiled(jax.vmap(gradients(jax.checkpoint(plain))), *(S((3, *s.shape), s.dtype) for s in BATCH))
    assert "while(" in looped
    assert "mosaic_gpu" in looped
    assert "triton_kernel_call" in looped


@pytest.mark.parametrize("fn", [plain, dropped])
def test_a_sharded_batch_stays_sharded(fn):
    """Compiled for eight H200s: no gather is added, the gradients of weights and bias are summed over the devices."""
    hlo = aot.compile_sharded(H200, 8, gradients(fn), BATCH, (P("data"), P(), P())).as_text()
    assert "all-gather" not in hlo
    # XLA joins the two arrays into one; the type of an asynchronous all-reduce may list its operands before its results.
    sizes = [re.findall(r"\[([\d,]+)\]", kind) for kind in re.findall(r"= (.*) all-reduce(?:-start)?\(", hlo)]
    summed = sum(np.prod([int(n) for n in size.split(",")]) for one in sizes for size in one)
    assert summed in (once := BATCH[1].size + BATCH[2].size, 2 * once)
    assert re.search(r'bf16\[64,128\]\S*\)? custom-call\(.*custom_call_target="mosaic_gpu', hlo), "64 of 512 rows on each"
    assert not re.search(r"\bbf16\[512,", hlo), "no device holds them all"


def test_export_for_the_gpu():
    names = ("mosaic_gpu_v2", "triton_kernel_call")
    with aot.lowering_for(H200):
        exported = jax.export.export(
            jax.jit(gradients(dropped)),
            platforms=["cuda"],
            disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(name) for name in names],
        )(*BATCH)
    assert all(name in exported.mlir_module() for name in names)
    again = jax.export.deserialize(exported.serialize())
    assert [a.shape for a in again.out_avals] == [s.shape for s in BATCH]


def test_which_arguments_it_takes():
    x, w = jnp.zeros((2, 8)), jnp.zeros((8, 8))
    with kernels.target(H200):
        with pytest.raises(kernels.ImplementationError, match=r"pallas: it takes bfloat16 and float16, .* given float32"):
            kernels.linear_act(x, w, implementation="pallas")
        assert kernels.available("linear_act")["pallas"] is None
    with kernels.target("cpu"):
        assert "it needs an NVIDIA GPU" in kernels.available("linear_act")["pallas"]


def test_only_its_name_or_a_measurement_chooses_it(monkeypatch):
    """Until somebody has measured it beside Triton's."""
    args = shapes(64, 64, 64)
    with aot.lowering_for(H200):
        chosen = lambda **options: str(jax.make_jaxpr(lambda *a: kernels.linear_act(*a, **options))(*args))
        assert "mpmd_map" not in chosen()
        assert "mpmd_map" in chosen(implementation="pallas")
        entry = {"64x64:bfloat16 64x64:bfloat16": {"implementation": "pallas"}}
        monkeypatch.setattr(measured, "tuned", lambda device: {"linear_act": entry})
        assert "mpmd_map" in chosen()


@pytest.mark.gpu
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("activation", activations.NAMES)
def test_on_a_gpu(activation, rate):
    x, w, b = drawn(jnp.bfloat16, 1000, 200, 328, 0)
    if dispatch.device_reason("pallas") is not None:  # a GPU before or after Hopper
        with pytest.raises(kernels.ImplementationError, match="compute capability"):
            kernels.linear_act(x, w, b, activation, implementation="pallas")
        return
    keep = np.asarray(xla.kept(jnp.int32(3), (1000, 328), rate)) / (1 - rate) if rate else 1.0
    hand = lambda x, w, b: kernels.linear_act(x, w, b, activation, 0.1, rate, jnp.int32(3), implementation="pallas")
    reference = lambda x, w, b: activations.apply(activation, x @ w + b, 0.1) * keep
    assert_matches_float64(hand, reference, (x, w, b), TOLERANCE["bfloat16"], of_gradients=3 * TOLERANCE["bfloat16"])
