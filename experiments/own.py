"""Models, data sets, recipes and trackers from a person's own files: MODULE:FUNCTION, and recipe.py."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pathlib
import sys
from typing import Any

from flax import nnx

import zoo
from experiments.errors import UserError
from zoo.registry import registered_name


def is_own(spec: str) -> bool:
    """Whether it reads like MODULE:FUNCTION; the module is looked for from the current folder on."""
    module, colon, function = spec.partition(":")
    if not colon or not function.partition(":")[0].isidentifier() or not all(map(str.isidentifier, module.split("."))):
        return False
    _look_here()
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def function_of(what: str, spec: str) -> Any:
    """The function that MODULE:FUNCTION names.

    Raises:
      UserError: the module cannot be imported, or has no such function.
    """
    module, _, name = spec.partition(":")
    _look_here()
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever the module raises
        raise UserError(f"{what}: {module} cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise UserError(f"{what}: {module} has no function {name}")
    return found


def create_model(spec: str, **options: Any) -> nnx.Module:
    """A model of one's own: `zoo.create_model` where its function is registered, else the function itself.

    Args:
      options: those of `zoo.create_model`; an unregistered function gets the ones that it names.

    Raises:
      UserError: it returns no nnx.Module.
    """
    function = function_of("model", spec)
    name = registered_name(function)
    if name:
        return zoo.create_model(name, **options)
    parameters = inspect.signature(function).parameters
    whatever = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {n: value for n, value in options.items() if n in ("num_classes", "rngs") or whatever or n in parameters}
    model = function(**given)
    if not isinstance(model, nnx.Module):
        raise UserError(f"model: {spec} returns {type(model).__name__}, an nnx.Module is needed")
    return model


def recipe_from(path: str) -> Any:
    """The object named RECIPE of a Python file.

    Raises:
      UserError: there is no such file, it cannot be run, or it has no RECIPE.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"recipe: {path} does not exist")
    _look_here()
    found = importlib.util.spec_from_file_location(f"_recipe_{file.stem}", file)
    assert found is not None
    assert found.loader is not None  # a name that ends in .py has one
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # whatever the file raises
        raise UserError(f"recipe: {path} cannot be run ({type(error).__name__}: {error})") from error
    if not hasattr(module, "RECIPE"):
        raise UserError(f"recipe: {path} has no RECIPE")
    return module.RECIPE


def _look_here() -> None:
    here = str(pathlib.Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
