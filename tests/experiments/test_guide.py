"""The guide's command, its result file, its verdicts and its page."""

from __future__ import annotations

import copy
import io
import json
import pathlib
from typing import Any

import jax
import pytest
from rich.console import Console

from experiments import report
from experiments.errors import UserError, run
from experiments.guide import __main__ as command
from experiments.guide import pictures, session, show, tables, topics, verdict
from experiments.measuring import result
from kernels.runtime import gpus
from kernels.verification import aot

TOPICS = [
    "threads",
    "memory_hierarchy",
    "coalescing",
    "bank_conflicts",
    "constant_memory",
    "occupancy",
    "registers",
    "fusion",
    "block_size",
    "divergence",
    "unrolling",
    "launches",
    "asynchronous_execution",
    "transfer_overlap",
    "memory_use",
    "precision",
]


def case(
    before: float, after: float, *, more: bool = False, times: tuple[float, float] | None = None, noise: float = 0.01
) -> dict:
    clock = lambda t: {"error": 0.0, "median": t, "p20": t * (1 - noise), "p80": t * (1 + noise), "calls": 1} | {
        "kernel_seconds": None, "floor_fraction": None}  # fmt: skip
    variant = lambda figure, t: {"compiled": {"figure": figure}, "measured": None if t is None else clock(t), "failed": None}
    found = {
        "name": "a case",
        "kind": "kernel",
        "dtype": "float32",
        "size": [3],
        "baseline": "bad",
        "better": "good",
        "figure": "figure",
        "unit": "sectors",
        "more": more,
        "floor_seconds": None,
        "variants": {"bad": variant(before, times and times[0]), "good": variant(after, times and times[1])},
    }
    return found | {"verdicts": verdict.of(found)}


@pytest.mark.parametrize(
    ("before", "after", "more", "sentence"),
    [
        (8, 2, False, "pays: 4 times fewer sectors (8 to 2)"),
        (2, 8, False, "does not pay here: 4 times as many sectors (2 to 8)"),
        (2, 8, True, "pays: 4 times as many sectors (2 to 8)"),
        (8, 2, True, "does not pay here: 4 times fewer sectors (8 to 2)"),
        (100, 101, False, "makes no difference here: 101 sectors instead of 100"),
        (5, 5, True, "makes no difference here: 5 sectors either way"),
        (7, 0, False, "pays: 0 sectors instead of 7"),
        (0, 7, False, "does not pay here: 7 sectors instead of 0"),
        (0, 7, True, "pays: 7 sectors instead of 0"),
        (0, 0, False, "makes no difference here: 0 sectors either way"),
    ],
)
def test_verdicts_follow_from_counts(before: float, after: float, more: bool, sentence: str) -> None:
    assert case(before, after, more=more)["verdicts"] == {"compiled": sentence, "measured": None}


@pytest.mark.parametrize(
    ("times", "noise", "sentence"),
    [
        ((0.004, 0.001), 0.01, "pays: 4 times as fast (4 to 1 ms)"),
        ((0.001, 0.004), 0.01, "does not pay here: 4 times as slow (1 to 4 ms)"),
        ((0.0012, 0.001), 0.2, "makes no difference beyond the noise (1.2 to 1 ms)"),
        ((0.00103, 0.001), 0.001, "makes no difference above 5% (1.03 to 1 ms)"),
    ],
)
def test_verdicts_follow_from_times(times: tuple[float, float], noise: float, sentence: str) -> None:
    assert case(8, 2, times=times, noise=noise)["verdicts"]["measured"] == sentence


@pytest.mark.parametrize(
    ("figure", "unit", "before", "after", "sentence"),
    [
        ("modelled_ms", "ms", 4, 2, "pays: 2 times as fast under the time model (4 to 2 ms)"),
        ("modelled_ms", "ms", 2, 4, "does not pay here: 2 times as slow under the time model (2 to 4 ms)"),
        ("modelled_ms", "ms", 2, 2.01, "makes no difference here: 2.01 ms under the time model instead of 2"),
        ("barriers", "barriers per block", 0, 1, "does not pay here: 1 barrier per block instead of 0"),
        ("loads", "load instructions", 1, 1, "makes no difference here: 1 load instruction either way"),
        ("constant_passes", "passes of a warp", 1, 1, "makes no difference here: 1 pass of a warp either way"),
        ("spilled_bytes", "bytes spilled per thread", 2e4, 0, "pays: 0 bytes spilled per thread instead of 20 KB"),
        ("read_share", "of the read bandwidth", 0.25, 1, "pays: 4 times the read bandwidth (25% to 100%)"),
        ("relative_error", "of relative error", 0.1, 0.4, "does not pay here: 4 times the relative error (0.1 to 0.4)"),
        ("read_share", "of the read bandwidth", 1, 1, "makes no difference here: 100% of the read bandwidth either way"),
    ],
)
def test_verdicts_name_their_unit(figure: str, unit: str, before: float, after: float, sentence: str) -> None:
    found = case(before, after, more=figure == "read_share") | {"figure": figure, "unit": unit}
    for variant in found["variants"].values():
        variant["compiled"] = {figure: next(iter(variant["compiled"].values()))}
    assert verdict.counted(found) == sentence


