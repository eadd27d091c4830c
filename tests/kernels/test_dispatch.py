"""How an implementation is chosen, and what importing the package costs."""

from __future__ import annotations

import importlib
import inspect
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import kernels
from kernels.runtime import dispatch, gpus, launch, launches, measured


def test_a_named_implementation_that_cannot_run_says_why():
    x = jnp.zeros((1, 4, 4, 1))
    reason = r"max_pool cannot run 'triton' here .* it needs an NVIDIA GPU"
    with kernels.target("cpu"), pytest.raises(kernels.ImplementationError, match=reason):
        kernels.max_pool(x, 2, implementation="triton")
    with pytest.raises(kernels.ImplementationError, match="max_pool has no 'pallas'; it has xla, triton, interpret, ptx"):
        kernels.max_pool(x, 2, implementation="pallas")
    reason = "takes bfloat16, float16 and float32, and was given float64"
    with jax.enable_x64(True), pytest.raises(kernels.ImplementationError, match=reason):
        kernels.max_pool(x.astype(jnp.float64), 2, implementation="interpret")


def test_an_old_device_says_which_capability_it_needs():
    with kernels.target(dispatch.Device("tesla-t4", "cuda", (7, 5), 40, 65_536, 4 * 2**20)):
        assert dispatch.available("max_pool")["triton"] == "it needs compute capability 8.0, and tesla-t4 has 7.5"
        reason = r"triton: it needs compute capability 8\.0, and tesla-t4 has 7\.5"
        with pytest.raises(kernels.ImplementationError, match=reason):
            kernels.max_pool(jnp.zeros((1, 4, 4, 1)), 2, implementation="triton")
    with kernels.target("b200"):
        reason = "it needs compute capability 9.0 (Hopper), and nvidia-b200 has 10.0"
        assert dispatch.available("linear_act")["pallas"] == reason


@pytest.mark.parametrize("name", [name for name in kernels.__all__ if hasattr(getattr(kernels, name), "package")])
def test_the_package_that_an_operator_hides_can_be_reached(name):
    operator, folder = getattr(kernels, name), name.removesuffix("_running")  # a second function of batch_norm_act's
    assert operator.package is sys.modules[f"kernels.{folder}"]
    assert operator.package.api is importlib.import_module(f"kernels.{folder}.api")
    with kernels.use("xla"):  # and it stays a function
        assert inspect.isfunction(operator)


def test_what_the_documentation_says_of_reaching_inside():
    from kernels.max_pool import xla

    assert kernels.max_pool.package.xla is xla
    functions = [getattr(kernels, name) for name in kernels.__all__]
    packages = {f.package.__name__.rpartition(".")[2] for f in functions if hasattr(f, "package")}
    assert sorted(packages) == list(dispatch.operators())


def test_use_sets_the_default_and_retraces():
    x = jnp.zeros((1, 4, 4, 1))
    pool = jax.jit(lambda x: kernels.max_pool(x, 2))
    interpreted = lambda: "callback" in pool.lower(x).as_text()
    with kernels.target("cpu"):
        assert not interpreted()
        with kernels.use("interpret"):
            assert interpreted()
            with kernels.use(None):
                assert not interpreted()
        assert not interpreted()
    with pytest.raises(ValueError, match="implementation: 'cuda' is none of"), kernels.use("cuda"):
        pass


def test_without_a_measurement_the_hand_kernel_is_taken_where_it_can_run(monkeypatch):
    monkeypatch.setattr(measured, "tuned", lambda device: {"op": {"small": {"implementation": "xla"}}})
    has = {"xla": None, "triton": None}
    with kernels.target("nvidia-h200"):
        assert dispatch.choose("op", None, has) == "triton"
        assert dispatch.choose("op", None, has, "small") == "xla"
        assert dispatch.choose("op", None, has | {"triton": "it takes even sizes"}) == "xla"
    with kernels.target("cpu"):
        assert dispatch.choose("op", None, has) == "xla"


