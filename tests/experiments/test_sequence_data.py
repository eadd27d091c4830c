"""Text, source code and tagging files as data: what is in them, that parts do not overlap, and what bad files say."""

import io
import itertools
import pathlib
import tokenize

import numpy as np
import pytest

from experiments import data
from experiments.data import pysource, pytokens
from experiments.data.base import evaluation_batches
from experiments.data.sequences import Streams, Windows
from experiments.data.text import decode, encode
from experiments.errors import UserError, run
from experiments.train import main


def test_streams_go_on_from_batch_to_batch():
    files = [np.arange(100, 160), np.arange(200, 225), np.arange(300, 361)]
    streams = Streams(files, 10)
    batches = streams.training_batches(3, seed=1)
    assert batches.per_epoch == 4
    epoch = [batches[step] for step in range(4)]
    for before, after in itertools.pairwise(epoch):
        np.testing.assert_array_equal(before["tokens"][:, -1], after["tokens"][:, 0])
        assert not after["fresh"].any()
    assert epoch[0]["fresh"].all()
    assert batches[4]["fresh"].all()
    seen = np.concatenate([batch["tokens"][:, :-1].ravel() for batch in epoch])
    assert len(set(seen)) == len(seen) == 120
    np.testing.assert_array_equal(streams.training_batches(3, seed=1)[2]["tokens"], epoch[2]["tokens"])
    orders = {tuple(streams.training_batches(3, seed)[0]["tokens"][0]) for seed in range(8)}
    assert len(orders) > 1


@pytest.mark.parametrize(("total", "ahead", "context"), [(23, 0, 0), (23, 0, 3), (24, 1, 0), (21, 1, 2), (5, 0, 0)])
def test_windows_count_every_step_once(total, ahead, context):
    windows = Windows({"tokens": np.arange(1, total + 1)}, 5, context, ahead)
    counted = []
    for batch in evaluation_batches(windows, 2):
        steps = batch["mask"].shape[1]
        for tokens, mask, weight in zip(batch["tokens"], batch["mask"], batch["weight"], strict=True):
            counted.extend(tokens[ahead : ahead + steps][(mask * weight) > 0])
    assert counted == list(range(1 + ahead, total + 1))


def test_windows_move_in_training_only():
    windows = Windows({"tokens": np.arange(100)}, 10, jitter=True)
    rng = np.random.default_rng(0)
    moved = windows.gather(np.arange(10), rng)["tokens"][:, 0]
    assert (moved >= np.arange(10) * 10).all()
    assert (moved < np.arange(10) * 10 + 10).all()
    assert len(set(moved % 10)) > 3
    np.testing.assert_array_equal(windows.gather(np.arange(10), None)["tokens"][:, 0], np.arange(10) * 10)


def test_encode_and_decode():
    ids = encode("if x:\n\té", pysource.VOCABULARY)
    assert decode(ids, pysource.VOCABULARY) == "if x:\n\t\N{REPLACEMENT CHARACTER}"
    assert len(pysource.VOCABULARY) == 98


def test_pysource_splits_by_file_and_leaves_generated_files_out():
    names = pysource.files()
    assert len(names) > 300
    assert {"os.py", "json/decoder.py"} <= {name.as_posix() for name in names}
    assert not [name for name in names if {"test", "site-packages", "encodings"} & set(name.parts)]
    share = np.mean([pysource.in_test(name) for name in names])
    assert 0.02 < share < 0.12
    # The split depends on nothing but the names.
    assert pysource.in_test(pathlib.Path("argparse.py")) == pysource.in_test(pathlib.Path("argparse.py"))
    dataset = data.load("pysource", length=64)
    assert len(dataset.classes) == 98
    assert dataset.training_batches(4, 0)[0]["tokens"].shape == (4, 65)
    assert len(dataset.test) > 200


def test_labels_agree_with_tokenize():
    text = 'def f(x): # note\n    """doc\n    more"""\n    return x + 1.5 if x else "s" \\\n        "t"\n'
    tags = [pytokens.TAGS[i] for i in pytokens.label(text)]
    by_kind = {kind: "".join(c for c, tag in zip(text, tags, strict=True) if tag == kind) for kind in pytokens.TAGS}
    assert by_kind["keyword"] == "defreturnifelse"
    assert by_kind["name"] == "fxxx"
    assert by_kind["number"] == "1.5"
    assert by_kind["string"] == '"""doc\n    more""""s""t"'
    assert by_kind["comment"] == "# note"
    assert by_kind["operator"] == "():+"
    assert by_kind["space"].strip() == "\\"


