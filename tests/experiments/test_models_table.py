"""docs/models.md says what the result file says, and the result file what the registry says."""

from __future__ import annotations

import zoo
from experiments import report
from experiments.measuring import result


def test_page_and_result_file_agree() -> None:
    path = report.ROOT / "docs" / "models.md"
    assert path.read_text() == report.written(path)


def test_result_file_and_registry_agree() -> None:
    models = result.load("parity")["models"]
    families = ("lenet", "alexnet", "vgg", "resnet", "googlenet")
    assert set(models) == {name for name in zoo.list_models() if zoo.model_info(name).family in families}
    for name, found in models.items():
        info = zoo.model_info(name)
        assert (found["params"], found["macs"]) == (info.params, info.macs), name
        if info.weights:
            assert found["evaluation"]["logits"] < 1e-5, name
            assert found.get("training", {}).get("float64", {}).get("gradient", 0) < 1e-8, name
