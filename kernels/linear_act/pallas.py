"""Matrix product, bias, activation and dropout on Hopper's own instructions, in Pallas for Mosaic GPU.

One persistent block per multiprocessor takes one tile of the output after another. Its third warpgroup only prefetches tiles of
x and w into shared memory by TMA, `stages` of them ahead and across the boundary between output tiles; the other two multiply
(wgmma) half of the rows each and keep the sums in registers, where bias and activation are applied. The floor is that
of triton.py; so is the backward pass. TMA reads zeros past an array's edge and writes nothing there, so blocks need not divide
the arrays; where not even the tiles of shared memory (8 rows, 64 columns) do, XLA pads x and w and cuts y, another pass over
each.
"""

from __future__ import annotations

import functools

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import lax

from kernels.linear_act import config
from kernels.runtime import dispatch
from kernels.runtime.launch import like
from kernels.runtime.sizes import cdiv

WARPGROUPS = 2  # that multiply
SWIZZLE = 128  # bytes of a row of a tile in shared memory, interleaved so that wgmma meets no bank twice
PIECE = 64  # rows and columns that the end is applied to at a time: what it holds besides the sums stays in registers
ALIGNED = 8  # elements of 2 bytes: TMA asks the rows of a matrix to be whole multiples of 16 bytes
PRODUCER_REGISTERS = 40  # of a fetching thread; the multiplying ones share the rest
KEYS = ((13, 15, 26, 6), (17, 29, 16, 24))  # how far Threefry's rounds rotate


def random_bits(key0: jax.Array, key1: jax.Array, place: jax.Array) -> jax.Array:
    """The 32 bits that jax.random.bits gives each place (uint32, row-major) of an array: Threefry-2x32 (Salmon et al. 2011)."""
    keys = (key0, key1, key0 ^ key1 ^ jnp.uint32(0x1BD11BDA))
    x0, x1 = jnp.zeros_like(place) + key0, place + key1
    for step in range(5):
        for distance in KEYS[step % 2]:
            x0 = x0 + x1
            x1 = ((x1 << jnp.uint32(distance)) | (x1 >> jnp.uint32(32 - distance))) ^ x0
        x0, x1 = x0 + keys[(step + 1) % 3], x1 + (keys[(step + 2) % 3] + jnp.uint32(step + 1))
    return x0 ^ x1


def normal_cdf(x: jax.Array) -> jax.Array:
    """As that of kernels/runtime/triton_math.py: Mosaic GPU has no erf under warpgroup semantics, and 1 + erf would cancel."""
    a = jnp.abs(x)
    t = 1.0 / (1.0 + 0.21 * a)
    p = ((-0.07129488684570531 * t + 0.28180487151758604) * t - 0.32649372000702354) * t + 0.3449870200438432
    p = ((p * t - 0.09077274476343461) * t + 0.12347212598020323) * t + 0.06956975475102724
    p = (p * t + 0.08501243743532375) * t + 0.08371515132887106
    tail = jnp.exp(-0.5 * a * a) * (p * t)
    return jnp.where(x < 0, tail, 1.0 - tail)


def activate(z: jax.Array, activation: str | None, slope: float) -> jax.Array:
    """activations.apply in the primitives that Mosaic GPU lowers: it takes no function with a derivative of its own."""
    match activation:
        case "relu":
            return jnp.maximum(z, 0.0)
        case "leaky_relu":
            return jnp.where(z >= 0, z, slope * z)
        case "tanh":
            return jnp.tanh(z)
        case "gelu":
            return z * normal_cdf(z)
    return z


def kept(state, row, column, outputs, threshold):
    """Which elements of the piece of the output that begins at (row, column) dropout keeps. `state` as in triton.py."""
    rows = lax.broadcasted_iota(jnp.uint32, (PIECE, PIECE), 0) + (state[2] + row.astype(jnp.uint32))
    columns = lax.broadcasted_iota(jnp.uint32, (PIECE, PIECE), 1) + column.astype(jnp.uint32)
    return random_bits(state[0], state[1], rows * jnp.uint32(outputs) + columns) >= jnp.uint32(threshold)


