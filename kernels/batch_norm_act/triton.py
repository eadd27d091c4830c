"""Batch normalization, residual and activation, forward and backward, each in one launch.

Statistics need all of a channel before its first element can be normalized, so x is read twice. Here one grid, small enough to
be resident as a whole, walks over slices of channels; for each slice its blocks sum up their rows, meet at a barrier, and
normalize the rows they have just read. A slice that fits the L2 cache is then read from device memory once:

  resident:  forward reads x, writes y (2 passes); backward reads x and dy, writes dx (3 passes)
  streaming: forward reads x twice (3 passes); backward reads x and dy twice (5 passes)

plus a pass for a residual, forward (read) and backward (its gradient, written), and 1/16 of one (bfloat16) for the signs that
the backward pass of relu and leaky_relu with a residual needs, one bit per element. The backward pass recomputes
whatever else it needs from x. That is the floor of each form; `config.choose` picks the form.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import triton
import triton.language as tl

from kernels.batch_norm_act import config
from kernels.batch_norm_act.spec import Cotangents, Gradients, Inputs, Outputs, Running, Spec
from kernels.runtime import activations
from kernels.runtime.launch import launch, like
from kernels.runtime.sizes import cdiv, power_of_two
from kernels.runtime.triton_math import activate, activation_gradient
from kernels.verification import residency

GROUP = tl.constexpr(16)  # blocks whose sums one of them adds up


@triton.jit
def publish(
    first, second, partial, joined, arrived, step, SLICE: tl.constexpr, BLOCKS: tl.constexpr, GROUPS: tl.constexpr
):  # fmt: skip
    """Hands this block's two sums, [SLICE] each, to all blocks: the last of each group to come adds up those of its group.

    Always in the same order, so that results do not vary from run to run, as they would with atomic additions of floats.
    partial is [slices, BLOCKS + GROUPS, 2, SLICE], joined (zero at first) [slices, GROUPS], arrived (zero at first) [slices].
    """
    block = tl.program_id(0)
    group = block // GROUP
    members = tl.minimum(BLOCKS - group * GROUP, GROUP)
    within = tl.arange(0, SLICE)
    base = partial + step * ((BLOCKS + GROUPS) * 2 * SLICE)
    tl.store(base + block * 2 * SLICE + within, first)
    tl.store(base + block * 2 * SLICE + SLICE + within, second)
    tl.debug_barrier()  # every warp's stores come before the one thread's release
    before = tl.atomic_add(joined + step * GROUPS + group, 1, sem="acq_rel", scope="gpu")
    if before == members - 1:
        tl.debug_barrier()
        first, second = added_up(base + group * GROUP * 2 * SLICE, members, GROUP, SLICE)
        tl.store(base + (BLOCKS + group) * 2 * SLICE + within, first)
        tl.store(base + (BLOCKS + group) * 2 * SLICE + SLICE + within, second)
        tl.debug_barrier()
        tl.atomic_add(arrived + step, 1, sem="release", scope="gpu")


@triton.jit
def added_up(sums, count, COUNT_POW2: tl.constexpr, SLICE: tl.constexpr):
    """The sums over the first axis of [count, 2, SLICE]: two of [SLICE]."""
    which = tl.arange(0, COUNT_POW2)[:, None]
    at = sums + which * (2 * SLICE) + tl.arange(0, SLICE)[None, :]
    # .cg: other blocks wrote them, and a line of this one's L1 cache might be stale
    first = tl.load(at, mask=which < count, other=0.0, cache_modifier=".cg")
    second = tl.load(at + SLICE, mask=which < count, other=0.0, cache_modifier=".cg")
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def collect(
    partial, arrived, step, SLICE: tl.constexpr, BLOCKS: tl.constexpr, GROUPS: tl.constexpr, GROUPS_POW2: tl.constexpr
):  # fmt: skip
    """The two sums over all blocks, once all have published theirs. They must all be resident, or this waits for ever."""
    while tl.atomic_add(arrived + step, 0, sem="acquire", scope="gpu") < GROUPS:
        pass
    tl.debug_barrier()
    base = partial + step * ((BLOCKS + GROUPS) * 2 * SLICE)
    return added_up(base + BLOCKS * 2 * SLICE, GROUPS, GROUPS_POW2, SLICE)


@triton.jit
def pilot_mean(x, channel, valid, ROWS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """The mean over the first rows: near enough to the mean for sums of squares about it not to cancel."""
    row = tl.arange(0, BLOCK_ROWS)
    here = (row < ROWS)[:, None] & valid[None, :]
    tile = tl.load(x + row[:, None] * CHANNELS + channel[None, :], mask=here, other=0.0).to(tl.float32)
    return tl.sum(tile, 0) / min(ROWS, BLOCK_ROWS)


@triton.jit
def move(old, new, batch, valid, MOMENTUM: tl.constexpr):
    """A running statistic, moved towards that of the batch. `old` and `new` may be the same memory."""
    value = (1.0 - MOMENTUM) * tl.load(old, mask=valid, other=0.0).to(tl.float32) + MOMENTUM * batch
    tl.debug_barrier()  # every warp has the old value, which one of them replaces
    tl.store(new, value.to(new.dtype.element_ty), mask=valid)


@triton.jit
def forward_kernel(
    x, scale, bias, residual, old_mean, old_var,
    y, statistics, positive, new_mean, new_var, partial, joined, arrived,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, EPSILON: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, HAS_SIGNS: tl.constexpr, HAS_RUNNING: tl.constexpr, MOMENTUM: tl.constexpr,
    SLICE: tl.constexpr, BLOCK_ROWS: tl.constexpr, LAG: tl.constexpr,
    BLOCKS: tl.constexpr, GROUPS: tl.constexpr, GROUPS_POW2: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    share: tl.constexpr = (ROWS + BLOCK_ROWS * BLOCKS - 1) // (BLOCK_ROWS * BLOCKS)  # tiles of rows per block
    slices: tl.constexpr = (CHANNELS + SLICE - 1) // SLICE
    within, offset = tl.arange(0, SLICE), tl.arange(0, BLOCK_ROWS)
    for step in range(slices + LAG):
        if step < slices:
            channel = step * SLICE + within
            valid = channel < CHANNELS
            pilot = pilot_mean(x, channel, valid, ROWS, CHANNELS, BLOCK_ROWS)
            total = tl.zeros((BLOCK_ROWS, SLICE), tl.float32)
            squares = tl.zeros((BLOCK_ROWS, SLICE), tl.float32)
            for tile in tl.range(share, loop_unroll_factor=2):
                row = (block * share + tile) * BLOCK_ROWS + offset
                here = (row < ROWS)[:, None] & valid[None, :]
                at = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
                value = tl.load(x + at, mask=here, other=0.0, eviction_policy="evict_last").to(tl.float32)
                centred = tl.where(here, value - pilot[None, :], 0.0)
                total += centred
                squares += centred * centred
            publish(tl.sum(total, 0), tl.sum(squares, 0), partial, joined, arrived, step, SLICE, BLOCKS, GROUPS)
        if step >= LAG:
            index = step - LAG
            channel = index * SLICE + within
            valid = channel < CHANNELS
            total_all, squares_all = collect(partial, arrived, index, SLICE, BLOCKS, GROUPS, GROUPS_POW2)
            shift = total_all / ROWS
            variance = tl.maximum(squares_all / ROWS - shift * shift, 0.0)
            mean = pilot_mean(x, channel, valid, ROWS, CHANNELS, BLOCK_ROWS) + shift
            factor = tl.load(scale + channel, mask=valid, other=0.0).to(tl.float32) * tl.rsqrt(variance + EPSILON)
            addend = tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)
            if block == 0:
                tl.store(statistics + channel, mean, mask=valid)
                tl.store(statistics + CHANNELS + channel, variance, mask=valid)
                if HAS_RUNNING:
                    unbiased = variance * (ROWS / max(ROWS - 1, 1))
                    move(old_mean + channel, new_mean + channel, mean, valid, MOMENTUM)
                    move(old_var + channel, new_var + channel, unbiased, valid, MOMENTUM)
            for tile in tl.range(share, loop_unroll_factor=2):
                # Backwards: what was read last is the likeliest to be in a cache still.
                row = (block * share + share - 1 - tile) * BLOCK_ROWS + offset
                here = (row < ROWS)[:, None] & valid[None, :]
                at = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
                value = tl.load(x + at, mask=here, other=0.0, eviction_policy="evict_first").to(tl.float32)
                z = (value - mean[None, :]) * factor[None, :] + addend[None, :]
                if HAS_RESIDUAL:
                    z += tl.load(residual + at, mask=here, other=0.0, eviction_policy="evict_first").to(tl.float32)
                if HAS_SIGNS:
                    # relu's derivative at zero is 0, leaky_relu's is 1
                    up = (z > 0) if ACTIVATION == "relu" else (z >= 0)
                    bits = tl.reshape(up.to(tl.int32), (BLOCK_ROWS, SLICE // 8, 8)) << tl.arange(0, 8)[None, None, :]
                    byte = tl.arange(0, SLICE // 8) + index * (SLICE // 8)
                    to = row.to(tl.int64)[:, None] * (CHANNELS // 8) + byte[None, :]
                    inside = (row < ROWS)[:, None] & (byte * 8 < CHANNELS)[None, :]
                    tl.store(positive + to, tl.sum(bits, 2).to(tl.uint8), mask=inside)
                z = activate(z, ACTIVATION, SLOPE)
                tl.store(y + at, z.to(y.dtype.element_ty), mask=here, eviction_policy="evict_first")


@triton.jit
def gradient_of_z(
    dy, residual, positive, at, row, here, index, normalized, factor, addend,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, HAS_SIGNS: tl.constexpr, SLICE: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    POLICY: tl.constexpr,
):  # fmt: skip
    """The gradient with respect to what the activation is applied to."""
    g = tl.load(dy + at, mask=here, other=0.0, eviction_policy=POLICY).to(tl.float32)
    if ACTIVATION is not None:
        if HAS_SIGNS:
            byte = tl.arange(0, SLICE // 8) + index * (SLICE // 8)
            to = row.to(tl.int64)[:, None] * (CHANNELS // 8) + byte[None, :]
            inside = (row < ROWS)[:, None] & (byte * 8 < CHANNELS)[None, :]
            bits = tl.load(positive + to, mask=inside, other=0, eviction_policy=POLICY).to(tl.int32)
            up = (bits[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
            up = tl.reshape(up, (BLOCK_ROWS, SLICE))
            g *= tl.where(up != 0, 1.0, 0.0 if ACTIVATION == "relu" else SLOPE)
        else:
            z = normalized * factor[None, :] + addend[None, :]
            if HAS_RESIDUAL:
                z += tl.load(residual + at, mask=here, other=0.0, eviction_policy=POLICY).to(tl.float32)
            g *= activation_gradient(z, ACTIVATION, SLOPE)
    return tl.where(here, g, 0.0)


@triton.jit
def backward_kernel(
    x, dy, scale, bias, statistics, dmean, dvar, residual, positive, dx, dscale, dbias, dresidual, partial, joined, arrived,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, EPSILON: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, HAS_SIGNS: tl.constexpr,
    SLICE: tl.constexpr, BLOCK_ROWS: tl.constexpr, LAG: tl.constexpr,
    BLOCKS: tl.constexpr, GROUPS: tl.constexpr, GROUPS_POW2: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    share: tl.constexpr = (ROWS + BLOCK_ROWS * BLOCKS - 1) // (BLOCK_ROWS * BLOCKS)
    slices: tl.constexpr = (CHANNELS + SLICE - 1) // SLICE
    within, offset = tl.arange(0, SLICE), tl.arange(0, BLOCK_ROWS)
    for step in range(slices + LAG):
        if step < slices:
            channel = step * SLICE + within
            valid = channel < CHANNELS
            mean = tl.load(statistics + channel, mask=valid, other=0.0)
            rstd = tl.rsqrt(tl.load(statistics + CHANNELS + channel, mask=valid, other=0.0) + EPSILON)
            factor = tl.load(scale + channel, mask=valid, other=0.0).to(tl.float32)
            addend = tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)
            total = tl.zeros((BLOCK_ROWS, SLICE), tl.float32)
            products = tl.zeros((BLOCK_ROWS, SLICE), tl.float32)
            for tile in range(share):
                row = (block * share + tile) * BLOCK_ROWS + offset
                here = (row < ROWS)[:, None] & valid[None, :]
                at = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
                value = tl.load(x + at, mask=here, other=0.0, eviction_policy="evict_last").to(tl.float32)
                normalized = (value - mean[None, :]) * rstd[None, :]
                g = gradient_of_z(
                    dy, residual, positive, at, row, here, step, normalized, factor, addend, ROWS, CHANNELS,
                    ACTIVATION, SLOPE, HAS_RESIDUAL, HAS_SIGNS, SLICE, BLOCK_ROWS, "evict_last",
                )  # fmt: skip
                total += g
                products += g * normalized
            publish(tl.sum(total, 0), tl.sum(products, 0), partial, joined, arrived, step, SLICE, BLOCKS, GROUPS)
        if step >= LAG:
            index = step - LAG
            channel = index * SLICE + within
            valid = channel < CHANNELS
            total_all, products_all = collect(partial, arrived, index, SLICE, BLOCKS, GROUPS, GROUPS_POW2)
            if block == 0:
                tl.store(dbias + channel, total_all, mask=valid)
                tl.store(dscale + channel, products_all, mask=valid)
            mean = tl.load(statistics + channel, mask=valid, other=0.0)
            rstd = tl.rsqrt(tl.load(statistics + CHANNELS + channel, mask=valid, other=0.0) + EPSILON)
            factor = tl.load(scale + channel, mask=valid, other=0.0).to(tl.float32)
            addend = tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)
            # dx = slope * g + along * normalized + level: the gradients of mean and variance, as results, are in the last two
            slope = factor * rstd
            along = 2.0 * tl.load(dvar + channel, mask=valid, other=0.0) / (ROWS * rstd) - slope * products_all / ROWS
            level = (tl.load(dmean + channel, mask=valid, other=0.0) - slope * total_all) / ROWS
            for tile in range(share):
                row = (block * share + share - 1 - tile) * BLOCK_ROWS + offset
                here = (row < ROWS)[:, None] & valid[None, :]
                at = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
                value = tl.load(x + at, mask=here, other=0.0, eviction_policy="evict_first").to(tl.float32)
                normalized = (value - mean[None, :]) * rstd[None, :]
                g = gradient_of_z(
                    dy, residual, positive, at, row, here, index, normalized, factor, addend, ROWS, CHANNELS,
                    ACTIVATION, SLOPE, HAS_RESIDUAL, HAS_SIGNS, SLICE, BLOCK_ROWS, "evict_first",
                )  # fmt: skip
                if HAS_RESIDUAL:
                    tl.store(dresidual + at, g.to(dresidual.dtype.element_ty), mask=here, eviction_policy="evict_first")
                d = slope[None, :] * g + along[None, :] * normalized + level[None, :]
                tl.store(dx + at, d.to(dx.dtype.element_ty), mask=here, eviction_policy="evict_first")


def forward(spec: Spec, inputs: Inputs) -> Outputs:
    x, residual, scale, bias, running = inputs
    channels = x.shape[-1]
    plan = config.choose(x.size // channels, channels, x.dtype.itemsize, 1)
    none = like(x, (1,), jnp.float32)
    y, statistics, signs, *moved = _launch(
        forward_kernel,
        spec,
        plan,
        (x, scale, bias, x if residual is None else residual, *(running or (scale, scale))),
        [
            like(x),
            like(x, (2, channels), jnp.float32),
            like(x, (*x.shape[:-1], channels // 8) if spec.has_signs else (1,), jnp.uint8),
            *(map(like, running) if running else (none, none)),
        ],
        read_twice=1,
        in_place=((4, 3), (5, 4)) if running else (),
        HAS_RUNNING=running is not None,
        MOMENTUM=float(spec.momentum),
    )
    return Outputs(y, statistics, Running(*moved) if running else None, signs if spec.has_signs else None)


def backward(spec: Spec, given: Cotangents) -> Gradients:
    x, residual, channels = given.x, given.residual, given.x.shape[-1]
    twice = 2 if residual is None else 3
    plan = config.choose(x.size // channels, channels, x.dtype.itemsize, twice)
    per_channel = like(x, (channels,), jnp.float32)
    dx, dscale, dbias, dresidual = _launch(
        backward_kernel,
        spec,
        plan,
        (
            *(x, given.dy, given.scale, given.bias, given.statistics, given.dmean, given.dvar),
            x if residual is None else residual,
            jnp.zeros((1,), jnp.uint8) if given.signs is None else given.signs,
        ),
        [like(x), per_channel, per_channel, like(x) if spec.has_residual else like(x, (1,))],
        read_twice=twice,
    )
    return Gradients(dx, dscale, dbias, dresidual if spec.has_residual else None)


def _launch(kernel, spec, plan, inputs, outputs, read_twice, in_place=(), **constants):
    """`read_twice`: how many arrays like x are read again where slices do not stay in the cache."""
    x, channels = inputs[0], inputs[0].shape[-1]
    slices = cdiv(channels, plan.config.slice)
    groups = cdiv(plan.blocks, GROUP.value)
    partial = jax.ShapeDtypeStruct((slices, plan.blocks + groups, 2, plan.config.slice), jnp.float32)
    joined, arrived = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((slices, groups), (slices,)))
    return launch(
        kernel,
        *inputs,
        outputs=[*outputs, partial, joined, arrived],
        grid=(plan.blocks,),
        implementation=spec.implementation,
        num_warps=plan.config.num_warps,
        zeroed_outputs=(len(outputs) + 1, len(outputs) + 2),
        in_place=in_place,
        cooperative=True,
        check=residency.require_a_core_each,
        extra_bytes=0 if plan.resident else read_twice * x.nbytes,
        ROWS=x.size // channels,
        CHANNELS=channels,
        EPSILON=spec.epsilon,
        ACTIVATION=spec.activation,
        SLOPE=activations.SLOPE,
        HAS_RESIDUAL=spec.has_residual,
        HAS_SIGNS=spec.has_signs,
        SLICE=plan.config.slice,
        BLOCK_ROWS=plan.config.block_rows,
        BLOCKS=plan.blocks,
        GROUPS=groups,
        GROUPS_POW2=power_of_two(groups),
        LAG=min(plan.config.lag, slices),
        **constants,
    )[: len(outputs)]
