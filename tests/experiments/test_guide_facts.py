"""What the guide says of the H200 in words is what its models compute with."""

from __future__ import annotations

import math
import re

import pytest

from experiments import report
from experiments.guide import topics
from experiments.guide.topic import FIGURES
from experiments.measuring import device_model
from experiments.measuring.result import RESULTS, load
from kernels.batch_norm_act import config
from kernels.runtime import gpus

H200 = device_model.constants("nvidia-h200")


def said(topic: str) -> str:
    return " ".join(topics.load(topic).text.split())


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("memory_hierarchy", f"{H200['l2_bytes'] * H200['clock'] / 1e12:.1f} TB/s from its L2"),
        ("memory_hierarchy", f"{H200['l2_latency']:.0f} cycles to the near one"),
        ("memory_hierarchy", f"`L2_SHARE` ({config.L2_SHARE})"),
        ("memory_hierarchy", f"registers ({gpus.LIMITS[9, 0].registers * 4 // 1024} KB per multiprocessor)"),
        ("memory_hierarchy", f"at most {gpus.LIMITS[9, 0].shared_memory // 1024} KB of it shared"),
        ("memory_hierarchy", f"XLA's description says {gpus.GPUS['h200'].l2_cache // 2**20} MB"),
        ("occupancy", f"about {H200['in_flight'] / 1024:.0f} KB reach the {H200['read_memory'] / 1e12:.2f} TB/s"),
        ("occupancy", f"per multiprocessor read {2**14 * H200['read_memory'] / H200['in_flight'] / 1e12:.2f} TB/s"),
        ("launches", f"{1e6 * H200['launch']:.1f} us each"),
        ("launches", f"{1e6 * H200['graph_launch']:.1f} us"),
        ("precision", f"{H200['float32'] / 1e12:.0f} Tflop/s"),
        ("precision", f"({H200['bfloat16'] / 1e12:.0f})"),
        ("transfer_overlap", f"{H200['link'] / 1e9:.0f} GB a second each way on paper"),
    ],
)
def test_the_text_says_what_the_model_takes(topic: str, words: str) -> None:
    assert words in said(topic)


def test_the_constants_follow_from_what_was_published() -> None:
    """Read on 2026-11-28 in te42kyfo/gpu-benches: gpu-stream/h200.txt and gpu-small-kernels/h200.txt and h200_graph.txt."""
    in_flight, rate = 2 * 1024 * 8, 2.756e12  # two blocks of 1,024 threads with a float64 each
    assert H200["in_flight"] == pytest.approx(in_flight * H200["read_memory"] / rate, rel=0.01)
    small = 4096 * 2 * 8  # bytes that a kernel reads and writes: a float64 each
    assert small / H200["launch"] / 1e9 == pytest.approx(26.5, rel=0.05)  # 26 or 27 GB/s, by block size
    assert small / H200["graph_launch"] / 1e9 == pytest.approx(50, rel=0.05)  # 48 to 52
    assert 461 <= H200["l2_far_latency"] <= 478
    assert H200["memory"] < H200["read_memory"] < gpus.GPUS["h200"].bandwidth
    assert pytest.approx(H200["memory"] / gpus.GPUS["h200"].bandwidth, rel=0.001) == device_model.MEMORY_SHARE
    for name in ("h100", "h200"):
        assert device_model.constants(gpus.GPUS[name].kind)["clock"] == 1.98e9
    assert device_model.constants(gpus.GPUS["h100-pcie"].kind)["clock"] == 1.755e9


def test_the_l2_of_an_h200_and_of_an_h100_as_published() -> None:
    """Read on 2026-11-29 in te42kyfo/gpu-benches, gpu-l2-cache/h200.txt and h100_pcie.txt: kB of the data set, GB/s read."""
    h200 = {33_792: 9628.8, 48_128: 7542.5, 52_736: 6467.1, 57_856: 5053.8, 63_488: 4463.9, 110_080: 3892.8}
    h100 = {25_088: 6862.5, 36_352: 6473.0, 39_936: 3343.6, 43_904: 2516.3, 48_256: 2076.0, 77_440: 1974.0}
    assert min(h200, key=lambda size: abs(h200[size] - 9700 / 2)) == 57_856
    assert min(h100, key=lambda size: abs(h100[size] - 6900 / 2)) == 39_936
    text = said("memory_hierarchy")
    assert "9.7 TB/s from its L2 and 3.9 TB/s from memory" in text
    assert "about 58 MB" in text
    assert "6.9 TB/s, half of that at 40 MB, the rate of its memory from 48 MB on" in text


def test_images_are_sent_as_bytes() -> None:
    """256 images of 224 x 224 x 3 bytes over the link, against the figures that the page shows."""
    (row,) = (row for row in load("guide", "nvidia-h200")["topics"] if row["topic"] == "transfer_overlap")
    figures = row["cases"][0]["variants"]["after the step"]["compiled"]
    assert figures["transfer_ms"] == pytest.approx(1e3 * 256 * 224 * 224 * 3 / H200["link"], rel=1e-3)
    assert f"{figures['transfer_ms']:.2f}" == "0.60"


def test_every_constant_names_a_source_or_says_that_it_is_assumed() -> None:
    for constant in device_model.MODELS["nvidia-h200"].values():
        assert len(constant.source) > 20
        assert "not checked" not in constant.source


def test_registers_are_larger_than_shared_memory() -> None:
    limits = gpus.LIMITS[9, 0]
    assert 4 * limits.registers > limits.shared_memory
    assert math.isclose(132 * 4 * limits.registers / 1e6, 34, rel_tol=0.03)  # MB, as the text has it


def test_the_comparison_says_what_its_files_were_computed_with() -> None:
    """The pages read these from the files, so that a file of older constants is not described by newer ones."""
    text = (RESULTS.parents[1] / "docs" / "comparison.md").read_text()
    for name in ("compiled-operators", "compiled-models"):
        model = load(name, "nvidia-h200")["model"]
        assert re.search(rf"`{name}.json`: .*{model['bytes_per_second'] / 1e12:g} TB/s", text)
    assert "4.3 TB/s" not in (report.ROOT / "docs" / "guide.md").read_text()


def test_figures_name_how_they_were_obtained() -> None:
    assert {figure.how for figure in FIGURES.values()} == {"compiled", "executed", "modelled"}
    assert FIGURES["modelled_ms"].how == "modelled"
