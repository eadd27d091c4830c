"""The device is what JAX says it is."""

from __future__ import annotations

import jax
import pytest

import kernels
from kernels.runtime import devices, gpus, launches
from kernels.verification import aot
from tests.kernels.fake_devices import JaxDevice, nvidia

MIG = """
gpu_device_info {
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 16
  data_caches {
    level: 2
    size_bytes: 6553600
    num_instances: 1
  }
  registers_per_core_limit: 65536
  max_blocks_per_multiprocessor: 32
  device_vendor: "NVIDIA Corporation"
}
"""


class Topology:
    def __init__(self, text):
        self.target_config = text


@pytest.mark.parametrize("name", gpus.GPUS)
def test_a_gpu_of_the_table_is_described_by_jax_as_by_its_data_sheet(name):
    """JAX's own description, made of ours for compiling, read back: every field goes through both readers."""
    (device,) = aot.devices(name)
    assert devices.describe(device) == devices.of_gpu(gpus.GPUS[name])


def test_the_private_description_may_be_missing(monkeypatch):
    """Then the limits are those of the compute capability, and the public attributes still count."""
    from jaxlib import xla_client

    def refuse(_):
        raise NotImplementedError("no topology")

    for replacement in (refuse, lambda _: object(), None):
        if replacement is None:
            monkeypatch.delattr(xla_client, "get_topology_for_devices")
        else:
            monkeypatch.setattr(xla_client, "get_topology_for_devices", replacement)
        found = devices.describe(nvidia("NVIDIA H100 PCIe", "9.0", core_count=114, shared_memory_per_block_optin=232_448))
        assert found == devices.of_gpu(gpus.GPUS["h100-pcie"])
        assert devices.describe(nvidia("NVIDIA GeForce RTX 3060", "8.6", core_count=28)) == devices.Device(
            "nvidia-geforce-rtx-3060", "cuda", (8, 6), 28, 101_376, 2 * 2**20, 102_400, 1536, 16, 65_536
        )


def test_a_slice_of_a_gpu_has_its_own_cores_and_cache(monkeypatch):
    from jaxlib import xla_client

    monkeypatch.setattr(xla_client, "get_topology_for_devices", lambda _: Topology(MIG))
    whole = devices.of_gpu(gpus.GPUS["h200"])
    for name in ("NVIDIA H200 MIG 1g.18gb", "NVIDIA H200"):
        found = devices.describe(nvidia(name, "9.0", core_count=16, shared_memory_per_block_optin=232_448))
        assert (found.cores, found.l2_cache) == (16, 6_553_600)
        assert found.core_threads == whole.core_threads
        with devices.target(found):
            from kernels.batch_norm_act import config

            for rows in (1, 4096, 10**6):
                plan = config.choose(rows, 64, 2, 1)
                assert plan.blocks <= 16 - launches.RESERVED
                assert not plan.resident or rows * 64 * 2 < found.l2_cache


@pytest.mark.parametrize(
    ("device", "platform", "capability"),
    [
        (nvidia("Tesla T4", "7.5"), "cuda", (7, 5)),
        (nvidia("GRID A100-20C", "8.0"), "cuda", (8, 0)),
        (JaxDevice("Quadro RTX 8000", compute_capability="7.5"), "cuda", (7, 5)),  # a JAX that does not name the vendor
        (nvidia("NVIDIA GB10", "12.1"), "cuda", (12, 1)),
        (JaxDevice("AMD MI300X", compute_capability="gfx942", device_vendor="Advanced Micro Devices, Inc"), "rocm", (0, 0)),
        (JaxDevice("AMD Instinct MI250", compute_capability="gfx90a"), "rocm", (0, 0)),
        (JaxDevice("TPU v5e", "tpu"), "tpu", (0, 0)),
        (JaxDevice("cpu", "cpu"), "cpu", (0, 0)),
    ],
    ids=lambda value: getattr(value, "device_kind", None),
)  # fmt: skip
def test_whose_gpu_it_is(device, platform, capability):
    found = devices.describe(device)
    assert (found.platform, found.compute_capability) == (platform, capability)


