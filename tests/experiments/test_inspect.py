"""What a model's step is compiled to: the command, and the record that it shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments import inspect
from experiments.comparison import compiled
from experiments.comparison.models import zoo_case
from experiments.errors import UserError, run
from experiments.measuring import counting, device_model, result
from kernels.runtime import gpus
from kernels.verification import traffic


def test_lenet5_end_to_end(tmp_path, capsys):
    assert run(inspect.main, ["lenet5", "--batch-size", "64", "--out", str(tmp_path)]) == 0
    record = result.read(tmp_path / "inspect-lenet5.json", "compiled-models")
    assert record["measured"] is False
    assert (tmp_path / "inspect-lenet5.png").stat().st_size > 0
    xla, hand = (record["cases"][0]["contenders"][label] for label in ("xla", "zoo"))
    assert xla["hand_written"] == 0 < hand["hand_written"]
    assert hand["kinds"]["pooling"]["bytes"] < xla["kinds"]["pooling"]["bytes"]
    for figures in (xla, hand):
        assert sum(kind["kernels"] for kind in figures["kinds"].values()) == figures["kernels"]
        assert sum(kind["bytes"] for kind in figures["kinds"].values()) == figures["bytes"]
    assert "not measured" in capsys.readouterr().out


def test_a_row_that_is_current_is_shown_and_not_compiled_again(monkeypatch):
    case = zoo_case("lenet5", True)
    committed = next(row for row in result.load("compiled-models", "nvidia-h200")["cases"] if row["name"] == case.name)
    monkeypatch.setattr(compiled, "source_digest", lambda: committed["source"])
    monkeypatch.setattr(result, "same_conditions", lambda old, new: True)
    monkeypatch.setattr(compiled, "row_of", lambda *_: pytest.fail("compiled again"))
    assert inspect.row_of(case, "nvidia-h200", "bfloat16")["cases"] == [committed]
    chosen = inspect.chosen(committed["contenders"], "both")
    assert list(chosen) == ["xla", "zoo"]
    assert list(inspect.chosen(committed["contenders"], "auto")) == ["zoo"]


@pytest.mark.parametrize("model", ["lenet5", "resnet152", "bilstm_classifier"])
def test_the_table_fits_80_columns(model):
    """No head is cut off, whatever the names of the contenders and the sizes of the counts."""
    record = result.load("compiled-models", "nvidia-h200")
    row = next(row for row in record["cases"] if row["model"] == model and row["train"])
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    inspect.show(record | {"cases": [row]}, inspect.chosen(row["contenders"], "both"), console)
    table = console.file.getvalue()
    assert "…" not in table
    for head in ("work", "xla", "kernels", "GB", "ms of", "memory", "triton" if "triton" in row["contenders"] else "zoo"):
        assert head in table
    assert all(len(line) <= 80 for line in table.splitlines()[1:-2])


@pytest.mark.parametrize(
    ("kind", "scope", "expected"),
    [
        ("custom-call:__cudnn$convForward", "jit(step)/conv_general_dilated", "convolution"),
        ("fusion", "jit(step)/transpose(jvp(batch_norm_act))/reduce_sum", "norm"),
        ("fusion", "jit(step)/optimizer/mul", "optimizer"),
        ("all-reduce-start", "jit(step)/batch_norm_act", "collective"),
        ("copy", "", "copies"),
        ("fusion", "", "other"),
    ],
)
def test_kinds_of_work(kind, scope, expected):
    assert counting.kind_of(traffic.Kernel("name", kind, scope, 0)) == expected


@pytest.mark.parametrize(
    ("instruction", "scope", "parts", "expected"),
    [
        # A gradient of local response norm into which XLA fused the ReLU's mask and the bias gradient, whose name it bears.
        ("input_reduce_fusion", "transpose(jvp())/reduce_sum", ("jvp()/gt", "jvp(local_response_norm)/mul"), "norm"),
        ("input_reduce_fusion", "transpose(jvp())/reduce_sum", ("jvp()/gt",), "activation"),
        ("input_reduce_fusion", "transpose(jvp())/reduce_sum", ("transpose(jvp())/reduce_sum",), "reductions"),
        ("loop_reduce_window_fusion", "", (), "pooling"),  # XLA gives these no scope
        ("loop_convert_fusion", "", ("jvp(max_pool)/reduce_window_max",), "pooling"),
        ("loop_convert_fusion", "transpose(jvp())/convert_element_type", (), "copies"),
    ],
)
def test_fusions_are_known_by_their_parts(instruction, scope, parts, expected):
    assert counting.kind_of(traffic.Kernel(instruction, "fusion", scope, 0, 1, parts)) == expected


def test_bad_arguments_are_named(capsys):
    for arguments, message in (
        (["lenet"], "did you mean"),
        (["lenet5", "--device", "h300"], "--device: 'h300' is not known; did you mean h200"),
        (["lenet5", "--batch-size", "0"], "--batch-size: 0 given"),
    ):
        assert run(inspect.main, arguments) == 2
        assert message in capsys.readouterr().err


def test_every_gpu_of_the_table_may_be_named() -> None:
    """On the command lines of inspect and comparison.compiled, and each has a model of its time."""
    for name, gpu in gpus.GPUS.items():
        assert device_model.kind_of(name) == gpu.kind
        assert all(value > 0 for value in device_model.constants(gpu.kind).values())
        assert device_model.constants(gpu.kind)["memory"] < gpu.bandwidth
    with pytest.raises(UserError, match="--device: 'h20'"):
        device_model.kind_of("h20")
