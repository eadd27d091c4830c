"""The arrows between packages, and what importing them costs."""

from __future__ import annotations

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

from experiments.measuring import sources
from experiments.pages import house

ROOT = pathlib.Path(__file__).parents[1]
# package -> packages it must not import
FORBIDDEN = {
    "kernels": {"zoo", "experiments", "tests"},
    "zoo": {"experiments", "tests"},
    "experiments": {"tests"},
}
# torch and torchvision are peers: benchmarks may import them, comparisons and the export of weights only where they are used.
PEERS = {"torch", "torchvision", "timm"}
MAY_IMPORT_PEERS = ("experiments/benchmarks/", "experiments/peers/", "experiments/comparison/torch_models.py")
MAY_IMPORT_PEERS_WHERE_USED = ("experiments/comparison/", "experiments/compare.py", "zoo/weights/load.py")


def imported(path: pathlib.Path, *, everywhere: bool) -> set[str]:
    """Packages that a file imports, in functions too if `everywhere`."""
    names, tree = set(), ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_along_the_arrows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        relative = path.relative_to(ROOT).as_posix()
        assert not imported(path, everywhere=True) & FORBIDDEN[package], relative
        if not relative.startswith(MAY_IMPORT_PEERS):
            everywhere = not relative.startswith(MAY_IMPORT_PEERS_WHERE_USED)
            assert not imported(path, everywhere=everywhere) & PEERS, relative


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_circle_of_imports_inside_a_package(package: str) -> None:
    """Neither among modules, imports in functions included, nor among the parts of experiments/."""
    modules = house.modules(package)
    graph = {module: sources.imports(module) & modules - {module} for module in modules}
    graphlib.TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle
    assert len(graph) > 20


def test_the_house_is_built_in_floors() -> None:
    graph = house.parts()
    order = [part for floor in house.floors(graph) for part in floor]  # or there is a circle
    assert order.index("kernels") < order.index("zoo") < order.index("comparison") < order.index("report")
    assert graph["measuring"] == {"errors", "kernels"}, "what every measurement shares depends on none of them"
    for part in ("comparison", "guide", "benchmarks"):
        assert not graph[part] & {"comparison", "guide", "benchmarks", "pages"}, f"{part} imports sideways"
    assert f"<!-- begin house -->\n{house.picture()}<!-- end house -->" in (ROOT / "CONTRIBUTING.md").read_text()


def test_a_circle_is_found() -> None:
    with pytest.raises(graphlib.CycleError):
        house.floors({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_derivative_of_hand_written_kernels_is_in_vjp() -> None:
    derivatives = {p.parent.name for p in (ROOT / "kernels").glob("*/vjp.py") if "differentiable(" in p.read_text()}
    kernels = [path for name in ("triton.py", "pallas.py") for path in (ROOT / "kernels").glob(f"*/{name}")]
    assert {path.parent.name for path in kernels} == derivatives | {"recurrent"}  # there it is in persistent.py
    assert not [path for path in kernels if "differentiable(" in path.read_text()]


def test_importing_the_zoo_loads_little() -> None:
    before, after = modules_after("import flax.nnx"), modules_after("import zoo")
    added = after - before
    assert not added & {"torch", "torchvision", "matplotlib", "triton", "jax_triton", "optax", "orbax", "grain", "safetensors"}
    # Our own modules and a few of the standard library; a heavy dependency would add hundreds.
    assert len(added) < 150, sorted(added)


def test_importing_the_kernels_loads_no_compiler() -> None:
    added = modules_after("import kernels") - modules_after("import jax")
    assert not added & {"triton", "jax_triton", "torch", "flax", "zoo"}


def test_training_imports_neither_torch_nor_scikit_learn() -> None:
    """Each takes seconds, of every run; tensorboardX would import the one, the digits the other."""
    code = "import experiments.train\nfrom experiments import data\nfrom experiments.training.trackers import TensorBoard\n"
    loaded = modules_after(f"{code}data.load('digits')\nTensorBoard()")
    assert "tensorboardX" in loaded
    assert not loaded & {"torch", "torchvision", "sklearn", "scipy.stats", "matplotlib"}
