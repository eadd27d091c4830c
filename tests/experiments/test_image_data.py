"""MNIST, CIFAR and image folders, from files written here in the real formats; what is wrong with a file is named."""

from __future__ import annotations

import gzip
import io
import pathlib
import pickle
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.data import digits
from experiments.data.base import reader
from experiments.errors import UserError


def write_idx(path: pathlib.Path, array: np.ndarray) -> None:
    content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist(tmp_path: pathlib.Path, rng: np.random.Generator) -> pathlib.Path:
    for part, count, suffix in (("train", 30, ".gz"), ("t10k", 10, "")):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


def test_mnist(mnist: pathlib.Path) -> None:
    found = data.load(f"mnist:{mnist}")
    assert (len(found.train), len(found.test), len(found.classes)) == (30, 10, 10)
    assert found.input_shape == (32, 32, 1)
    batch = found.train.gather(np.array([3]), None)
    assert batch["image"].dtype == np.uint8
    assert batch["label"] == 3
    raw = np.frombuffer(gzip.decompress((mnist / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8).reshape(-1, 28, 28)
    np.testing.assert_array_equal(batch["image"][0, 2:-2, 2:-2, 0], raw[3])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "bytes, .* needed"),
        (lambda b: b"\x00\x00\x0d" + b[3:], "magic number 00000d03"),
        (lambda b: b"<html>", "magic number"),
        (lambda b: b"", "magic number"),
    ],
)
def test_damaged_mnist(damage, message: str, mnist: pathlib.Path) -> None:
    path = mnist / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path}: .*{message}"):
        data.load(f"mnist:{mnist}")


def test_cut_off_gzip_and_missing_file(mnist: pathlib.Path) -> None:
    path = mnist / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"{path}: damaged or cut off"):
        data.load(f"mnist:{mnist}")
    path.unlink()
    with pytest.raises(UserError, match="holds neither train-images-idx3-ubyte nor"):
        data.load(f"mnist:{mnist}")
    with pytest.raises(UserError, match="mnist needs the folder"):
        data.load("mnist")