def test_labels_of_a_whole_file():
    text = pathlib.Path(tokenize.__file__).read_text()
    tags = pytokens.label(text)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NUMBER:
            lines = text.split("\n")
            start = sum(len(line) + 1 for line in lines[: token.start[0] - 1]) + token.start[1]
            assert (tags[start : start + len(token.string)] == pytokens.TAGS.index("number")).all()
            assert text[start : start + len(token.string)] == token.string


def test_text_file(tmp_path):
    file = tmp_path / "song.txt"
    file.write_text("la li lu " * 40 + "é" * 40)
    dataset = data.load(f"text:{file}", length=8)
    assert dataset.classes[0] == "\N{REPLACEMENT CHARACTER}"
    batch = dataset.training_batches(2, 0)[0]["tokens"]
    assert set(decode(batch[0], dataset.classes)) <= set("la iu")
    # What only the test part has is unknown.
    assert (dataset.test.gather(np.arange(1), None)["tokens"] == 0).any()


def test_tagging_file(tmp_path):
    file = tmp_path / "tags.tsv"
    file.write_text("".join("the\tDET\ncat\tNOUN\nsat\tVERB\n\n" if i % 2 else "a\tDET\ndog\tNOUN\n\n" for i in range(20)))
    dataset = data.load(f"tagging:{file}", longest=4)
    assert dataset.classes == ("DET", "NOUN", "VERB")
    assert len(dataset.train) == 18
    assert len(dataset.test) == 2
    batch = dataset.train.gather(np.arange(2), None)
    np.testing.assert_array_equal(batch["lengths"], [3, 2])
    np.testing.assert_array_equal(batch["mask"], [[1, 1, 1, 0], [1, 1, 0, 0]])
    assert decode(batch["tokens"][1][:2], dataset.vocabulary) == "adog"


@pytest.mark.parametrize(
    ("content", "spec", "message"),
    [
        (b"", "text", "is empty"),
        (b" \n\n", "text", "is empty"),
        (b"\x00\x01\x02", "text", "is not text: it holds zero bytes"),
        (b"\xff\xfe\x00a", "text", "is not text: byte 0 is not UTF-8"),
        (b"ab", "text", "cannot be kept for the test"),
        (b"", "tagging", "is empty"),
        (b"a b\n", "tagging", "line 1: 'a b' is not a token, a tab and a tag"),
        (b"a\tX\nb\tX\tY\n", "tagging", "line 2"),
        (b"a\tX\n", "tagging", "has 1 sentence"),
        (b"a\tX\n\nb\tX\n", "tagging", "only the tag 'X'"),
    ],
)
def test_bad_files(tmp_path, content, spec, message):
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        data.load(f"{spec}:{file}")


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("text", {}, "text needs a file"),
        ("tagging", {}, "tagging needs a file"),
        ("text:/nowhere/at/all", {}, "is not a file"),
        ("pysource:x", {}, "takes no path"),
        ("pysource", {"length": 0}, "length: 0 given"),
        ("pytokens", {"length": 0}, "length: 0 given, 1 to 65536"),
    ],
)
def test_bad_options(spec, options, message):
    with pytest.raises(UserError, match=message):
        data.load(spec, **options)


def test_too_many_streams():
    with pytest.raises(ValueError, match="batch_size: 20 streams of 10 steps given, the training data has 100 tokens"):
        Streams([np.arange(100)], 10).training_batches(20, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet5", "--data", "pysource", "--task", "language_model"], "lenet5 is no language model"),
        (["lstm_lm", "--data", "pytokens", "--task", "tagging"], "lstm_lm is no tagger"),
        (["bilstm_tagger", "--data", "digits", "--task", "tagging"], "digits has images, tagging of bilstm_tagger needs tags"),
    ],
)
def test_models_and_tasks_that_do_not_fit(tmp_path, capsys, arguments, message):
    assert run(main, [*arguments, "--workdir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
