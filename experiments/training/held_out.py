"""What a run is judged by on the test data, where --early-stop or --best asks for it."""

from __future__ import annotations

import dataclasses
import math

from experiments.errors import UserError
from experiments.recipes.recipe import Recipe

PATIENCE = 5


@dataclasses.dataclass
class History:
    """How one figure was in the evaluations of a run so far. JSON can hold it.

    Attributes:
      value, step: of the best evaluation; of several as good, the first.
      since: evaluations after it.
      rank: how often there was a better one.
    """

    value: float | None = None
    step: int = 0
    since: int = 0
    rank: int = 0

    def add(self, direction: int, value: float, step: int) -> bool:
        """Note an evaluation; whether it is the best so far. What is not a number never is."""
        better = not math.isnan(value) and (self.value is None or direction * value > direction * self.value)
        if better:
            self.value, self.step, self.since, self.rank = value, step, 0, self.rank + 1
        else:
            self.since += 1
        return better


def parse(spec: str) -> tuple[str, int]:
    """Figure and patience of FIGURE[:PATIENCE].

    Raises:
      UserError: the patience is no whole number above 0.
    """
    figure, colon, patience = spec.partition(":")
    if colon and not (patience.isascii() and patience.isdecimal() and 0 < int(patience[:10]) < 2**31):
        raise UserError(f"early_stop: {spec[:60]!r} given, FIGURE:PATIENCE with 1 evaluation or more is needed")
    return figure, int(patience) if colon else PATIENCE


def figures(recipe: Recipe) -> list[str]:
    """Those that the run is judged by."""
    return list(dict.fromkeys([*([parse(recipe.early_stop)[0]] if recipe.early_stop else []), *filter(None, [recipe.best])]))


def check(recipe: Recipe, directions: dict[str, int]) -> None:
    """Raise UserError where --early-stop or --best names a figure that the run does not have."""
    words = {1: "higher is better", -1: "lower is better"}
    known = ", ".join(f"{name} ({words[way]})" for name, way in directions.items())
    for flag, figure in (("early_stop", recipe.early_stop and parse(recipe.early_stop)[0]), ("best", recipe.best)):
        if figure is not None and figure not in directions:
            raise UserError(f"{flag}: {figure[:60]!r} given, the figures on the test data are {known}")


def ends_early(recipe: Recipe, judged: dict[str, History]) -> str:
    """Why a run so far judged ends here; empty where it goes on."""
    if recipe.early_stop is None:
        return ""
    figure, patience = parse(recipe.early_stop)
    history = judged.get(figure)
    if history is None or history.since < patience:
        return ""
    best = f"best at step {history.step} ({history.value:.4g})" if history.value is not None else "never a number"
    return f"{figure} was {best}, {history.since} evaluations ago"