def test_a_variant_that_beats_both_is_named() -> None:
    found = case(8, 2, times=(0.004, 0.002))
    found["variants"]["third"] = copy.deepcopy(found["variants"]["good"])
    found["variants"]["third"]["measured"] |= {"median": 0.001, "p20": 0.0009, "p80": 0.0011}
    assert verdict.timed(found) == "pays: 2 times as fast (4 to 2 ms); fastest: third"
    found["variants"]["third"]["measured"]["p80"] = 0.003  # within the noise
    assert verdict.timed(found) == "pays: 2 times as fast (4 to 2 ms)"


def test_bytes_are_shown_in_units() -> None:
    assert [verdict.shown("sent_bytes", value) for value in (500, 2e4, 3e6, 17_179_869_184)] == [
        "500",
        "20 KB",
        "3 MB",
        "17.2 GB",
    ]
    assert verdict.shown("kernels", 12304) == "12,304"


def test_list_prints_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.main, ["list"]) == 0
    out = capsys.readouterr().out
    assert list(topics.NAMES) == TOPICS
    assert all(name in out for name in TOPICS)
    assert "one field of sixteen: pays: 4.5 times fewer sector bytes per byte used (4.5 to 1) (executed)" in " ".join(
        out.split()
    )


def test_every_topic_names_its_sources_and_a_file_of_this_repository() -> None:
    for name in TOPICS:
        topic = topics.load(name.replace("_", "-"))
        assert topic.name == name
        assert "Sources:" in topic.text
        assert len(topic.cases) >= 2
        assert all((report.ROOT / path).exists() for path in topic.kernel.split("`")[1::2] if "/" in path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["colaescing"], "topic: 'colaescing' given, it is one of threads, memory_hierarchy, coalescing, "),
        (["fusion", "--device", "h300"], "--device: 'h300' is not known; did you mean h200"),
        (["fusion", "--minutes", "0"], "--minutes: 0 given, a number above 0 is needed"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.main, arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_topic_from_the_command_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["transfer-overlap", "--device", "h200", "--quick", "--out", str(tmp_path)]
    assert run(command.main, arguments) == 0
    out = capsys.readouterr().out
    assert "PCIe" in out
    assert "pays:" in out
    path = tmp_path / "nvidia-h200" / "guide.json"
    found = verdict.read(path)
    assert found["measured"] is False
    assert [topic["topic"] for topic in found["topics"]] == ["transfer_overlap"]
    assert (path.parent / "transfer_overlap.png").stat().st_size > 5_000
    options, before = session.Options("nvidia-h200", measured=False, quick=True), path.read_bytes()
    again = command.completed(("transfer_overlap",), options, path, Console(), None)
    assert not again.done, "the file holds it, of the same sources"
    assert path.read_bytes() == before
    assert command.completed(("transfer_overlap",), options, path, Console(), None, anew=True).done == ["transfer_overlap"]
    measured = json.dumps(found | {"measured": True, "how": "measured"})
    path.write_text(measured)
    assert run(command.main, arguments) == 2
    assert "is not written over by what is only compiled" in capsys.readouterr().err
    assert path.read_text() == measured


def test_stored_figures_of_both_devices_side_by_side(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(session, "run_case", None)  # nothing is run
    monkeypatch.setenv("COLUMNS", "200")
    assert run(command.main, ["unrolling", "--stored", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("Several iterations of a loop at once") == 1, "the lesson once"
    table = out[out.index("lax.scan over 128 steps, XLA") :]
    head = next(line for line in table.splitlines() if "kernels" in line)
    assert "modelled ms" in head
    assert "median ms" in head
    assert "compiled for nvidia-h200, float32, 128 x 32 x 128" in table
    assert "measured on 2 cores" in table
    assert "Exercise: " in out
    assert (tmp_path / "nvidia-h200" / "unrolling.png").stat().st_size > 5_000
    assert run(command.main, ["all", "--stored"]) == 2
    assert "--stored: is for one topic, all given" in capsys.readouterr().err


def test_no_head_and_no_number_is_cut_in_80_columns() -> None:
    records = [verdict.read(result.RESULTS / device / "guide.json") for device in ("nvidia-h200", "cpu")]
    for name in TOPICS:
        found = [(rows[name], record) for record in records if name in (rows := tables.rows_of(record))]
        out = io.StringIO()
        show.show(topics.load(name), found, Console(file=out, width=80))
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) <= 80, name
        assert "…" not in out.getvalue(), name
        words = {word for line in lines for word in line.split()}
        for row, _ in found:
            for case in row["cases"]:
                heads, rows = show.cells(case)
                for text in (*heads[1:], *(cell for row in rows for cell in row)):
                    assert set(text.lstrip(">").split()) <= words, (name, case["name"], text)


def test_the_size_shown_is_that_which_was_compiled_for() -> None:
    record = verdict.read(result.RESULTS / "nvidia-h200" / "guide.json")
    topic = topics.load("precision")
    out = io.StringIO()
    show.show(topic, [(tables.rows_of(record)["precision"], record)], Console(file=out, width=80))
    size = " x ".join(map(str, topic.cases[0].sizes["compile"]))
    assert f"compiled for nvidia-h200, bfloat16, {size}\n" in out.getvalue()


def test_a_case_that_only_a_clock_decides_is_named() -> None:
    record, out = verdict.read(result.RESULTS / "nvidia-h200" / "guide.json"), io.StringIO()
    show.show(topics.load("memory_use"), [(tables.rows_of(record)["memory_use"], record)], Console(file=out, width=80))
    assert "from pinned memory: only timing on a GPU can tell." in out.getvalue()
    assert out.getvalue().count("only timing on a GPU") == 1


def test_a_program_is_timed_with_the_options_that_it_is_counted_with(monkeypatch: pytest.MonkeyPatch) -> None:
    one, seen = topics.load("launches").cases[0], []
    monkeypatch.setattr(jax, "jit", lambda call, *, compiler_options=None: seen.append(compiler_options))
    for variant in one.variants:
        session.contender(one, variant)
    assert seen == [{"xla_gpu_enable_command_buffer": ""}, None]
    assert not one.runnable("cpu"), "which has no graphs"


def test_every_topic_has_a_picture_and_an_exercise_whose_answer_runs() -> None:
    for name in TOPICS:
        topic = topics.load(name)
        assert topic.picture is not None, name
        assert topic.exercise.endswith("?"), name
        assert topic.answer is not None, name
        assert topic.answer().endswith("."), name


def test_a_case_measured_on_this_cpu(tmp_path: pathlib.Path) -> None:
    options = session.Options("cpu", measured=True, quick=True)
    (one,) = (c for c in topics.load("transfer_overlap").cases if c.name == "bytes in place of floats")
    row = session.run_case(one, options)
    assert row is not None
    for variant in row["variants"].values():
        assert variant["failed"] is variant["compiled"] is None
        assert variant["measured"]["error"] < 1e-4
        assert 0 < variant["measured"]["p20"] <= variant["measured"]["median"] <= variant["measured"]["p80"]
    assert verdict.of(row)["measured"] is not None
    assert session.run_case(topics.load("coalescing").cases[0], options) is None  # a kernel is no matter for a CPU


@pytest.mark.parametrize(
    ("topic", "name"), [("coalescing", "one field of sixteen"), ("memory_hierarchy", "tiles of a product")]
)
def test_a_run_on_a_gpu_but_for_the_clock(topic: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be timed there compiles for it, at the size of the run, and the row says what a measured row says."""
    (one,) = (c for c in topics.load(topic).cases if c.name == name)

    def clock(made: dict, draw: Any, reference: list, tolerance: float, **options: Any) -> dict:
        assert options["platform"] == "cuda"
        assert [x.shape for x in reference] == [(2**21,)] if topic == "coalescing" else [(64, 64)]
        for make in made.values():
            hlo = aot.compile_for("nvidia-h200", make().call, *one.shapes(one.sizes["cuda"])).as_text()
            assert "triton_kernel_call" in hlo
        return {n: case(8, 2, times=(0.004, 0.001))["variants"]["good"]["measured"] for n in made}

    monkeypatch.setattr(session, "measure", clock)
    monkeypatch.setattr(session.machine, "ceilings", lambda dtype: {"bytes_per_second": 4e12, "flops_per_second": 5e14})
    if topic == "memory_hierarchy":  # a smaller reference than 4096 wide
        monkeypatch.setitem(one.sizes, "cuda", (64, 32, 64))  # type: ignore[arg-type]
    row = session.run_case(one, session.Options("nvidia-h200", measured=True, quick=True))
    assert row is not None
    assert row["floor_seconds"] > 0
    for variant in row["variants"].values():
        assert variant["failed"] is None
        assert variant["compiled"]["registers"] > 0
        assert variant["measured"]["floor_fraction"] == row["floor_seconds"] / 0.001
    assert verdict.of(row)["measured"] is not None


def whole() -> dict[str, Any]:
    return verdict.read(result.RESULTS / "nvidia-h200" / "guide.json")


@pytest.mark.parametrize("device", ["nvidia-h200", "cpu"])
def test_result_files(device: str) -> None:
    path = result.RESULTS / device / "guide.json"
    found = verdict.read(path)
    assert json.loads(path.read_text()) == found, "verdicts: python -m experiments.guide all words them anew"
    rows = {topic["topic"]: topic for topic in found["topics"]}
    if device == "cpu":  # what nobody has measured yet is not there
        assert found["measured"]
        assert list(rows) == [name for name in TOPICS if name in rows]
        return
    assert list(rows) == TOPICS
    for name, row in rows.items():
        sentences = [sentence for one in row["cases"] for sentence in one["verdicts"].values() if sentence]
        assert any(sentence.startswith("pays") for sentence in sentences), name
        assert not all(sentence.startswith("pays") for sentence in sentences), f"{name}: where does it not pay?"
        for one in row["cases"]:
            for variant in one["variants"].values():
                assert variant["failed"] is None
                assert not variant["compiled"] or variant["compiled"].get("registers", 1) <= 255
    every = [verdict.gain(one, "compiled") for row in rows.values() for one in row["cases"]]
    assert {verdict.judged(gain) for gain in every if gain is not None} == {
        "pays",
        "does not pay here",
        "makes no difference here",
    }


def test_what_does_not_fit_the_schema_is_refused(tmp_path: pathlib.Path) -> None:
    def broken(change: Any) -> dict[str, Any]:
        found = copy.deepcopy(whole())
        change(found, found["topics"][0]["cases"][0])
        return found

    variant = lambda one: next(iter(one["variants"].values()))
    for change, message in (
        (lambda found, one: found.pop("device"), "device is missing"),
        (lambda found, one: one.update(extra=1), "extra is not one of"),
        (lambda found, one: one.update(better=3), "better is 3, str is needed"),
        (lambda found, one: variant(one)["compiled"].update(registers="many"), "registers is 'many', int or float is needed"),
    ):
        with pytest.raises(UserError, match=message):
            result.check(broken(change))
    path = tmp_path / "guide.json"
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        verdict.read(path)
    with pytest.raises(UserError, match="does not exist"):
        verdict.read(tmp_path / "none.json")


def test_a_time_in_a_file_that_was_not_measured_is_refused() -> None:
    found = whole() | {"measured": False, "how": "compiled"}
    timed = case(8, 2, times=(0.004, 0.001))
    found["topics"][0]["cases"].append(timed)
    with pytest.raises(UserError, match="a time in a file that says it was not measured"):
        result.check(found)


def test_tables_show_losses_like_wins() -> None:
    found = {
        "measured": False,
        "how": "compiled",
        "device": "nvidia-h200",
        "topics": [{"topic": "fusion", "cases": [case(8, 2), case(2, 8) | {"name": "a loss"}]}],
    }
    _, rows = tables.overview([topics.load("fusion")], found, None)
    assert rows[0][2:] == ["a case: 4.00", "a loss: 0.25", ""]
    heads, lines = show.cells(case(8, 2, times=(0.004, 0.001)))
    assert heads == ["a case", ">median ms", ">p20 to p80", ">of the floor"]
    assert lines == [["bad", "4", "3.96 to 4.04", ""], ["good", "1", "0.99 to 1.01", ""]]


def test_the_picture_is_pale_where_the_verdict_sees_no_difference() -> None:
    cases = [case(8, 2, times=times, noise=noise) for times, noise in (((4, 1), 0.01), ((1, 4), 0.01), ((1, 1.3), 0.2))]
    drawn = pictures.gains_of({"topics": [{"topic": "fusion", "cases": cases}]}, "measured")
    assert [colour for *_, colour in drawn] == [pictures.BETTER, pictures.WORSE, pictures.PALE]


def test_the_picture_was_drawn_from_the_file() -> None:
    assert not {path.name for path in report.stale_pictures()} & {"guide.png"}


def test_the_guide_compiles_for_what_it_names() -> None:
    assert all(gpus.is_known(kind) for kind in set(command.KNOWN.values()) - {"cpu"})