def test_limits_of_an_unknown_capability_are_the_least_of_its_kind():
    assert gpus.limits((10, 3)) == gpus.LIMITS[10, 0]
    assert gpus.limits((8, 2)).threads == 1536
    assert gpus.limits((13, 0)).shared_memory == 64 * 1024
    assert gpus.limits((8, 2)).block_shared_memory == 99 * 1024


@pytest.mark.parametrize("name", ["h200", "nvidia-h200", "NVIDIA H200", "H200"])
def test_names_of_a_target(name):
    with kernels.target(name) as found:
        assert found == kernels.device() == devices.H200
    assert gpus.is_known(name)


def test_an_unknown_target_lists_the_known_ones():
    assert not gpus.is_known("h20")
    with (
        pytest.raises(ValueError, match=r"kind: 'h20' is not known; known kinds are cpu, a100-40gb, .*rtx-5090"),
        kernels.target("h20"),
    ):
        pass


def test_programs_are_for_jax_default_device(monkeypatch):
    """As on a machine with a GPU: the first device is one, and a block of jax.default_device names the CPU."""
    gpu = nvidia("NVIDIA L4", "8.9", core_count=58)
    cpu = jax.devices("cpu")[0]
    local = lambda backend=None: [cpu] if backend == "cpu" else [gpu]
    monkeypatch.setattr(jax, "local_devices", local)
    traced = []
    fn = jax.jit(lambda x: traced.append(kernels.device().platform) or x)
    assert kernels.device().kind == "nvidia-l4"
    for chosen in (cpu, "cpu"):
        with jax.default_device(chosen):
            assert kernels.device().platform == "cpu"
            fn(1.0)
    assert traced[0] == "cpu"
    with kernels.target("h100"):  # what is named for compiling counts before what is there
        assert kernels.device().cores == 132
        with jax.default_device(cpu):
            assert kernels.device().cores == 132


def test_every_source_is_named():
    for gpu in gpus.GPUS.values():
        assert gpu.source
        assert gpu.compute_capability in gpus.LIMITS


# Height (and width) and channels of ResNet-50's batch norms, here at batch 256 in bfloat16.
RESNET50 = [
    *((112, 64), (56, 64), (56, 256), (56, 128), (28, 128), (28, 512), (28, 256), (14, 256), (14, 1024), (14, 512)),
    *((7, 512), (7, 2048)),
]


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        *(("h200", 8, 8), ("h100", 8, 8), ("b200", 11, 8), ("l40s", 11, 8), ("rtx-4090", 8, 8), ("l4", 8, 8)),
        *(("a100-80gb", 8, 5), ("rtx-3090", 5, 2)),
    ],
)
def test_batch_norm_is_resident_where_the_cache_holds_it(name, forward, backward):
    from kernels.batch_norm_act import config

    with kernels.target(name):
        for arrays, count in ((1, forward), (2, backward)):
            plans = [config.choose(256 * size * size, channels, 2, arrays) for size, channels in RESNET50]
            assert sum(plan.resident for plan in plans) == count


def test_limits_of_residency_are_the_device_s():
    """Threads of a multiprocessor are 1,536 on some, and blocks 16, 24 or 32."""
    from kernels.verification import residency

    small = aot.Resources(registers=16, spilled=0, shared_memory=0, instructions=frozenset(), ptx="")
    of = lambda name, warps: residency.blocks_per_core(small, warps, devices.of_gpu(gpus.GPUS[name]))
    assert [of(name, 8) for name in ("h100", "b200", "rtx-3090", "rtx-4090", "rtx-5090")] == [8, 8, 6, 6, 6]
    assert [of(name, 1) for name in ("h100", "b200", "rtx-3090", "rtx-4090", "rtx-5090")] == [32, 32, 16, 24, 24]


@pytest.mark.parametrize("name", ["h100", "b200", "a100-80gb", "l40s", "rtx-4090"])
def test_recurrent_kernels_take_what_fits(name):
    from kernels.recurrent import config

    with kernels.target(name):
        assert isinstance(config.plan(4, 256, 64, 1, 2), config.Plan)
        assert isinstance(config.plan(4, 10**4, 64, 1, 2), str)
