"""What the Makefile chooses and remembers, with a made-up Python and a made-up nvidia-smi: nothing is installed."""

from __future__ import annotations

import itertools
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOOLS = ("make", "sh", "sed", "rm", "touch", "mkdir", "cp", "env")  # what the recipes call, and no nvidia-smi of this machine

LISTS = """
echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5b5b5b5b)"
echo "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-6c6c6c6c)"
"""
NO_DRIVER = """
echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure it runs."
exit 9
"""
BLOCKED = 'echo "GPU access blocked by the operating system"; echo "Failed to initialize NVML"; exit 17'
NO_DEVICES = 'echo "No devices found."; exit 6'

# A Python that makes environments of copies of itself and of pip, and writes down what it was told to do.
PYTHON = """
case "$1" in
  -c) case "$2" in
        *_base_executable*) echo "{path}";;
        "import jax"*) {jax};;
        *) exec "{real}" -c "{version}; exec('''$2''')";;
      esac;;
  -m) if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "{pip}" "$3/bin/pip"; fi
      echo "$*" JAX_PLATFORMS="$JAX_PLATFORMS" >> "{log}";;
esac
"""


class Checkout:
    """The Makefile and what it depends on, in a folder where it finds only the commands that are put there."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.bin, self.log = folder / "checkout", folder / "bin", folder / "log"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)
        shutil.copytree(ROOT / "constraints", self.folder / "constraints")
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        self.command("python-pip", f'echo "pip $*" >> "{self.log}"')
        self.python("python3", "3.11")

    def command(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def python(self, name: str, version: str, finds_gpu: bool = True) -> None:
        told = f"import sys; sys.version_info = ({version.replace('.', ', ')}, 0)"
        values = {
            "path": self.bin / name,
            "real": sys.executable,
            "version": told,
            "pip": self.bin / "python-pip",
            "log": self.log,
            "jax": "exit 0" if finds_gpu else 'echo "JAX finds no GPU here; GPU=0 is for the CPU"; exit 1',
        }
        self.command(name, PYTHON.format(**values))

    def make(self, *arguments: str, fails: bool = False) -> list[str]:
        """The lines that make prints."""
        environment = {"PATH": str(self.bin), "HOME": str(self.folder)}
        done = subprocess.run(
            ["make", *arguments], cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout.splitlines()

    def made(self, *arguments: str) -> list[str]:
        """What make had Python and pip do."""
        self.log.write_text("")
        self.make(*arguments)
        return self.log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
    return Checkout(tmp_path)


CUDA = "GPU (nvidia-smi -L: GPU 0: NVIDIA H100 80GB HBM3): JAX for CUDA; GPU=0 is for the CPU"
BROKEN = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure it runs."


@pytest.mark.parametrize(
    ("nvidia_smi", "given", "first", "extras"),
    [
        (LISTS, [], CUDA, "train,gpu"),
        (LISTS, ["GPU=0"], "no GPU (GPU=0 was given): JAX for the CPU", "train"),
        (None, [], "no GPU (nvidia-smi not found): JAX for the CPU", "train"),
        (None, ["GPU=1"], "GPU (GPU=1 was given): JAX for CUDA; GPU=0 is for the CPU", "train,gpu"),
        (NO_DRIVER, [], f"no GPU (nvidia-smi -L: {BROKEN}): JAX for the CPU", "train"),
        (BLOCKED, [], "no GPU (nvidia-smi -L: GPU access blocked by the operating system): JAX for the CPU", "train"),
        (NO_DEVICES, [], "no GPU (nvidia-smi -L: No devices found.): JAX for the CPU", "train"),
        ("", [], "no GPU (nvidia-smi -L: nothing printed): JAX for the CPU", "train"),
    ],
)
def test_which_jax_is_installed_and_why(
    nvidia_smi: str | None, given: list[str], first: str, extras: str, checkout: Checkout
) -> None:
    if nvidia_smi is not None:
        checkout.command("nvidia-smi", nvidia_smi)
    lines = checkout.make("-n", "train", *given)
    assert lines[0] == first
    (install,) = (line for line in lines if "pip install" in line)
    assert f"--editable '.[{extras}]'" in install


def test_a_run_uses_the_gpu_that_was_found_or_fails(checkout: Checkout) -> None:
    assert checkout.made("train")[-1] == "-m experiments.train lenet5 JAX_PLATFORMS=cpu"
    checkout.command("nvidia-smi", LISTS)
    assert checkout.made("train")[-1] == "-m experiments.train lenet5 JAX_PLATFORMS="
    assert checkout.made("train", "GPU=0")[-1] == "-m experiments.train lenet5 JAX_PLATFORMS=cpu"
    # A driver that nvidia-smi is content with and CUDA is not.
    checkout.python("python3", "3.11", finds_gpu=False)
    checkout.make("clean")
    lines = checkout.make("train", fails=True)
    assert "JAX finds no GPU here; GPU=0 is for the CPU" in lines


def installed(log: list[str]) -> list[str]:
    """What was installed, environment by environment."""
    return [line.partition("--editable ")[2] for line in log if line.startswith("pip install")]


def test_an_environment_is_kept_until_the_choice_changes(checkout: Checkout) -> None:
    assert installed(checkout.made("train")) == [".[train]"]
    assert installed(checkout.made("train")) == []
    checkout.command("nvidia-smi", LISTS)
    log = checkout.made("train")
    assert log[0].startswith("-m venv .venv")  # made anew: pip would leave the packages of the other JAX
    assert installed(log) == [".[train,gpu] triton==3.7.1"]
    assert checkout.made("train", "GPU=0")[0].startswith("-m venv .venv")
    assert installed(checkout.made("train", "GPU=0")) == []
    assert installed(checkout.made("test", "GPU=0")) == [".[train,test,peers] triton==3.7.1"]
    assert installed(checkout.made("test", "GPU=0")) == installed(checkout.made("train", "GPU=0")) == []
    (checkout.folder / "pyproject.toml").touch()
    assert installed(checkout.made("train", "GPU=0")) == [".[train]"]


def test_without_peers_torch_goes_and_the_newest_triton_comes(checkout: Checkout) -> None:
    assert installed(checkout.made("test")) == [".[train,test,peers] triton==3.7.1"]
    log = checkout.made("test", "PEERS=0")
    assert "pip uninstall -qq --yes torch torchvision" in log
    assert installed(log) == [".[train,test] triton==3.9.0"]
    assert "--ignore-glob=*_torch.py" in log[-1]
    assert installed(checkout.made("test", "PEERS=0")) == []
    assert installed(checkout.made("test", "PEERS=0", "TRITON=3.6.0")) == [".[train,test] triton==3.6.0"]
    assert installed(checkout.made("test")) == [".[train,test,peers] triton==3.7.1"]


def test_a_python_given_once_stays_and_another_starts_anew(checkout: Checkout) -> None:
    checkout.python("python3.13", "3.13")
    assert any("constraints/python311.txt" in line for line in checkout.made("train"))
    log = checkout.made("train", "PYTHON=python3.13")
    assert log[0].startswith("-m venv .venv")
    assert any("constraints/python312.txt" in line for line in log)
    assert installed(checkout.made("train")) == []


@pytest.mark.parametrize(
    ("version", "line", "fails"),
    [
        ("3.10", "Python 3.11 or later is needed, python is 3.10; give one with make PYTHON=...", True),
        ("", "Python 3.11 or later is needed, python is not found; give one with make PYTHON=...", True),
        ("3.15", "Python 3.15 is not tested; these are: 3.11 3.12 3.13 3.14", False),
    ],
)
def test_a_python_that_does_not_do(version: str, line: str, fails: bool, checkout: Checkout) -> None:
    if version:
        checkout.python("python", version)
    assert checkout.make("train", "PYTHON=python", fails=fails)[1] == line


def test_gpu_targets(checkout: Checkout) -> None:
    lines = checkout.make("gpu", fails=True)
    assert "no GPU to run on; GPU=1 installs for one all the same, INSTALL=0 uses PYTHON as it is" in lines
    assert not (checkout.folder / ".venv").exists()
    checkout.command("nvidia-smi", LISTS)
    log = checkout.made("gpu")
    assert installed(log) == [".[train,test,peers,gpu] triton==3.7.1"]
    assert sum(line.startswith("-m experiments.gpu") for line in log) == 1
    # A Python that somebody prepared: nothing is installed, whatever nvidia-smi says.
    (checkout.bin / "nvidia-smi").unlink()
    log = checkout.made("gpu", "INSTALL=0", "PYTHON=python3")
    assert len(log) == 1
    assert log[0].startswith("-m experiments.gpu")


def requirements(line: str) -> tuple[str, set[str]]:
    """The file of constraints that pip was given, and what was asked for, each extra for itself."""
    constraints, *packages = line.partition("--constraint ")[2].replace("--editable ", "").split()
    return constraints, {part for name in packages for part in name.removeprefix(".[").removesuffix("]").split(",")}


def test_every_environment_is_resolved(checkout: Checkout) -> None:
    """`make resolve` asks for what the other targets install, in one environment or within a larger one of the same pins."""
    resolved = [requirements(line) for line in checkout.made("resolve") if "--dry-run" in line]
    made = []
    for target in ("train", "test", ".venv/.lint", "test-onnx", "installed-docs"):  # lint itself runs ruff
        for choice in itertools.product(("GPU=0", "GPU=1"), ("PEERS=0", "PEERS=1")):
            checkout.make("clean")
            made += [requirements(line) for line in checkout.made(target, *choice) if "--constraint" in line]
    for constraints, wanted in made:
        assert any(constraints == pins and wanted <= asked for pins, asked in resolved), wanted
    for largest in resolved:
        assert largest in made
    assert len({(constraints, *sorted(wanted)) for constraints, wanted in made}) == 10


def test_the_pins_of_the_gpu_image(checkout: Checkout) -> None:
    checkout.python("python3", "3.12")
    log = checkout.made("test-versions", "PINS=gpu-image")
    assert installed(log) == [".[train,test] triton==3.6.0"]
    assert "--ignore-glob=*_torch.py" in log[-1]
    assert "constraints/gpu-image.txt .[train,test] triton==3.6.0" in "\n".join(checkout.made("resolve"))


def test_the_site_is_built_in_an_environment_of_its_own(checkout: Checkout) -> None:
    log = checkout.made("docs")
    assert log[0].startswith("-m venv .venv-docs")
    assert "--constraint constraints/docs.txt mkdocs-material" in log[1]
    assert [line.partition(" JAX")[0] for line in log[2:]] == [
        "-m experiments.pages.site build/pages",
        "-m mkdocs build --quiet",
    ]
    assert len(checkout.made("docs")) == 2


def test_pins_have_no_addresses() -> None:
    for path in (ROOT / "constraints").iterdir():
        for line in path.read_text().splitlines():
            assert line.startswith(("#", "-c common.txt")) or line.count("==") == 1, (path.name, line)
            assert "/" not in line.partition("#")[0], (path.name, line)
