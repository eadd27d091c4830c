"""Ahead-of-time compilation for an absent GPU: whole programs by XLA, single kernels by Triton.

Needs the packages jax-cuda13-plugin, jax-cuda13-pjrt and triton (whose wheel brings the assembler), no GPU, no CUDA toolkit.
No autotuning happens, so what XLA picks for a matrix product may differ on the device itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kernels.runtime import devices as runtime_devices
from kernels.runtime import dispatch, gpus, launches


class CompilationError(Exception):
    """Triton or the assembler refuses a kernel for an architecture; the message says why, in one line."""


def target_config(gpu: gpus.Gpu) -> str:
    """XLA's description of a GPU (a GpuTargetConfigProto as text)."""
    major, minor = gpu.compute_capability
    limits = gpu.limits
    extension = "feature_extension: ACCELERATED_FEATURES" if major in (9, 10) else ""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {limits.shared_memory} threads_per_core_limit: {limits.threads} core_count: {gpu.cores}
  fpus_per_core: {64 if gpu.compute_capability == (8, 0) else 128} block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: {gpu.bandwidth:.0f} l2_cache_size: {gpu.l2_cache}
  clock_rate_ghz: {gpu.clock / 1e9} device_memory_size: {gpu.memory}
  shared_memory_per_block_optin: {limits.block_shared_memory}
  cuda_compute_capability {{ major: {major} minor: {minor} {extension} }}
  registers_per_core_limit: {limits.registers} registers_per_block_limit: {limits.registers}
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64 device_vendor: "NVIDIA Corporation"
  device_address_bits: 64 pcie_bandwidth: 34359738368 ecc_enabled: true name: "{gpu.jax_name}"
  driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0" dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{gpu.jax_name}"
"""


@functools.cache
def toolkit(major: int = 9) -> pathlib.Path:
    """A folder in the layout of a CUDA toolkit around the assembler and the device library in Triton's wheel.

    Args:
      major: of the compute capability to assemble for. Triton brings two assemblers, of which the older knows no Blackwell;
        from 3.9 on it writes PTX that only the newer one reads, for every architecture.
    """
    import triton

    bundled = pathlib.Path(triton.__file__).parent / "backends" / "nvidia"
    folder = tempfile.TemporaryDirectory(prefix="cuda-")
    _kept_alive.append(folder)
    root = pathlib.Path(folder.name)
    (root / "bin").mkdir()
    newest = major >= 10 or tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
    (root / "bin" / "ptxas").symlink_to(bundled / "bin" / ("ptxas-blackwell" if newest else "ptxas"))
    (root / "nvvm" / "libdevice").mkdir(parents=True)
    (root / "nvvm" / "libdevice" / "libdevice.10.bc").symlink_to(bundled / "lib" / "libdevice.10.bc")
    return root


_kept_alive: list[Any] = []


@functools.cache
def devices(kind: str = "nvidia-h200", count: int = 1) -> tuple[Any, ...]:
    """`count` devices of this kind (a name that `gpus.find` knows) in one process, to compile for."""
    description = target_config(gpus.find(kind))
    try:
        topology = topologies.get_topology_desc(platform="cuda", target_config=description, topology=f"1x1x{count}")
    except NotImplementedError as error:
        raise RuntimeError(
            "compiling for a GPU needs jax-cuda13-plugin and jax-cuda13-pjrt, and on a machine without a GPU JAX_PLATFORMS=cpu"
        ) from error
    _kept_alive.append(topology)  # its devices do not keep it
    return tuple(topology.devices)


@contextlib.contextmanager
def lowering_for(kind: str) -> Iterator[None]:
    """Implementations are chosen, and kernels lowered, as on a device of this kind where `kernels check` has passed."""
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(runtime_devices.target(kind))
        stack.enter_context(dispatch.as_if_checked())
        if hasattr(jax.sharding, "AbstractDevice"):  # from jax 0.11 on lowering a kernel asks what it is for
            device = jax.sharding.AbstractDevice(device_kind=gpus.find(kind).jax_name, num_cores=here.cores, platform="gpu")
            stack.enter_context(jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device)))
        yield


def compile_for(
    kind: str, fn: Callable, *args: Any, donate: Sequence[int] = (), options: Mapping[str, Any] | None = None
) -> jax.stages.Compiled:
    """`fn` compiled for one device of this kind; `args` are arrays or shapes, `options` are XLA's beyond its defaults."""
    sharding = jax.sharding.SingleDeviceSharding(devices(kind)[0])
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), args)
    with lowering_for(kind):
        lowered = jax.jit(fn, donate_argnums=tuple(donate)).trace(*shapes).lower()
    cuda = str(toolkit(gpus.find(kind).compute_capability[0]))
    with environment(MOSAIC_GPU_CUDA_ROOT=cuda):
        return lowered.compile(compiler_options={"xla_gpu_cuda_data_dir": cuda} | dict(options or {}))


def thunks_for(kind: str, fn: Callable, *args: Any, options: Mapping[str, Any] | None = None) -> str:
    """What the host does to run `fn` on a device of this kind, as XLA prints it.

    A line for each kernel, loop, call and CUDA graph (kCommandBuffer); what belongs to a loop or graph is indented below it.
    """
    with tempfile.TemporaryDirectory() as folder:
        compile_for(kind, fn, *args, options={"xla_dump_to": folder} | dict(options or {}))
        found = sorted(pathlib.Path(folder).glob("*.thunk_sequence*.txt"))
        if not found:
            raise RuntimeError("XLA wrote no list of what it runs")
        # The list after XLA's passes over it is written only where they changed it.
        return max(found, key=lambda path: "_after_" in path.name).read_text()


