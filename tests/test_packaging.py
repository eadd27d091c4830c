"""The wheel works elsewhere, the source distribution can be tested, and another package called kernels is noticed."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import kernels
import zoo

ROOT = pathlib.Path(__file__).parents[1]
NOT_COPIED = (".git", ".venv*", "runs", "dist", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
ADDRESS = "https://example.org/owner/name/raw/main"
pytestmark = pytest.mark.slow


def run(folder: pathlib.Path, path: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python program in `folder` that finds packages in `path` first."""
    environment = os.environ | {"PYTHONPATH": str(path), "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with both distributions."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*NOT_COPIED))
    done = run(folder / "checkout", folder / "checkout", "-m", "experiments.pages.links", ADDRESS)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist")]
    done = subprocess.run(command, cwd=folder / "checkout", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "dist"


def test_the_wheel_works_without_the_checkout(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert {name.partition("/")[0] for name in names} == {"kernels", "zoo", f"jax_kernel_zoo-{zoo.__version__}.dist-info"}
    assert {"kernels/py.typed", "zoo/py.typed", "zoo/imagenet_classes.txt"} <= set(names)
    metadata = tmp_path / "installed" / f"jax_kernel_zoo-{zoo.__version__}.dist-info"
    assert "jax-zoo = zoo.__main__:main" in (metadata / "entry_points.txt").read_text()
    (tmp_path / "empty").mkdir()
    program = (
        "import numpy as np, zoo; print(zoo.__file__); model = zoo.create_model('lenet5');"
        "how = zoo.Preprocessing(32, (32, 32), mean=(0.5,), std=(0.5,));"
        "print(len(zoo.predict(model, np.zeros((40, 30), np.uint8), k=3, preprocessing=how)))"
    )
    done = run(tmp_path / "empty", tmp_path / "installed", "-W", "error", "-c", program)
    assert done.returncode == 0, done.stderr
    where, predictions = done.stdout.split()
    assert pathlib.Path(where).is_relative_to(tmp_path / "installed")
    assert predictions == "3"


def test_pictures_show_on_an_index_page(built: pathlib.Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        text = archive.read(metadata).decode()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    files = [link.removeprefix(f"{ADDRESS}/").partition("#")[0] for link in links if link.startswith(ADDRESS)]
    assert sum(name.endswith(".png") for name in files) >= 3
    assert all((ROOT / name).exists() for name in files)
    assert all(link.startswith(("https://", "#")) for link in links)


def test_the_source_distribution_is_the_checkout(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as stream:
        stream.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    missing = [name for name in listed if not (root / name).exists()]
    assert missing in ([], [".gitignore"])
    done = run(
        root, root, "-m", "pytest", "-q", "tests/zoo/test_registry.py", "-k", "patterns or nearest", "-p", "no:cacheprovider"
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


OTHER = '"""Another library."""\nfrom kernels.hub import get_kernel\n'


@pytest.fixture
def installed(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with this project's packages, as pip would fill it."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package in (kernels, zoo):
        source = pathlib.Path(package.__file__ or "").parent
        shutil.copytree(source, tmp_path / "site" / source.name, ignore=ignored)
    return tmp_path / "site"


def add_the_other(site: pathlib.Path, last: bool) -> None:
    (site / "kernels-0.10.2.dist-info").mkdir()
    (site / "kernels" / "hub.py").write_text("def get_kernel(): ...\n")
    if last:
        (site / "kernels" / "__init__.py").write_text(OTHER)


def test_another_distribution_installed_over_ours_is_named_at_import(installed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    add_the_other(installed, last=True)
    done = run(tmp_path, installed, "-c", "import zoo")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: zoo: ")
    assert "belongs to another distribution that is also called kernels" in last
    assert "pip uninstall kernels" in last


def test_ours_installed_over_another_distribution_says_so(installed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    add_the_other(installed, last=False)
    for module in ("kernels", "zoo"):
        done = run(tmp_path, installed, "-c", f"import {module}")
        assert done.returncode == 0, done.stderr
        assert "UserWarning: kernels: kernels-0.10.2, another distribution whose package is called kernels" in done.stderr
    shutil.rmtree(installed / "kernels-0.10.2.dist-info")
    done = run(tmp_path, installed, "-W", "error", "-c", "import zoo, kernels")
    assert done.returncode == 0, done.stderr
