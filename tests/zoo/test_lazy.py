"""What is imported when it is first asked for: the tables say what the modules hold."""

from __future__ import annotations

import ast
import importlib
import pathlib
import pkgutil
import types
from typing import Any

import pytest
from flax import nnx

import zoo
import zoo.layers
import zoo.models
import zoo.weights
from zoo import registry
from zoo.model_types import FAMILIES


def told(package: types.ModuleType) -> tuple[set[tuple[str, str]], set[str]]:
    """Of a package's file: (module, name) of what type checkers alone import, and the names that everybody imports."""
    checkers, everybody = set(), set()
    for node in ast.parse(pathlib.Path(str(package.__file__)).read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for found in (found for found in node.body if isinstance(found, ast.ImportFrom)):
                checkers |= {(str(found.module), alias.asname or alias.name) for alias in found.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("zoo."):
            everybody |= {alias.asname or alias.name for alias in node.names}
    return checkers, everybody


@pytest.mark.parametrize("package", [zoo, zoo.weights])
def test_checkers_readers_and_python_are_told_the_same(package: Any) -> None:
    checkers, everybody = told(package)
    homes = {(home, name) for home, names in package._HOMES.items() for name in names}
    assert homes == checkers
    assert {name for _, name in homes} | everybody == set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is getattr(importlib.import_module(home), name) for home, name in homes)
    # The import of a module puts it in the place of a name that is the same.
    assert not {name for _, name in homes} & {module.name for module in pkgutil.iter_modules(package.__path__)}


@pytest.mark.parametrize("package", [zoo, zoo.layers, zoo.models, zoo.weights])
def test_modules_are_attributes_and_other_names_are_none(package: types.ModuleType) -> None:
    for name in {module.name for module in pkgutil.iter_modules(package.__path__)} - {"__main__"}:
        value = getattr(package, name)
        is_function = name in getattr(package, "__all__", ())  # of the same name, from that module
        assert (value.__module__ if is_function else value.__name__) == f"{package.__name__}.{name}"
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nonsense'"):
        _ = package.nonsense
    assert "TYPE_CHECKING" not in dir(package)


def test_families_hold_the_names_that_they_register() -> None:
    modules = {
        module.name: importlib.import_module(f"zoo.models.{module.name}")
        for module in pkgutil.iter_modules(zoo.models.__path__)
    }
    found: dict[str, set[str]] = {}
    for name, (info, builder) in registry._models.items():
        if builder.__module__.startswith("zoo.models."):
            assert modules[info.family].__name__ == builder.__module__
            found.setdefault(info.family, set()).add(name)
    assert {family: set(names) for family, names in FAMILIES.items()} == found


def test_own_models_stand_beside_families_that_are_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_models", {})  # as after `import zoo`
    tiny = lambda **options: nnx.Linear(3, 2, rngs=options["rngs"])
    with pytest.raises(ValueError, match="name: 'resnet50' is registered twice"):
        zoo.register("resnet50", input_shape=(3,))(tiny)
    zoo.register("resnet50_tiny", input_shape=(3,))(tiny)
    assert {"resnet50", "resnet50_tiny", "vgg11"} <= set(zoo.list_models())
    assert zoo.list_models("resnet50*") == ["resnet50", "resnet50_tiny"]
    assert isinstance(zoo.create_model("resnet50_tiny"), nnx.Linear)
    with pytest.raises(ValueError, match="name: 'resnet50_tiny' is registered twice"):
        zoo.register("resnet50_tiny", input_shape=(3,))(tiny)
    with pytest.raises(ValueError, match=r"no model 'resnet5O'; did you mean .*resnet50"):
        zoo.model_info("resnet5O")
