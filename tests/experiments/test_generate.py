"""Sampling, text from a language model, files coloured by a tagger: from a short training run to what is shown."""

import html
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from experiments import generate, train
from experiments.errors import run
from experiments.generation import characters, tags
from experiments.generation.characters import sample

pytestmark = pytest.mark.slow

LOGITS = jnp.log(jnp.array([0.1, 0.4, 0.05, 0.25, 0.2]))


def drawn(**options):
    keys = jax.random.split(jax.random.key(0), 4000)
    ids = jax.vmap(lambda key: sample(LOGITS, key, **options))(keys)
    return np.bincount(ids, minlength=5) / len(keys)


def test_sampling_follows_the_probabilities():
    # 4,000 draws: the standard error of a share is at most 0.008.
    np.testing.assert_allclose(drawn(), jnp.exp(LOGITS), atol=0.03)
    squared = jnp.exp(2 * LOGITS)
    np.testing.assert_allclose(drawn(temperature=0.5), squared / squared.sum(), atol=0.03)
    np.testing.assert_allclose(drawn(top_k=2), jnp.array([0, 0.4, 0, 0.25, 0]) / 0.65, atol=0.03)
    # 0.4 + 0.25 reach 0.6, and 0.4 alone does not.
    np.testing.assert_allclose(drawn(top_p=0.6), jnp.array([0, 0.4, 0, 0.25, 0]) / 0.65, atol=0.03)
    np.testing.assert_array_equal(drawn(top_p=0.01), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(drawn(temperature=0), [0, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature: -1 given"),
        ({"top_k": 0}, "top_k: 0 given, 1 to 5"),
        ({"top_k": 6}, "top_k: 6 given, 1 to 5"),
        ({"top_p": 0.0}, "top_p: 0.0 given"),
        ({"top_p": 1.5}, "top_p: 1.5 given"),
    ],
)
def test_sampling_values_outside_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        sample(LOGITS, jax.random.key(0), **options)


def test_the_tagger_sees_every_token_once_and_its_surroundings():
    model = zoo.create_model("bilstm_tagger", num_classes=4, vocab_size=9, embedding_size=4, hidden_size=8)
    tokens = np.random.default_rng(0).integers(0, 9, 70).astype(np.int32)
    # A context as long as the text: each window sees all of it, and beyond its ends only padding.
    whole = np.pad(tokens, (70, 70))
    expected = np.asarray(model(whole[None]).argmax(-1))[0, 70:140]
    found = tags.predict(model, tokens, length=16, context=70, batch_size=2)
    assert found.shape == (70,)
    assert (found == expected).mean() > 0.97  # the padding's length differs, and may tip a close decision


def test_a_page_escapes_what_it_shows():
    page = tags.as_html("a<b", [("x < y", 0), ("&amp;", 1)], ("plain", "odd"))
    body = re.search(r"<pre>(.*)</pre>", page, re.DOTALL)[1]
    assert html.unescape(re.sub(r"<[^>]*>", "", body)) == "x < y&amp;"
    assert "<title>a&lt;b</title>" in page


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Two runs of a few steps on a file of this repository."""
    folder = tmp_path_factory.mktemp("runs")
    text, tagged = folder / "text.txt", folder / "tags.tsv"
    text.write_text("def f(x):\n    return x\n" * 60)
    tagged.write_text("".join(f"the\tDET\n{noun}\tNOUN\nruns\tVERB\n\n" for noun in ("cat", "dog", "fox", "hen") * 5))
    language = ["lstm_lm", "--data", f"text:{text}", "--task", "language_model", "--data-options", "length=16"]
    tagging = ["bilstm_tagger", "--data", f"tagging:{tagged}", "--task", "tagging", "--data-options", "longest=8"]
    small = ["--steps", "60", "--batch-size", "8", "--learning-rate", "0.02", "--model-options", "hidden_size=32"]
    for name, arguments in (("lm", language), ("tagger", tagging)):
        assert run(train.main, [*arguments, *small, "--workdir", str(folder / name)]) == 0
    return folder


def test_text_is_written_and_repeats_with_its_seed(workdirs, capsys):
    arguments = [str(workdirs / "lm"), "--prompt", "def ", "--length", "40", "--seed", "3", "--top-k", "5", "--top-p", "0.9"]
    assert run(generate.main, arguments) == 0
    first = capsys.readouterr().out
    assert first.startswith("def ")
    assert len(first) == 4 + 40 + 1
    assert run(generate.main, [*arguments, "--out", str(workdirs / "out.txt")]) == 0
    assert (workdirs / "out.txt").read_text() == first
    assert run(generate.main, [*arguments, "--num", "2", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.count("----- seed") == 2


def test_the_model_of_a_run_knows_its_tokens(workdirs):
    model = zoo.load_model(workdirs / "lm")
    vocabulary = zoo.weights_info(model).vocabulary
    assert zoo.weights_info(model).classes == ()
    assert zoo.weights_info(model).data == "text:text.txt"
    assert "".join(itertools.islice(characters.characters(model, vocabulary, "def f", temperature=0), 8)) == "(x):\n   "
    assert zoo.load_weights(model, workdirs / "lm" / "checkpoints").loaded  # what it carried from batch to batch is left out
    tagger = zoo.load_model(workdirs / "tagger")
    info = zoo.weights_info(tagger)
    assert info.classes == ("DET", "NOUN", "VERB")
    ids = jnp.array([[info.vocabulary.index(word) for word in ("the", "cat", "runs")]])
    assert [info.classes[tag] for tag in tagger(ids)[0].argmax(-1)] == ["DET", "NOUN", "VERB"]


def test_a_trained_model_writes_what_it_read(workdirs, capsys):
    assert run(generate.main, [str(workdirs / "lm"), "--prompt", "def f", "--length", "40", "--temperature", "0"]) == 0
    assert "(x):\n    return x\n" in capsys.readouterr().out


def test_a_text_is_coloured(workdirs, capsys):
    page = workdirs / "page.html"
    assert run(generate.main, [str(workdirs / "tagger"), "--prompt", "the cat runs", "--out", str(page)]) == 0
    assert "the cat runs" in capsys.readouterr().out
    assert '<span class="t1">cat' in page.read_text()


@pytest.mark.parametrize(
    ("run_name", "arguments", "message"),
    [
        ("lm", ["--prompt", "dé"], "prompt: 'é' is not among the"),
        ("lm", ["--prompt", ""], "--prompt: empty"),
        ("lm", ["--length", "0"], "--length: 0 given"),
        ("lm", ["--num", "100000000"], "--num: 100000000 texts of 1000 characters asked for, at most 10,000,000"),
        ("lm", ["--seed", "4294967294", "--num", "2"], "4294967292 is the largest for 2 texts"),
        ("lm", ["--out", "/nowhere/x.txt"], "--out: /nowhere/x.txt given, but there is no folder /nowhere"),
        ("lm", ["--temperature", "nan"], "--temperature: nan given"),
        ("lm", ["--top-p", "2"], "--top-p: 2 given, a number above 0, at most 1, is needed"),
        ("tagger", ["--file", "/nowhere"], "/nowhere is not a file"),
        ("nothing", [], "holds no run"),
    ],
)
def test_bad_requests(workdirs, capsys, run_name, arguments, message):
    assert run(generate.main, [str(workdirs / run_name), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_stand_in_for_unknown_characters_is_never_written():
    model = zoo.create_model("rnn_lm", num_classes=3, embedding_size=4, hidden_size=4)
    model.head.bias[...] = jnp.array([50.0, 0.0, 0.0])
    stream = characters.characters(nnx.merge(*nnx.split(model)), ("?", "a", "b"), "a")
    assert set(itertools.islice(stream, 20)) <= {"a", "b"}