def write_cifar(folder: pathlib.Path, form: str, fine: bool, rng: np.random.Generator) -> dict[str, tuple]:
    """The files of CIFAR-10 or CIFAR-100, three images each."""
    folder.mkdir(exist_ok=True)
    names = ("train", "test") if fine else (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
    written = {}
    for name in names:
        images, labels = rng.integers(0, 256, (3, 3072), np.uint8), rng.integers(0, 100 if fine else 10, 3)
        written[name] = images, labels
        if form == "binary":
            columns = [labels[:, None] * 0] * fine + [labels[:, None], images]
            (folder / f"{name}.bin").write_bytes(np.concatenate(columns, 1).astype(np.uint8).tobytes())
        else:
            key = b"fine_labels" if fine else b"labels"
            content = {b"data": images, key: labels.tolist(), b"filenames": [b"a.png"]}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return written


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar(fine: bool, form: str, packed: bool, tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    written = write_cifar(tmp_path / "cifar", form, fine, rng)
    path = tmp_path / "cifar"
    if packed:
        with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
            archive.add(path, "cifar-batches")
        path = tmp_path / "cifar.tar.gz"
    found = data.load(f"{'cifar100' if fine else 'cifar10'}:{path}")
    assert (len(found.train), len(found.test)) == (3 if fine else 15, 3)
    images, labels = written["test" if fine else "test_batch"]
    batch = found.test.gather(np.arange(3), None)
    np.testing.assert_array_equal(batch["label"], labels)
    assert batch["image"][1, 5, 7, 2] == images[1].reshape(3, 32, 32)[2, 5, 7]


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_damaged_cifar(tmp_path: pathlib.Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "c"
    write_cifar(folder, "binary", False, rng)
    cut = folder / "data_batch_2.bin"
    cut.write_bytes(cut.read_bytes()[:-5])
    with pytest.raises(UserError, match="data_batch_2: 9214 bytes, a multiple of 3073 is needed"):
        data.load(f"cifar10:{folder}")
    cut.unlink()
    with pytest.raises(UserError, match=r"data_batch_2: missing, and so is data_batch_2.bin"):
        data.load(f"cifar10:{folder}")
    (folder / "data_batch_2").write_bytes(pickle.dumps({b"data": _Evil()}))
    with pytest.raises(UserError, match=r"asks for builtins.print.*nothing was run"):
        data.load(f"cifar10:{folder}")
    assert "run" not in capsys.readouterr().out
    (tmp_path / "c.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=r"c.tar.gz: damaged or cut off"):
        data.load(f"cifar10:{tmp_path / 'c.tar.gz'}")
    with pytest.raises(UserError, match="erase: 2 given, 0 to 1"):
        data.load(f"cifar10:{folder}", erase=2)


@pytest.fixture
def photographs(tmp_path: pathlib.Path, rng: np.random.Generator) -> pathlib.Path:
    """train and val with two classes; class a is dark, class b is bright. Sizes, modes and formats differ."""
    for part, count in (("train", 6), ("val", 3)):
        for name, low in (("a", 0), ("b", 156)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                shape = (40 + 7 * number, 90 - 5 * number, 3)
                image = Image.fromarray(rng.integers(low, low + 100, shape, np.uint8))
                mode = ("RGB", "L", "RGB")[number % 3]
                image.convert(mode).save(folder / f"{number}.{('JPEG', 'png')[number % 2]}")
    return tmp_path


def test_image_folder(photographs: pathlib.Path) -> None:
    found = data.load(f"imagefolder:{photographs}", size=32)
    assert (found.classes, len(found.train), len(found.test)) == (("a", "b"), 12, 6)
    batches = found.training_batches(4, seed=0)
    feed = reader(batches, 6, threads=2)
    for step in range(6):  # two epochs, read by grain's threads, each batch the same as when read alone
        batch, alone = next(feed), batches[step]
        assert batch["image"].shape == (4, 32, 32, 3)
        np.testing.assert_array_equal(batch["image"], alone["image"])
        np.testing.assert_array_equal(batch["image"].mean((1, 2, 3)) > 128, batch["label"] == 1)
    test = list(found.evaluation_batches(4))
    assert [b["weight"].tolist() for b in test] == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_image_folder_without_parts_holds_out_a_fifth(photographs: pathlib.Path) -> None:
    found = data.load(f"imagefolder:{photographs / 'train'}", size=16)
    assert (len(found.train), len(found.test)) == (8, 4)  # one in five of each class, rounded up


def test_corrupt_images_are_named_or_counted(photographs: pathlib.Path) -> None:
    bad = photographs / "val" / "a" / "0.JPEG"
    bad.write_bytes(bad.read_bytes()[:300])
    found = data.load(f"imagefolder:{photographs}", size=32)
    with pytest.raises(ValueError, match=f"{bad}: cannot be read as an image"):
        list(found.evaluation_batches(4))
    found = data.load(f"imagefolder:{photographs}", size=32, skip_corrupt=True)
    batches = list(found.evaluation_batches(4))
    assert sum(b["weight"].sum() for b in batches) == 5
    assert batches[0]["weight"].tolist() == [0, 1, 1, 1]
    assert found.test.skipped == {bad: 1}


def test_bad_folders_are_named(photographs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (photographs / "train" / "empty").mkdir()
    with pytest.raises(UserError, match="train/empty: a class folder with no images"):
        data.load(f"imagefolder:{photographs}")
    (photographs / "train" / "empty").rmdir()
    (photographs / "val" / "c").mkdir()
    with pytest.raises(UserError, match="val/c: a class that the training images do not have"):
        data.load(f"imagefolder:{photographs}")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        data.load(f"imagefolder:{tmp_path / 'nowhere'}")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none: holds no class folders"):
        data.load(f"imagefolder:{tmp_path / 'none'}")


def test_middle_of_an_image(tmp_path: pathlib.Path) -> None:
    """Evaluation sees the middle 7/8 of the shorter side."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[4:60, 20:76] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    (tmp_path / "x.png").write_bytes(stream.getvalue())
    from experiments.data.imagefolder import read_image, square

    assert (read_image(tmp_path / "x.png", square(56), None) == 255).all()


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = digits._read()
    theirs = load_digits()
    np.testing.assert_array_equal(pixels, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)
    assert (pixels.dtype, labels.dtype) == (np.float32, np.int32)
