"""The picture of the house in CONTRIBUTING.md: who imports whom, read off the imports."""

from __future__ import annotations

import functools
import graphlib

from experiments.measuring import sources

PACKAGES = ("kernels", "zoo", "experiments")


def modules(package: str) -> set[str]:
    """All modules of a package by their full names."""
    paths = (path.relative_to(sources.ROOT).with_suffix("") for path in (sources.ROOT / package).rglob("*.py"))
    return {".".join(path.parts).removesuffix(".__init__") for path in paths}


def part_of(module: str) -> str:
    """The part of the house that a module belongs to: of experiments/ its folder or script, else its package."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] or package if package == "experiments" else package


@functools.cache
def parts() -> dict[str, set[str]]:
    """Which parts each part imports."""
    found: dict[str, set[str]] = {}
    for module in set().union(*map(modules, PACKAGES)) - {"experiments"}:
        part = part_of(module)
        found.setdefault(part, set()).update({part_of(other) for other in sources.imports(module)} - {part, "experiments"})
    return found


def floors(graph: dict[str, set[str]]) -> list[list[str]]:
    """The parts from the ground up: each imports only from the floors below.

    Raises:
      graphlib.CycleError: there is no such order.
    """
    sorter, found = graphlib.TopologicalSorter(graph), []
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(sorted(ready))
        sorter.done(*ready)
    return found


def above(graph: dict[str, set[str]], part: str) -> set[str]:
    """All that a part imports, directly or not."""
    return graph[part].union(*(above(graph, other) for other in graph[part]))


def picture() -> str:
    """The house as Mermaid draws it; an arrow that follows from two others is left out."""
    graph = parts()
    lines = ["```mermaid", "flowchart TD"]
    for floor in reversed(floors(graph)):
        for part in floor:
            implied = set().union(*(above(graph, other) for other in graph[part]))
            lines += [f"  {part} --> {other}" for other in sorted(graph[part] - implied)]
    return "\n".join([*lines, "```", ""])
