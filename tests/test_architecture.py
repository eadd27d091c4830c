"""The arrows between packages, and what importing them costs."""

from __future__ import annotations

import ast
import graphlib
import json
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


def test_the_derivative_of_hand_written_kernels_is_in_vjp() -> None:
    derivatives = {p.parent.name for p in (ROOT / "kernels").glob("*/vjp.py") if "differentiable(" in p.read_text()}
    kernels = [path for name in ("triton.py", "pallas.py") for path in (ROOT / "kernels").glob(f"*/{name}")]
    assert {path.parent.name for path in kernels} == derivatives | {"recurrent"}  # there it is in persistent.py
    assert not [path for path in kernels if "differentiable(" in path.read_text()]


# What each of several statements imports, one after the other in one process.
STAGES = """
import json, sys
def stage(statement, seen=set()):
    exec(statement, globals())
    added = sorted(set(sys.modules) - seen)
    seen.update(added)
    return added
print(json.dumps([stage(statement) for statement in json.loads(sys.argv[1])]))
"""


def added_by(*statements: str) -> list[set[str]]:
    command = [sys.executable, "-c", STAGES, json.dumps(statements)]
    return [set(names) for names in json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)]


def test_the_zoo_imports_what_is_asked_for() -> None:
    """Of the zoo the registry alone; a family when a model of it is made; and never a package beside jax and flax."""
    _, bare, listed, model, everything = added_by(
        "import jax.numpy, flax.nnx",
        "import zoo",
        "zoo.list_models(); dir(zoo); hasattr(zoo, 'no_such_name')",
        "import jax; jax.eval_shape(lambda: zoo.functional(zoo.create_model('lenet5'))[0])",
        "from zoo import *",
    )
    assert {name.partition(".")[0] for name in bare} == {"zoo"}
    assert len(bare) < 16, sorted(bare)
    assert not listed
    families = lambda names: {name for name in names if name.startswith("zoo.models.")}
    assert families(model) == {"zoo.models.lenet", "zoo.models.lenet_tables"}
    assert not {name for name in model if name.startswith("zoo.weights.")} - {"zoo.weights.names"}
    assert len(families(everything)) >= 7
    beside = {name.partition(".")[0] for name in bare | everything} - {"zoo", "kernels"}
    assert beside <= sys.stdlib_module_names, "neither torch nor Pillow, safetensors, optax, ..."


def test_training_imports_neither_torch_nor_scikit_learn() -> None:
    """Each takes seconds, of every run; tensorboardX would import the one, the digits the other."""
    code = "import experiments.train\nfrom experiments import data\nfrom experiments.training.trackers import TensorBoard\n"
    (loaded,) = added_by(f"{code}data.load('digits')\nTensorBoard()")
    assert "tensorboardX" in loaded
    assert not loaded & {"torch", "torchvision", "sklearn", "scipy.stats", "matplotlib"}
