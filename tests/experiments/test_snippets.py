"""Short pieces of code among a tagger's data: what they are, how they are placed, and what is reported of them."""

from __future__ import annotations

import json
import pathlib
import tokenize

import numpy as np
import pytest

from experiments import data
from experiments.data import base, pytokens, snippets
from experiments.data.sequences import Windows
from experiments.measuring import result

SOURCE = pathlib.Path(tokenize.__file__).read_text()


def text_of(tokens: np.ndarray) -> str:
    return "".join(pytokens.VOCABULARY[token] for token in tokens)


def test_pieces_are_python_by_themselves(rng: np.random.Generator) -> None:
    found = snippets.snippets(SOURCE, rng)
    assert len(found) > 100
    for piece in found:
        assert snippets.SHORTEST <= len(piece.rstrip("\n")) <= snippets.LONGEST
        assert not piece[0].isspace()
    lines = {line.strip() for line in SOURCE.splitlines()}
    assert all(line.strip() in lines for piece in found for line in piece.splitlines())
    assert any(piece.startswith("#") for piece in found)  # with the comment above
    assert any(piece.count("\n") > 1 for piece in found)
    assert 0.2 < len(snippets.snippets(SOURCE, rng, 0.4)) / len(found) < 0.6


def test_they_are_labelled_on_their_own_and_placed_anywhere(rng: np.random.Generator) -> None:
    pieces = pytokens._pieces([SOURCE], 3, 1.0)
    for tokens, tags in zip(pieces.tokens, pieces.tags, strict=True):
        np.testing.assert_array_equal(tags, pytokens.label(text_of(tokens)))
    batch = pieces.gather(np.arange(5), None)
    for row in range(5):
        inside = batch["mask"][row] > 0
        assert inside.argmax() == pieces.around
        np.testing.assert_array_equal(batch["tokens"][row][inside], pieces.tokens[row])
        assert not batch["tokens"][row][~inside].any()
    long = np.arange(1, 5000) % 90 + 1
    windows = Windows({"tokens": long, "tags": long % 7}, 64, jitter=True)
    mixed = pytokens.Mixed(windows, pieces, 0.5)
    indices = rng.integers(0, len(mixed), 400)
    drawn, plain = mixed.gather(indices, np.random.default_rng(8)), windows.gather(indices, np.random.default_rng(8))
    short = (drawn["tokens"] != plain["tokens"]).any(1)
    assert 0.4 < short.mean() < 0.6
    starts = {int(row.argmax()) for row in drawn["mask"][short]}
    assert len(starts) > 10  # with zeros before as well as after
    assert {name: array.shape for name, array in drawn.items()} == {name: array.shape for name, array in plain.items()}
    for name, array in mixed.gather(indices, None).items():
        np.testing.assert_array_equal(array, windows.gather(indices, None)[name])


def test_training_and_test_pieces_come_from_different_files() -> None:
    train, test = pytokens.texts()
    pieces = pytokens._pieces(test, 1, 1.0)
    assert len(pieces) > 500
    longer = [text for text in map(text_of, pieces.tokens) if len(text) > 100]
    joined = "\n".join(train)
    assert sum(text in joined for text in longer[:50]) <= 2  # boilerplate that several files share
    with pytest.raises(data.UserError, match="short: 2 given, 0 to 1 is needed"):
        data.load("pytokens", short=2)


def test_further_test_data_are_reported_by_name() -> None:
    import dataclasses

    from experiments.recipes.recipe import Recipe
    from experiments.training.classification import ClassificationTask
    from experiments.training.mesh import make_mesh
    from experiments.training.stepper import Stepper

    digits = data.load("digits")
    few = base.ArraySource({name: array[:30] for name, array in digits.test.arrays.items()})
    task = ClassificationTask(
        Recipe("lenet5", "digits", batch_size=64), dataclasses.replace(digits, also_test={"few": few}), 10, 5
    )
    figures = task.evaluate(Stepper(task, task.recipe, make_mesh("data=1")))
    assert sorted(figures) == ["accuracy", "few_accuracy", "few_loss", "loss"]
    alone = ClassificationTask(Recipe("lenet5", "digits", batch_size=64), dataclasses.replace(digits, test=few), 10, 5)
    assert alone.evaluate(Stepper(alone, alone.recipe, make_mesh("data=1")))["loss"] == pytest.approx(
        figures["few_loss"], abs=1e-6
    )


def test_the_recipe_reads_short_texts() -> None:
    """Of the committed runs; the aim is 97 % of the characters of pieces out of files that were not trained with."""
    found = json.loads((result.RESULTS / "cpu" / "recurrent-learning.json").read_text())["recipes"]["bilstm_tagger"]
    assert min(run["eval_short_accuracy"] for run in found["runs"]) >= 0.97
