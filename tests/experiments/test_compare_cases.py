"""The cases that must be there on a GPU, and that the comparison runs with nothing but what a GPU machine has."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from experiments.comparison.cases import operator_cases
from experiments.comparison.models import model_cases

ROOT = pathlib.Path(__file__).parents[2]
PUBLIC_MODELS = {
    ("lenet5", (4096, 32, 32, 1)),
    ("alexnet", (1024, 224, 224, 3)),
    ("googlenet", (10, 224, 224, 3)),
    ("resnet101", (10, 224, 224, 3)),
    ("vgg16", (10, 224, 224, 3)),
    ("vgg19", (10, 224, 224, 3)),
    ("resnet18", (2, 224, 224, 3)),
    ("basic_block", (10, 224, 224, 3)),
}
PUBLIC_OPERATORS = {
    "lstm public benchmark 10x512x128, 256 wide, 6 layers, forward": "float32",
    "lstm public benchmark 10x512x128, 256 wide, 6 layers, bidirectional, forward": "float32",
    "rnn public benchmark 8x256x1024, 256 wide, forward": "float32",
    "lstm persistent cuDNN 16x1024x768, 768 wide, forward": "float16",
    "lstm persistent cuDNN 16x1024x768, 768 wide, forward + backward": "float16",
    "lstm 10x512x128, 256 wide, 6 layers, forward + backward": None,
    "lstm 10x512x128, 256 wide, 6 layers, bidirectional, forward + backward": None,
    "lstm 32x128x256, 256 wide, forward + backward": None,
    "lstm 64x256x1024, 1024 wide, forward + backward": None,
    "lstm 8x256x1024, 256 wide, forward + backward": None,
}


def test_the_public_benchmark_is_among_the_cases() -> None:
    models = model_cases(False, "cuda")
    assert {(c.model, c.shape) for c in models if c.label and not c.train and c.precision == "float32"} == PUBLIC_MODELS
    assert len({c.name for c in models}) == len(models)
    assert all(c.has_twin for c in models if c.label)
    operators = {case.name: case.precision for case in operator_cases(False, "cuda")}
    assert PUBLIC_OPERATORS.items() <= operators.items()


# What our own modules may import on the machine that figures come from; these packages bring more along, as flax does rich.
# torch only where a peer is asked for.
ALLOWED = ("jax", "jaxlib", "flax", "optax", "triton", "jax_triton", "numpy", "matplotlib", "ml_dtypes", "opt_einsum", "scipy")
BLOCKED = (
    "beartype datasets grain huggingface_hub hypothesis jax2onnx jaxtyping onnx pandas safetensors sklearn tensorboardX "
    "timm torch torchvision tqdm tyro"
)
PROGRAM = """
import importlib.abc, runpy, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        caller = sys._getframe(1)
        while caller is not None and "importlib" in caller.f_code.co_filename:
            caller = caller.f_back
        ours = caller is not None and caller.f_globals.get("__name__", "").split(".")[0] in ("experiments", "zoo", "kernels")
        top = name.partition(".")[0]
        if top in BLOCKED or (ours and top not in (*sys.stdlib_module_names, "experiments", "zoo", "kernels", *ALLOWED)):
            raise ModuleNotFoundError(f"{name} is not on the machine", name=name)
BLOCKED, ALLOWED, module, *arguments = sys.argv[1].split(), sys.argv[2].split(), *sys.argv[3:]
sys.meta_path.insert(0, Blocker())
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["experiments.compare", "--help"], "--minutes"),
        (["experiments.tune", "--help"], "--minutes"),
        (["experiments.compare", "operators", "--quick", "--only", "softmax", "--rounds", "1"], "xla"),
        (["experiments.compare", "models", "--quick", "--only", "lenet5 128x32x32x1, inf", "--rounds", "1"], "xla"),
    ],
)
def test_it_runs_with_what_a_gpu_machine_has(arguments: list[str], shown: str, tmp_path: pathlib.Path) -> None:
    if "--help" not in arguments:
        arguments = [*arguments, "--out", str(tmp_path)]
    command = [sys.executable, "-c", PROGRAM, BLOCKED, " ".join(ALLOWED), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert "failed" not in done.stdout
    assert "Error" not in done.stdout
