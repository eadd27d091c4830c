"""Folders of images as people have them: links, formats, names of parts, litter, 16 bits, turned photographs."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.data import imagefolder
from experiments.data.base import ArraySource, stratified_split
from experiments.data.imagefolder import SUFFIXES, list_images, read_image, square
from experiments.errors import UserError

COLOURS = {"a": (200, 30, 60), "b": (10, 120, 240)}


def paint(path: pathlib.Path, colour: tuple[int, int, int] = (200, 30, 60), **options) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), colour).save(path, **options)
    return path


def fill(folder: pathlib.Path, count: int = 5) -> pathlib.Path:
    """Two classes of one colour each."""
    for name, colour in COLOURS.items():
        for number in range(count):
            paint(folder / name / f"{number}.png", colour)
    return folder


def test_a_part_of_a_batch_reads_its_own_images_only(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = data.load(f"imagefolder:{fill(tmp_path)}", size=16).training_batches(4, seed=3)
    whole, read = batches[1], []
    monkeypatch.setattr(imagefolder, "read_image", lambda path, *rest: read.append(path) or read_image(path, *rest))
    parts = [batches.part(1, index, 2) for index in range(2)]
    assert len(read) == len(set(read)) == 4
    for name, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".TIF", ".WebP"])
def test_every_format_is_found_and_read(suffix: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"x/0{suffix}"
    path.parent.mkdir()
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".tif": "TIFF", ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM"}
    kind = kinds.get(suffix.lower(), suffix[1:].upper())
    picture = Image.new({".pgm": "L", ".pbm": "1"}.get(suffix, "RGB"), (24, 20), (200, 30, 60) if kind != "PPM" else "white")
    picture.save(path, "TIFF" if kind == "TIF" else kind)
    files, labels, classes = list_images(tmp_path)
    assert (files, labels, classes) == ([path], [0], ("x",))
    expected = np.array([200, 30, 60] if kind != "PPM" else [255, 255, 255])
    # JPEG and WebP keep colours to a few steps of 256, GIF chooses the nearest of a palette.
    assert np.abs(read_image(path, square(16), None) - expected).max() <= (4 if kind in ("JPEG", "WEBP", "GIF") else 0)


def test_the_first_picture_of_an_animation_with_a_transparent_palette(tmp_path: pathlib.Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour).quantize(4) for colour in ((0, 0, 250), (0, 250, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif", square(8), None)[0, 0].tolist() == [0, 0, 250]
    frames[0].save(tmp_path / "a.png", transparency=bytes(range(4)))
    assert read_image(tmp_path / "a.png", square(8), None)[0, 0].tolist() == [0, 0, 250]


def test_sixteen_bits_keep_their_greys(tmp_path: pathlib.Path) -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(64, 0)
    for suffix in ("png", "tif"):
        Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
        found = read_image(tmp_path / f"a.{suffix}", square(56), None)  # the middle, at its own size
        np.testing.assert_array_equal(found, np.round(ramp[4:60, 4:60, None] / 257).repeat(3, -1))
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(ValueError, match=r"floats.tif: cannot be read as an image \(a picture of floats"):
        read_image(tmp_path / "floats.tif", square(8), None)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_is_turned_as_it_says(suffix: str, orientation: int, tmp_path: pathlib.Path) -> None:
    picture, exif = Image.new("RGB", (400, 200), "red"), Image.Exif()
    picture.paste((0, 0, 255), (0, 0, 140, 200))  # the left third is blue
    exif[0x0112] = orientation
    picture.save(tmp_path / f"a.{suffix}", exif=exif)
    turned = {1: picture, 3: picture.rotate(180), 6: picture.rotate(-90, expand=True), 8: picture.rotate(90, expand=True)}
    turned[orientation].save(tmp_path / "b.png")
    found, expected = (read_image(tmp_path / name, square(32), None).astype(int) for name in (f"a.{suffix}", "b.png"))
    # Compression blurs the border; a picture turned otherwise differs in many pixels by 255.
    assert np.abs(found - expected).mean() < 6
    box = [read_image(tmp_path / name, square(32), np.random.default_rng(5)).astype(int) for name in (f"a.{suffix}", "b.png")]
    assert np.abs(box[0] - box[1]).mean() < 6


def test_links_are_followed_once(tmp_path: pathlib.Path) -> None:
    root, store = fill(tmp_path / "root"), tmp_path / "store"
    paint(store / "deep" / "x.png")
    paint(store / "y.png")
    (root / "a" / "more").symlink_to(store)
    (root / "a" / "again").symlink_to(store)  # twice the same
    (store / "deep" / "back").symlink_to(store)  # in a circle
    (root / "a" / "up").symlink_to(root)  # would make class b a part of a
    (root / "a" / "self").symlink_to(root / "a" / "self")
    (root / "c").symlink_to(store / "deep")  # a class may be a link
    (root / "b" / "one.png").symlink_to(store / "y.png")
    files, labels, classes = list_images(root)
    assert classes == ("a", "b", "c")
    assert np.bincount(labels).tolist() == [7, 6, 1]  # what leads back from c lies above it
    names = sorted(path.name for path, label in zip(files, labels, strict=True) if label == 0)
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png", "x.png", "y.png"]


def test_litter_is_left_out(tmp_path: pathlib.Path) -> None:
    root = fill(tmp_path)
    for litter in (
        "a/._0.png", "a/.hidden.png", "b/.ipynb_checkpoints/0-checkpoint.png", ".ipynb_checkpoints/x.png", "__MACOSX/a/._0.png",
        "b/@eaDir/0.png",
    ):  # fmt: skip
        paint(root / litter)
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    files, _, classes = list_images(root)
    assert classes == ("a", "b")
    assert len(files) == 10


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "valid"),
        ("train", "validation"),
        ("train", "dev"),
        ("Train", "VAL"),
        ("TRAIN", "Test"),
        ("Training", "testing"),
    ],
)
def test_names_of_the_parts(train: str, test: str, tmp_path: pathlib.Path) -> None:
    fill(tmp_path / train, 4)
    fill(tmp_path / test, 2)
    (tmp_path / "annotations").mkdir()
    found = data.load(f"imagefolder:{tmp_path}", size=8)
    assert (found.classes, len(found.train), len(found.test)) == (("a", "b"), 8, 4)
    assert {path.relative_to(tmp_path).parts[0] for path in found.test.files} == {test}


def test_validation_comes_before_the_test_and_a_part_is_held_out_without_either(tmp_path: pathlib.Path) -> None:
    for part in ("test", "Valid", "train"):
        fill(tmp_path / part)
    found = data.load(f"imagefolder:{tmp_path}", size=8)
    assert found.test.files[0].parent.parent.name == "Valid"
    (tmp_path / "test").rename(tmp_path / ".test")
    (tmp_path / "Valid").rename(tmp_path / ".Valid")
    found = data.load(f"imagefolder:{tmp_path}", size=8)
    assert (found.classes, len(found.train), len(found.test)) == (("a", "b"), 8, 2)


def test_a_class_may_be_called_train(tmp_path: pathlib.Path) -> None:
    for name in ("bus", "train"):
        for number in range(5):
            paint(tmp_path / name / f"{number}.png")
    assert data.load(f"imagefolder:{tmp_path}").classes == ("bus", "train")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("train", "holdout"), "holdout beside train, a folder of class folders is needed: val, valid"),
        (("val", "test"), "holds .* and no train"),
        (("train", "Train", "val"), "holds Train and train, one of them"),
        (("train", "training", "val"), "training, one of them is needed"),
    ],
)
def test_parts_that_are_not_clear(parts: tuple[str, ...], message: str, tmp_path: pathlib.Path) -> None:
    for part in parts:
        fill(tmp_path / part, 2)
    with pytest.raises(UserError, match=message):
        data.load(f"imagefolder:{tmp_path}")


def test_a_single_image_of_a_class_is_trained_with(tmp_path: pathlib.Path) -> None:
    fill(tmp_path)
    paint(tmp_path / "c" / "only.png")
    found = data.load(f"imagefolder:{tmp_path}", size=8)
    assert np.bincount(found.train.labels).tolist() == [4, 4, 1]
    assert np.bincount(found.test.labels, minlength=3).tolist() == [1, 1, 0]
    train, test = stratified_split([3, 1, 1, 3, 2], 5, seed=0)
    assert sorted([*train, *test]) == [0, 1, 2, 3, 4]
    assert 4 in train
    for name in "ab":
        for number in range(1, 5):
            (tmp_path / name / f"{number}.png").unlink()
    with pytest.raises(UserError, match="a single image of each class, which leaves none to test with"):
        data.load(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int64, np.uint64])
def test_labels_of_any_integer_type(dtype: type, tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    """From the data through a training step, mixup and the score, as with int32."""
    import dataclasses

    from experiments.data.augment import soft_labels
    from experiments.recipes.recipe import Recipe
    from experiments.training.classification import ClassificationTask

    classes = 128 if dtype is np.int8 else 256
    images, labels = rng.random((16, 32, 32, 1), np.float32), rng.integers(0, classes, 16)
    labels[0] = classes - 1
    digits = data.load("digits")
    results = []
    for kind in (np.int32, dtype):
        part = ArraySource({"image": images, "label": labels.astype(kind)})
        dataset = dataclasses.replace(digits, train=part, test=part, classes=tuple(map(str, range(classes))))
        recipe = Recipe("lenet5", "digits", batch_size=16, implementation="xla", label_smoothing=0.1)
        task = ClassificationTask(recipe, dataset, 1, 1)
        model = task.model(task.init())
        loss, _ = task.loss(model, dataset.training_batches(16, 0)[0])
        score = task.score(model, next(dataset.evaluation_batches(16)))
        results.append([float(loss), *map(float, score.values())])
        # 8 bits hold no 300.
        np.testing.assert_array_equal(soft_labels(jax.numpy.asarray(labels.astype(kind)), 300), np.eye(300)[labels])
    assert np.isfinite(results).all()
    assert results[0] == results[1]
