"""Files from strangers: refused in one line that names the file, whatever they hold, and nothing of them is run."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import gzip
import io
import json
import lzma
import pathlib
import pickle
import struct
import tarfile
import time
import tracemalloc
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import zoo
from experiments import data, evaluate, generate, recipes, status
from experiments.data import cifar, imagefolder, mnist, pickled
from experiments.data.pickled import read_pickle
from experiments.errors import UserError, run
from experiments.generation import images
from experiments.measuring import result
from experiments.training import checkpoints, restore, run_files
from zoo.weights import WeightsFileError, info, runs


class Reduced:
    """Pickled as a call: what `pickle.load` would make of it."""

    def __init__(self, *call: object):
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


RECONSTRUCT = np.zeros(0).__reduce__()[0]
POINTERS = b"A" * 16  # of two objects
OBJECT = np.dtype("O")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "crafted",
    [
        Reduced(np.ndarray, ((2,), OBJECT, POINTERS)),
        Reduced(np.ndarray, ((2,), np.dtype("i8"), POINTERS, 0, (2**40,))),
        Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (2,), OBJECT, False, POINTERS)),
        Reduced(RECONSTRUCT, (np.ndarray, (2**40,), OBJECT)),
        Reduced(RECONSTRUCT, (np.dtype, (0,), b"b")),
        Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (3,), np.dtype("i8"), False, POINTERS)),
        Reduced(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (-1, -2), np.dtype("i8"), False, POINTERS)),
        Reduced(np.dtype, ("O", False, True), (3, "|", None, None, None, -1, -1, 63)),
        Reduced(np.dtype, ("u1", False, True), (3, "|", None, ("f",), {"f": (OBJECT, 0)}, 8, 8, 63)),
        Reduced(np.dtype, ("f4", False, True)),
    ],
)
def test_no_pointer_and_no_dtype_but_integers_comes_out_of_a_pickle(crafted: Reduced, protocol: int) -> None:
    with pytest.raises(ValueError, match=r"nothing was run|an array|a dtype|damaged"):
        read_pickle(pickle.dumps({b"data": crafted}, protocol))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", None),  # an index that makes Python's own reader take 32 GB
        (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.", "a tuple where a bytes must be"),  # whose hash is a crash
        (b"\x80\x02}h\x07.", "damaged"),  # an index that nothing was put to
        (b"\x80\x02B\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),
        (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "byte count > sys.maxsize"),
        (b"\x80\x02c__builtin__\neval\n.", r"asks for __builtin__.eval.*nothing was run"),
        (b"\x80\x04\x8c\x05nu\npy\x8c\x01x\x93.", r"asks for nu py.x, which"),
        (b"\x80\x02(.", "a object where a dict must be"),
        (b"\x80\x02s.", "damaged"),
        (b"\x80\x02e.", "damaged"),
        (b"\x80\x02R.", "damaged"),
        (b"", "pickle exhausted"),
        (b"\x80\x02" + b"}0" * 10, "the operation POP"),
        (b"\x80\x02}" + b")" * 50 + b".", "more than 30 operations"),
    ],
)
def test_pickles_made_by_hand(content: bytes, message: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if message is None:
        assert read_pickle(content) == {}
        return
    if "operations" in message:
        monkeypatch.setattr(pickled, "MOST_OPERATIONS", 30)
    with pytest.raises(ValueError, match=message):
        read_pickle(content)


def test_a_pickle_holds_what_was_pickled(rng: np.random.Generator) -> None:
    for protocol in (2, 3, 4, 5):
        for dtype in (">i4", "u1", "<u8"):
            array = np.asfortranarray(rng.integers(0, 99, (3, 4)).astype(dtype))
            other = pickle.dumps({b"a": (1, -300, 2**40, True, None, [b"x", "é", ()])}, protocol)
            assert read_pickle(other) == pickle.loads(other)
            if protocol < 5:  # in which NumPy calls another function
                back = read_pickle(pickle.dumps({b"a": array, "b": array.T}, protocol))
                np.testing.assert_array_equal(back[b"a"], array)
                np.testing.assert_array_equal(back["b"], array.T)


IMAGES = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("images_", "labels", "message"),
    [
        (IMAGES, [1, 0.5], "a float|BINFLOAT"),
        (IMAGES, [1, float("nan")], "BINFLOAT"),
        (IMAGES, [1, None], "a label is None"),
        (IMAGES, [1, True], "a label is True"),
        (IMAGES, [1, "3"], "a label is '3'"),
        (IMAGES, [1, [3]], r"a label is \[3\]"),
        (IMAGES, [1, 10], "labels from 1 to 10"),
        (IMAGES, [1, -1], "a label is -1"),
        (IMAGES, [1, 2**70], "a label is 1180591620717411303424"),
        (IMAGES, np.array([1, -1]), "labels from -1 to 1"),
        (IMAGES, [1], "2 images with labels that are no list of 2"),
        (IMAGES, "12", "2 images with labels that are no list of 2"),
        (IMAGES + np.int16(300), [1, 2], "pixels from 300 to 300"),
        (IMAGES - np.int16(1), [1, 2], "pixels from -1 to -1"),
        (IMAGES[:, :1], [1, 2], r"shape \(2, 1\), an array \[n, 3072\]"),
        (IMAGES[:0], [], "asks for __builtin__.bytes|holds no image"),
        (IMAGES.astype(np.float32), [1, 2], "calls dtype"),
        (IMAGES.tolist(), [1, 2], "the images are a list"),
    ],
)
def test_what_cifar_never_holds(images_: object, labels: object, message: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "test_batch"
    file.write_bytes(pickle.dumps({b"data": images_, b"labels": labels}, 2))
    with pytest.raises(ValueError, match=f"{tmp_path}: test_batch: .*({message})"):
        cifar.read_part(str(tmp_path), ("test_batch",), cifar.CIFAR10)


def archive(path: pathlib.Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> pathlib.Path:
    with tarfile.open(path, mode) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


BINARY = bytes(3073)


def read_archive(path: pathlib.Path) -> None:
    cifar.read_part(str(path), ("test_batch",), cifar.CIFAR10)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (tarfile.TarInfo("../test_batch.bin"), "lies outside the archive's folder"),
        (tarfile.TarInfo("/etc/test_batch.bin"), "lies outside the archive's folder"),
        (link("a/test_batch.bin", tarfile.SYMTYPE), "is a link"),
        (link("a/test_batch.bin", tarfile.LNKTYPE), "is a link"),
        (link("a/test_batch.bin", tarfile.FIFOTYPE), "is a link or another special file"),
    ],
)
def test_paths_and_links_in_an_archive(member: tarfile.TarInfo, message: str, tmp_path: pathlib.Path) -> None:
    path = archive(tmp_path / "c.tar.gz", (member, BINARY if member.isreg() else b""))
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        read_archive(path)


def test_archives_that_unpack_to_too_much(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "MOST", 100_000)
    sound = archive(tmp_path / "sound.tar.gz", (tarfile.TarInfo("a/test_batch.bin"), BINARY))
    read_archive(sound)
    beside = archive(
        tmp_path / "beside.tar.gz", (tarfile.TarInfo("other"), bytes(10**6)), (tarfile.TarInfo("test_batch.bin"), BINARY)
    )
    inside = archive(tmp_path / "inside.tar.xz", (tarfile.TarInfo("test_batch.bin"), bytes(10**6)), mode="w:xz")
    long = tarfile.TarInfo("test_batch.bin")
    long.pax_headers = {"comment": "x" * 10**6}  # read by tarfile before any member
    header = archive(tmp_path / "header.tar.bz2", (long, BINARY), mode="w:bz2")
    for path in (beside, inside, header):
        assert path.stat().st_size < 10_000
        with pytest.raises(ValueError, match=f"{path}: unpacks to more than 100,000 bytes"):
            read_archive(path)
    plain = tmp_path / "test_batch.bin"
    plain.write_bytes(bytes(10**6))
    with pytest.raises(ValueError, match=f"{plain}: unpacks to more than 100,000 bytes"):
        read_archive(tmp_path)


@pytest.mark.parametrize("mode", ["gz", "xz", "bz2"])
def test_damaged_archives(mode: str, tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    path = archive(tmp_path / f"c.tar.{mode}", (tarfile.TarInfo("test_batch.bin"), rng.bytes(3073)), mode=f"w:{mode}")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:30] + b"\0\0\0\0" + content[34:], content[:6] + b"x" * 99):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path}: damaged or cut off"):
            read_archive(path)


def idx(*shape: int) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(60_000, 2**14, 2**14), "at most 600,000,000 bytes are read"),
        (idx(2**32 - 1, 2**32 - 1, 2**32 - 1), "at most 600,000,000 bytes are read"),
        (idx(2, 28, 28) + bytes(10**6), "more bytes, 1568 are needed"),
        (idx(2, 0, 0), "holds nothing"),
        (idx(0, 28, 28), "holds nothing"),
        (idx(2, 28, 28)[:10], "bytes, .* are needed"),
    ],
)
def test_mnist_files_that_say_too_much(content: bytes, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        mnist.read_idx(path)


def npy(header: str) -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones((2, 8)))
    return stream.getvalue()


HEADER = "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 8), }}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no .npy file of numbers"),
        (zipped(), "is no .npy file of numbers"),
        (npy("{'descr': ',i8', 'fortran_order': False, 'shape': (2, 8), }"), "is no .npy file of numbers"),
        (npy(HEADER.format(2**40)), "num from 1 to 5"),  # 32 TiB
        (npy(HEADER.format(2**200)), "num from 1 to 5"),
        (npy(HEADER.format(-1)), "num from 1 to 5"),
        (npy(HEADER.format(5)) + bytes(7), "is no .npy file of numbers"),
        (npy("(" * 9000), "is no .npy file of numbers"),
        (npy("-" * 9000 + "1"), "is no .npy file of numbers"),
        (npy("'" * 3 + "x"), "is no .npy file of numbers"),
        (npy("{'descr': 'O', 'fortran_order': False, 'shape': (2, 8), }") + POINTERS, "holds object"),
        (b"\x80\x04" + pickle.dumps([1]), "is no .npy file of numbers"),
        (saved(np.ones((2, 8), complex)), "holds complex128"),
        (saved(np.full((2, 8), "x")), "holds <U1"),
        (saved(np.full((2, 8), np.nan)), "not finite"),
        (saved(np.full((2, 8), 1e300)), "too large for float32"),
        (saved(np.ones((2, 7))), r"holds \(2, 7\), this generator needs \[num, 8\]"),
        (saved(np.ones(8)), r"holds \(8,\), this generator needs"),
        (saved(np.ones((0, 8))), "num from 1 to 5"),
        (saved(np.ones((6, 8))), "num from 1 to 5"),
    ],
)
def test_latents_from_a_file(content: bytes, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "z.npy"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"--latent: {path} .*{message}") as caught:
        images.read_latents(path, 8, 5)
    assert "\n" not in str(caught.value)


def test_how_many_images_are_drawn(tmp_path: pathlib.Path) -> None:
    run = types.SimpleNamespace(
        task=types.SimpleNamespace(latent_size=8), dataset=types.SimpleNamespace(input_shape=(32, 32, 1))
    )
    options = types.SimpleNamespace(latent=None, num=100_000_000, seed=0, interpolate=None)
    with pytest.raises(UserError, match="--num: 100000000 images of 32 x 32 x 1 asked for, at most 262,144"):
        images.latents(run, options)  # type: ignore[arg-type]
    options.num, options.interpolate = 2, 10**9
    with pytest.raises(UserError, match="--num: 2 x 1000000000 images"):
        images.latents(run, options)  # type: ignore[arg-type]
    options.interpolate, options.latent = 3, tmp_path / "z.npy"
    for array in (np.ones((3, 8)), np.zeros((2, 8))):
        np.save(options.latent, array)
        with pytest.raises(UserError, match="to interpolate, pairs are needed, none of them zero"):
            images.latents(run, options)  # type: ignore[arg-type]
    np.save(options.latent, np.ones((2, 8), np.int8))
    assert images.latents(run, options).dtype == np.float32  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["[" * 100_000, '{"experiment": [1]}', '{"experiment": {}}', "null", "3", "\udcff", ""])
def test_result_files_of_strangers(content: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=str(path)):
        result.read(path)


def test_a_data_set_that_is_no_folder_and_no_archive(tmp_path: pathlib.Path) -> None:
    (tmp_path / "c.tar.xz").write_bytes(lzma.compress(b"no tar"))
    with pytest.raises(UserError, match=r"c.tar.xz: damaged or cut off"):
        data.load(f"cifar10:{tmp_path / 'c.tar.xz'}")


@pytest.mark.parametrize(("mode", "size"), [("PNG", 2**31 - 1), ("PNG", 2**32 - 1)])
def test_a_length_beyond_the_end_of_an_image_takes_no_memory(mode: str, size: int, tmp_path: pathlib.Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(stream, mode)
    content = stream.getvalue()
    chunk = content.index(b"IDAT")
    (path := tmp_path / "i.png").write_bytes(content[: chunk - 4] + struct.pack(">I", size) + content[chunk:])
    look = imagefolder.square(8)
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):  # Pillow takes what is there
            imagefolder.read_image(path, look, None)
        with contextlib.suppress(ValueError):
            zoo.preprocess("", path, preprocessing=look)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_errors_of_images_name_the_file(tmp_path: pathlib.Path) -> None:
    (path := tmp_path / "i.png").write_bytes(b"no picture")
    for read in (lambda: imagefolder.read_image(path, imagefolder.square(8), None), lambda: zoo.preprocess("alexnet", path)):
        with pytest.raises(ValueError, match=rf"{path}.*cannot identify image file '{path}'"):
            read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "os:abort"}, "names code to run (model os:abort)"),
        ({"model": "lenet5", "data": "os:system:exit 3"}, "names code to run (data os:system:exit 3)"),
        ({"model": "digits:x", "data": "digits"}, "names code to run (model digits:x)"),
        ({"task": "x"}, "is damaged (task: 'x' is not known"),
        ({"batch_size": [1]}, "is damaged (batch_size: [1] given"),
        ({"data": None}, "is damaged (data: None given"),
        ({"preprocessing": {"a\nb": 1}}, "is damaged ("),
    ],
)
def test_settings_of_a_strangers_run(
    change: dict[str, object], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = dataclasses.asdict(recipes.find("lenet5", None)) | change
    look = settings.pop("preprocessing", None)
    (tmp_path / "config.json").write_text(json.dumps({"recipe": settings, "preprocessing": look}))
    for main in (evaluate.main, generate.main):
        assert run(main, [str(tmp_path)]) == 2
    evaluated, generated = capsys.readouterr().err.splitlines()
    assert message in evaluated
    assert str(tmp_path) in evaluated
    assert "Traceback" not in generated


def test_code_of_a_run_that_generates(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = dataclasses.asdict(recipes.find("gan_mlp", None)) | {"data": "os:system:exit 3"}
    (tmp_path / "config.json").write_text(json.dumps({"recipe": settings}))
    assert run(generate.main, [str(tmp_path)]) == 2
    assert "names code to run (data os:system:exit 3); --trust runs it" in capsys.readouterr().err


@pytest.mark.parametrize("row", ['{"step": 1, "split": "test", "loss": "x"}', '{"step": 1, "split": "test", "loss": [1]}'])
def test_figures_that_are_no_numbers(row: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"recipe": {"model": "lenet5", "steps": "many"}}')
    (tmp_path / "metrics.jsonl").write_text(row + "\n")
    with pytest.raises(UserError, match=r"line 1 is no row of metrics"):
        run_files.read_metrics(tmp_path)
    assert run(status.main, [str(tmp_path)]) == 0
    assert "damaged" in capsys.readouterr().out
    (tmp_path / "metrics.jsonl").unlink()
    assert run(status.main, [str(tmp_path)]) == 0


@pytest.mark.parametrize("digits", [400, 5000])  # more than a float holds, and than Python reads
def test_numbers_of_many_digits(digits: int, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = lambda content: json.dumps(content).replace('"NUMBER"', "9" * digits)
    (tmp_path / "config.json").write_text(written({"recipe": {"model": "lenet5", "epochs": "NUMBER"}}))
    rows = ({"step": 1, "split": "test", "loss": "NUMBER"}, {"step": 2, "split": "test"})
    (tmp_path / "metrics.jsonl").write_text("".join(f"{written(row)}\n" for row in rows))
    for read in (lambda: restore.recipe_of(tmp_path), lambda: run_files.read_metrics(tmp_path)):
        with pytest.raises(UserError, match=str(tmp_path)):
            read()
    assert run(status.main, [str(tmp_path)]) == 0
    assert "damaged" in capsys.readouterr().out
    metadata = {info.KEY: written({"figures": {"loss": "NUMBER"}})}
    with pytest.raises(ValueError, match=r"source: w: its metadata .* damaged"):
        zoo.WeightsInfo.from_metadata(metadata, "w")


def test_a_checkpoint_that_claims_more_than_it_has(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(checkpoints.Checkpoints(tmp_path)) as kept:
        kept.save(1, {"params": {"kernel": jnp.zeros((1000, 1000))}}, {"step": 1}, loss=0.5, wait=True)
    assert runs.read_run_checkpoint(tmp_path / "1")["kernel"].shape == (1000, 1000)
    monkeypatch.setattr(runs, "LARGEST", 1000)
    with pytest.raises(WeightsFileError, match=r"it claims arrays of 4,000,000 bytes and has"):
        runs.read_run_checkpoint(tmp_path / "1")


def test_several_damaged_arrays_are_one_error(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each read that fails beside the first would print a traceback; where the index of all arrays is damaged, all fail."""
    arrays = {name: jnp.arange(2000.0) for name in "abcdef"}
    with contextlib.closing(checkpoints.Checkpoints(tmp_path)) as kept:
        kept.save(1, {"params": arrays}, {"step": 1}, loss=0.5, wait=True)
    for file in [*(tmp_path / "1" / "state").glob("d/*"), *(tmp_path / "1" / "state").glob("ocdbt*/d/*")]:
        sound = file.read_bytes()
        for damaged in (bytes(len(sound)), sound[: len(sound) // 2]):
            file.write_bytes(damaged)
            with pytest.raises(WeightsFileError, match="damaged, or no checkpoint of a run"):
                runs.read_run_checkpoint(tmp_path / "1")
        file.write_bytes(sound)
    gc.collect()
    time.sleep(0.3)  # what is printed late
    assert capfd.readouterr().err == ""


def test_names_in_a_file_do_not_break_the_line(tmp_path: pathlib.Path) -> None:
    old = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, ["one\ntwo"]):
        pickle.dump(part, old, protocol=2)
    (path := tmp_path / "w.pth").write_bytes(old.getvalue())
    with pytest.raises(WeightsFileError, match=f"source: {path}: storage one two belongs to no tensor"):
        zoo.load_weights(zoo.create_model("lenet5"), path)