def compile_sharded(
    kind: str, count: int, fn: Callable, args: Sequence[Any], specs: Sequence[PartitionSpec], axis: str = "data"
) -> jax.stages.Compiled:
    """`fn` compiled for `count` devices in a mesh of one axis, each argument (an array or shape) sharded as its spec says."""
    mesh = Mesh(np.array(devices(kind, count)), (axis,))
    shapes = [
        jax.tree.map(lambda a, s=spec: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, s)), arg)
        for arg, spec in zip(args, specs, strict=True)
    ]
    with runtime_devices.target(kind), dispatch.as_if_checked():
        lowered = jax.jit(fn).trace(*shapes).lower()
        cuda = str(toolkit(gpus.find(kind).compute_capability[0]))
        return lowered.compile(compiler_options={"xla_gpu_cuda_data_dir": cuda})


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one block of a compiled kernel takes."""

    registers: int  # per thread
    spilled: int  # bytes stored and loaded because registers ran out
    shared_memory: int  # bytes
    instructions: frozenset[str]  # which of "wgmma", "mma" (matrix products) and "tma" (copies of tiles) it uses
    ptx: str = dataclasses.field(repr=False)
    ttgir: str = dataclasses.field(repr=False, default="")  # Triton's program, with the layouts chosen for the device


def kernel_resources(call: launches.Launch, kind: str = "nvidia-h200") -> Resources:
    """A recorded launch compiled for one kind of device, as jax-triton would compile it there."""
    with runtime_devices.target(kind) as target:
        return resources(call, target.compute_capability)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What Triton makes of a launch for one architecture."""

    ptx: str = dataclasses.field(repr=False)
    ttgir: str = dataclasses.field(repr=False)
    shared_memory: int  # bytes


@functools.lru_cache(maxsize=256)
def compiled(call: launches.Launch, compute_capability: tuple[int, int]) -> Compiled:
    """A recorded launch, compiled by Triton for any device of a compute capability, as jax-triton would; not assembled.

    Raises:
      CompilationError: Triton refuses the kernel.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.errors import TritonError

    major, minor = compute_capability
    names = call.kernel.arg_names
    types = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "int32": "i32", "uint32": "u32", "uint8": "u8"}
    signature = {name: f"*{types[np.dtype(dtype).name]}" for name, dtype in zip(names, call.dtypes, strict=False)}
    attributes = {(i,): [["tt.divisibility", 16]] for i in range(len(signature))}
    constants = dict(call.constants)
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(call.kernel, signature, constants, attributes)
    options = {"num_warps": call.num_warps, "num_stages": call.num_stages}
    with tempfile.TemporaryDirectory() as cache, triton.knobs.cache.scope():
        triton.knobs.cache.dir = cache
        try:
            found = triton.compile(source, target=GPUTarget("cuda", 10 * major + minor, 32), options=options)
        except (TritonError, RuntimeError) as error:
            raise CompilationError(_refusal(call, compute_capability, "Triton", str(error))) from error
    return Compiled(found.asm["ptx"], found.asm["ttgir"], found.metadata.shared)


@functools.lru_cache(maxsize=64)
def resources(call: launches.Launch, compute_capability: tuple[int, int]) -> Resources:
    """`kernel_resources` for any device of a compute capability.

    Raises:
      CompilationError: Triton or the assembler refuses the kernel.
    """
    found = compiled(call, compute_capability)
    architecture = re.search(r"\.target\s+(\w+)", found.ptx).group(1)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "kernel.ptx"
        path.write_text(found.ptx)
        assembler = str(toolkit(compute_capability[0]) / "bin" / "ptxas")
        command = [assembler, "-v", f"--gpu-name={architecture}", str(path), "-o", str(path) + ".cubin"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise CompilationError(_refusal(call, compute_capability, "the assembler", run.stderr or f"status {run.returncode}"))
    return _resources(found.ptx, run.stderr, found.shared_memory, found.ttgir)


def _refusal(call: launches.Launch, compute_capability: tuple[int, int], who: str, words: str) -> str:
    """One line of what a compiler said."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no reason given")
    return f"{who} refuses {call.kernel.fn.__name__} for compute capability {'.'.join(map(str, compute_capability))}: {first}"


def mosaic_resources(fn: Callable, *args: Any, kind: str = "nvidia-h200") -> Resources:
    """The same of the one Mosaic GPU kernel in `fn`, as XLA compiles it; `args` are arrays or shapes."""
    with tempfile.TemporaryDirectory() as folder, environment(MOSAIC_GPU_DUMP_TO=folder):
        compile_for(kind, fn, *args)
        ptx, log, passes = (next(pathlib.Path(folder).glob(f"*{end}")).read_text() for end in (".ptx", ".ptxas", ".log"))
    return _resources(ptx, log, int(re.findall(r"dynamic_shared_memory_size %c(\d+)", passes)[-1]))


def _resources(ptx: str, log: str, shared_memory: int, ttgir: str = "") -> Resources:
    found = lambda pattern: sum(int(n) for n in re.findall(pattern, log))
    marks = (("wgmma", "wgmma.mma_async"), ("mma", "mma.sync"), ("tma", "cp.async.bulk.tensor"))
    return Resources(
        registers=found(r"Used (\d+) registers"),
        spilled=found(r"(\d+) bytes spill"),
        shared_memory=shared_memory,
        instructions=frozenset(name for name, mark in marks if mark in ptx),
        ptx=ptx,
        ttgir=ttgir,
    )


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """These environment variables, which Mosaic GPU's compiler reads, until the block ends."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