def forward_kernel(x, w, state, *refs, outputs, chosen, has_bias, static):
    """refs: the bias [out] if there is one, y, and what the activation is applied to where static["HAS_BEFORE"]."""
    *bias_of, y = refs[: 1 + has_bias]
    before = refs[1 + has_bias :]
    rows, inputs = x.shape
    tile_m, tile_n, tile_k = chosen.tile_m, chosen.tile_n, chosen.tile_k
    block_m, steps = WARPGROUPS * tile_m, cdiv(inputs, tile_k)
    elements = SWIZZLE // jnp.dtype(x.dtype).itemsize
    layout = (plgpu.TilingTransform((8, elements)), plgpu.SwizzleTransform(SWIZZLE))

    def pipeline(multiply, around):
        tile = lambda shape, index: plgpu.BlockSpec(shape, index, transforms=layout, memory_space=plgpu.SMEM)
        return plgpu.emit_pipeline_warp_specialized(
            multiply,
            grid=(steps,),
            memory_registers=PRODUCER_REGISTERS,
            in_specs=[tile((block_m, tile_k), lambda k: (0, k)), tile((tile_k, tile_n), lambda k: (k, 0))],
            wg_axis="warpgroup",
            num_compute_wgs=WARPGROUPS,
            max_concurrent_steps=min(chosen.stages, steps),
            compute_context=around,
        )

    unused = lambda *_: None
    scratch = {
        "fetched": pipeline(unused, unused).get_allocations(x, w),
        "staged": plgpu.SMEM((WARPGROUPS, tile_m, tile_n), y.dtype, transforms=layout),
    }
    if has_bias:
        scratch["biases"] = plgpu.SMEM((WARPGROUPS, tile_n), bias_of[0].dtype)
        scratch["arrived"] = plgpu.Barrier(num_barriers=WARPGROUPS)

    @functools.partial(pl.run_scoped, **scratch, collective_axes="warpgroup")  # type: ignore[call-arg]
    def resident(fetched, staged, biases=None, arrived=None):
        group = lax.axis_index("warpgroup")

        @plgpu.nd_loop((cdiv(rows, block_m), cdiv(w.shape[1], tile_n)), collective_axes="block")
        def tile(loop):
            first_row, first_column = loop.index[0] * block_m, loop.index[1] * tile_n
            own_row = first_row + group * tile_m
            columns = pl.ds(first_column, tile_n)

            def send(target):
                plgpu.commit_smem()
                plgpu.copy_smem_to_gmem(staged.at[group], target.at[pl.ds(own_row, tile_m), columns])

            def end(total, at_row, at_column):
                """z and y of one piece."""
                z = total[at_row : at_row + PIECE, at_column : at_column + PIECE]
                if has_bias:
                    here = biases[group, pl.ds(at_column, PIECE)].astype(jnp.float32)
                    z += lax.broadcast_in_dim(here, z.shape, (1,))
                value = activate(z, static["ACTIVATION"], static["SLOPE"])
                return z, value / static["KEEP"] if static["KEEP"] < 1 else value

            def drop():
                """Zeros what dropout drops of the staged tile: in a loop, since the code for one piece is long enough."""
                across = tile_n // PIECE

                def piece(number, carry):
                    at_row, at_column = number // across * PIECE, number % across * PIECE
                    at = (group, pl.ds(at_row, PIECE), pl.ds(at_column, PIECE))
                    keeps = kept(state, own_row + at_row, first_column + at_column, outputs, static["THRESHOLD"])
                    staged[at] = jnp.where(keeps, staged[at], jnp.zeros((), y.dtype))
                    return carry

                plgpu.commit_smem()
                lax.fori_loop(0, tile_m // PIECE * across, piece, None)

            def around(multiply_all):
                if has_bias:
                    plgpu.copy_gmem_to_smem(bias_of[0].at[columns], biases.at[group], arrived.at[group])

                @functools.partial(pl.run_scoped, sums=plgpu.ACC((tile_m, tile_n), jnp.float32))
                def _(sums):
                    multiply_all(sums)
                    if has_bias:
                        plgpu.barrier_wait(arrived.at[group])
                    total = sums[...]
                    for part, target in (*((0, one) for one in before), (1, y)):
                        plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # what was staged last has left
                        for at_row in range(0, tile_m, PIECE):
                            for at_column in range(0, tile_n, PIECE):
                                value = end(total, at_row, at_column)[part]
                                at = (group, pl.ds(at_row, PIECE), pl.ds(at_column, PIECE))
                                staged[at] = value.astype(y.dtype)
                        if target is y and static["KEEP"] < 1:
                            drop()
                        send(target)

            def multiply(_, left, right, sums):
                plgpu.wgmma(sums, left.at[pl.ds(group * tile_m, tile_m)], right)
                plgpu.wgmma_wait(0)
                return sums

            run = pipeline(multiply, around)
            run(x.at[pl.ds(first_row, block_m), :], w.at[:, columns], allocations=fetched)

    plgpu.wait_smem_to_gmem(0)


def forward(x, w, b, state, implementation, static):
    """y and, where static["HAS_BEFORE"], what the activation is applied to.

    The implementation is "pallas", compiled, or "interpret", which here is Mosaic GPU's interpreter.
    """
    interpreted = implementation == "interpret"
    (rows, inputs), outputs = x.shape, w.shape[1]
    chosen = config.choose_pallas(rows, inputs, outputs, dispatch.device().cores)
    block_m = WARPGROUPS * chosen.tile_m
    tiles = cdiv(rows, block_m) * cdiv(outputs, chosen.tile_n)
    if interpreted:  # the interpreter knows nothing of what TMA does at an array's edge
        more = [-size % tile for size, tile in ((rows, block_m), (inputs, chosen.tile_k), (outputs, chosen.tile_n))]
    else:
        more = [_missing(rows, 8, 1), _missing(inputs, PIECE, ALIGNED), _missing(outputs, PIECE, ALIGNED)]
    if any(more):
        x, w = jnp.pad(x, ((0, more[0]), (0, more[1]))), jnp.pad(w, ((0, more[1]), (0, more[2])))
        b = None if b is None else jnp.pad(b, (0, more[2]))
    y = like(x, (x.shape[0], w.shape[1]))
    run = plgpu.kernel(
        functools.partial(forward_kernel, outputs=outputs, chosen=chosen, has_bias=b is not None, static=static),
        out_type=[y, y] if static["HAS_BEFORE"] else [y],
        grid=(min(tiles, dispatch.device().cores or 2),),
        grid_names=("block",),
        num_threads=WARPGROUPS + 1,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
        interpret=_interpreter() if interpreted else None,
    )
    return [result[:rows, :outputs] for result in run(x, w, state, *(() if b is None else (b,)))]


def _missing(size: int, tile: int, aligned: int) -> int:
    """What a dimension lacks to be a whole number of the tiles of shared memory or, within one, to be aligned."""
    return -size % (aligned if size < tile else tile)


def _interpreter():
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams  # jax has no public name for it yet

    return InterpretGPUParams(detect_races=True)