def test_available_names_every_implementation_of_every_operator():
    folder = pathlib.Path(kernels.__file__).parent
    for path in folder.glob("*/api.py"):
        with kernels.target("cpu"):
            found = kernels.available(path.parent.name)
        assert found["xla"] is None
        assert ("triton" in found) == ("ptx" in found) == ("interpret" in found)
        assert all(reason for name, reason in found.items() if name not in ("xla", *dispatch.ON_HOST))
    with pytest.raises(ValueError, match="operator: 'softmax' is none of"):
        kernels.available("softmax")


def test_importing_loads_no_gpu_package_and_nothing_heavy():
    """jax-triton and triton are loaded when a kernel is built; what is loaded is this package and a few small modules."""
    program = """
import json, sys
import jax, jax.numpy
before = set(sys.modules)
import kernels
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=_root())
    loaded = json.loads(run.stdout)
    assert [name for name in loaded if not name.startswith("kernels")] == [], loaded
    assert not any(name.endswith((".triton", ".pallas", ".interpret", ".ptx", ".launch")) for name in loaded)


def _root() -> pathlib.Path:
    return pathlib.Path(__file__).parents[2]


def test_what_is_on_request_is_chosen_by_name_only():
    has = {"xla": None, "triton": None}
    with kernels.target("nvidia-h200"):
        assert dispatch.choose("operator", None, has) == "triton"
        assert dispatch.choose("operator", None, has, on_request=("triton",)) == "xla"
        assert dispatch.choose("operator", "triton", has, on_request=("triton",)) == "triton"
        with kernels.use("triton"):
            assert dispatch.choose("operator", None, has, on_request=("triton",)) == "triton"


COOPERATIVE = {"xla": None, "triton": None}


def test_what_can_hang_is_chosen_unasked_only_where_it_was_checked_or_measured(monkeypatch, tmp_path):
    monkeypatch.setenv(measured.VARIABLE, str(tmp_path))
    choose = lambda **options: dispatch.choose(
        "batch_norm_act", options.pop("implementation", None), COOPERATIVE, "key", cooperative=("triton",), **options
    )
    with kernels.target("h100") as device:
        assert choose() == "xla"
        assert "`python -m kernels check batch_norm_act` has not passed" in dispatch.unasked("batch_norm_act", "triton")
        assert choose(implementation="triton") == "triton"
        with kernels.use("triton"):
            assert choose() == "triton"
        with dispatch.as_if_checked():
            assert choose() == "triton"

        def checked(content, **changes):
            entry = {"verdict": "right", "source": measured.source("batch_norm_act")} | changes
            content["checked"]["batch_norm_act"] = {"triton": entry}

        measured.update(device, checked)
        assert choose() == "triton"
        measured.update(device, lambda content: checked(content, source="of before"))
        assert choose() == "xla"
        measured.update(device, lambda content: checked(content, verdict="timed out"))
        assert choose() == "xla"
        fastest = {"key": {"implementation": "triton"}}
        measured.update(device, lambda content: content["operators"].update(batch_norm_act=fastest))
        assert choose() == "triton"
    with kernels.target("h200"):  # each kind for itself
        assert choose() == "xla"


def test_what_can_hang_is_not_chosen_beside_collectives():
    with kernels.target("h200"), dispatch.as_if_checked():
        choose = lambda: dispatch.choose("batch_norm_act", None, COOPERATIVE, cooperative=("triton",))
        assert choose() == "triton"
        for size, expected in ((1, "triton"), (8, "xla")):
            with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((size,), ("data",))):
                assert choose() == expected


def test_batch_norm_leaves_multiprocessors_free_on_every_gpu():
    from kernels.batch_norm_act import config

    for name, gpu in gpus.GPUS.items():
        with kernels.target(name):
            assert max(config.choose(256 * size * size, 256, 2, 2).blocks for size in (7, 56)) == gpu.cores - launches.RESERVED


def test_a_grid_without_a_multiprocessor_for_each_block_is_refused():
    from kernels.verification import residency

    kernel = type("Kernel", (), {"fn": len})
    call = lambda blocks: launch.Launch(kernel, (), (blocks,), 4, 3, ())
    with kernels.target(dispatch.Device("small", "cuda", (9, 0), 16, 232_448, 2**20)):
        residency.require_a_core_each(call(12))
        with pytest.raises(
            residency.NotResidentError, match="len needs a multiprocessor for each of its 13 blocks, and small has 12"
        ):
            residency.require_a_core_each(call(13))
