"""docs/models.md says what the result file says, and the result file what the registry says."""

from __future__ import annotations

import json

import zoo
from experiments.benchmarks import models_table, result


def test_page_and_result_file_agree() -> None:
    assert models_table.PAGE.read_text() == models_table.render()


def test_result_file_and_registry_agree() -> None:
    models = json.loads((result.RESULTS / "cpu" / "parity.json").read_text())["models"]
    families = ("lenet", "alexnet", "vgg", "resnet", "googlenet")
    assert set(models) == {name for name in zoo.list_models() if zoo.model_info(name).family in families}
    for name, found in models.items():
        info = zoo.model_info(name)
        assert (found["params"], found["macs"]) == (info.params, info.macs), name
        if info.weights:
            assert found["evaluation"]["logits"] < 1e-5, name
            assert found.get("training", {}).get("float64", {}).get("gradient", 0) < 1e-8, name
