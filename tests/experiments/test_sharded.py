"""A step compiled for many devices: groups, sizes and dependencies read off HLO, the model's formulas, the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from experiments import inspect, report
from experiments.errors import run
from experiments.measuring import collectives, device_model, interconnect, result
from experiments.measuring.collectives import Collective
from experiments.pages import sharded as page

# Two hosts of two devices. The first all-reduce is of what the second kernel made, and the third needs its result; the fourth
# needs nothing of it, nor does it of the fourth. A loop gathers weights in each of five turns.
HLO = """
HloModule step, is_scheduled=true

%body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %p = (s32[], f32[64]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %w = f32[64]{0} get-tuple-element(%p), index=1
  %part = f32[32]{0} fusion(%w), kind=kLoop, calls=%fused
  %all-gather-start = (f32[32]{0}, f32[64]{0}) all-gather-start(%part), replica_groups=[2,2]<=[4], dimensions={0}
  %all-gather-done = f32[64]{0} all-gather-done(%all-gather-start)
  ROOT %next = (s32[], f32[64]{0}) tuple(%i, %all-gather-done)
}

%condition (q: (s32[], f32[64])) -> pred[] {
  %q = (s32[], f32[64]{0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (a: f32[1000000], b: f32[64]) -> (f32[1000000], f32[64]) {
  %a = f32[1000000]{0} parameter(0)
  %b = f32[64]{0} parameter(1)
  %first = f32[1000000]{0} fusion(%a), kind=kLoop, calls=%fused.1
  %second = f32[250]{0} fusion(%first), kind=kLoop, calls=%fused.2
  %all-reduce-start = f32[250]{0} all-reduce-start(%second), replica_groups={{0,1,2,3}}, to_apply=%add
  %fourth = f32[1000000]{0} fusion(%first), kind=kLoop, calls=%fused.3
  %all-reduce-done = f32[250]{0} all-reduce-done(%all-reduce-start)
  %third = f32[1000000]{0} fusion(%first, %all-reduce-done), kind=kLoop, calls=%fused.4
  %reduce-scatter = f32[500000]{0} reduce-scatter(%third), replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}, to_apply=%add
  %tuple = (s32[], f32[64]{0}) tuple(%b, %b)
  %while = (s32[], f32[64]{0}) while(%tuple), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %end = f32[64]{0} get-tuple-element(%while), index=1
  ROOT %result = (f32[1000000]{0}, f32[64]{0}) tuple(%fourth, %end)
}
"""
H200 = "nvidia-h200"


def test_collectives_of_a_program() -> None:
    found, seconds, launches = collectives.collectives_of(HLO, H200, "bfloat16", 2, 4)
    rate, launch = (device_model.constants(H200)[name] for name in ("memory", "launch"))
    kernel = lambda moved: moved / rate + launch
    megabytes, loop = kernel(8e6), 5 * kernel((64 + 32) * 4)
    reduced, scattered, gathered = found
    assert (reduced.kind, reduced.bytes, reduced.devices, reduced.hosts, reduced.times) == ("all-reduce", 1000, 4, 2, 1)
    assert reduced.beside == 1
    # Beside the fourth kernel the loop, which needs nothing of the rest.
    assert reduced.free_seconds == pytest.approx(megabytes + loop)
    # Its groups are the first devices of both hosts and the second ones; its operand is twice its result; it is synchronous.
    assert (scattered.kind, scattered.bytes, scattered.devices, scattered.hosts) == ("reduce-scatter", 4_000_000, 2, 2)
    assert scattered.beside == 0
    assert (gathered.kind, gathered.bytes, gathered.devices, gathered.hosts, gathered.times) == ("all-gather", 256, 2, 1, 5)
    assert gathered.free_seconds == 0
    assert launches == pytest.approx(9 * launch)
    assert seconds == pytest.approx(2 * megabytes + kernel(4e6 + 1000) + kernel(8e6 + 1000) + loop)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replica_groups={{0,8},{1,9}}", (2, 2)),
        ("replica_groups={}, to_apply", (64, 8)),
        ("replica_groups=[8,8]<=[64]", (8, 1)),
        ("replica_groups=[8,8]<=[8,8]T(1,0)", (8, 8)),
        ("replica_groups=mesh['axis_0'=64,'axis_1'=1] {'axis_0'}", (64, 8)),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=8] {'axis_1'}", (8, 1)),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=8] {'axis_0'}", (8, 8)),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=1,'axis_2'=8], device_ids=([8,8]T(1,0)) {'axis_0'}", (8, 1)),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=1,'axis_2'=8], device_ids=([8,8]T(1,0)) {'axis_2'}", (8, 8)),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=8] {'axis_0','axis_1'}", (64, 8)),
    ],
)
def test_groups(text: str, expected: tuple[int, int]) -> None:
    assert collectives.group_of(text, 8, 64) == expected


def test_groups_of_another_form_are_no_guess() -> None:
    for text in ("replica_groups=mesh['axis_0'=64] {'axis_0':(1)8}", "channel_id=3"):
        with pytest.raises(ValueError, match="replica groups: "):
            collectives.group_of(text, 8, 64)


def test_the_time_of_collectives(rng: np.random.Generator) -> None:
    """Beside a ring and a tree counted in their steps: n - 1 steps of an n-th each, in a host and then between hosts."""
    for _ in range(20):
        here, hosts, size = int(rng.integers(1, 9)), int(2 ** rng.integers(0, 8)), int(rng.integers(1, 10**9))
        inside = sum(size / here / 450e9 for _ in range(here - 1))
        outside = sum(size / here / hosts / 50e9 for _ in range(hosts - 1)) + math.log2(hosts) * 5e-6
        one = Collective("all-gather", size, here * hosts, hosts, 1, 0, 0.0)
        assert interconnect.seconds(one) == pytest.approx(inside + outside + 10e-6)
        both = Collective("all-reduce", size, here * hosts, hosts, 1, 0, 0.0)
        assert interconnect.seconds(both) == pytest.approx(2 * (inside + outside) + 10e-6)
        assert interconnect.sent(both) == pytest.approx(2 * size * (here * hosts - 1) / (here * hosts))


def test_the_smallest_batch_that_scales() -> None:
    """3 ms at a batch of 100, 1 ms of them at any, and 0.51 ms of waiting: 4.59 ms of kernels are 90 % of 5.1 ms."""
    batch = interconnect.smallest_batch(3e-3, 1e-3, 100, 0.51e-3)
    share = lambda b: (1e-3 + b * 2e-5) / (1.51e-3 + b * 2e-5)
    assert share(batch) >= 0.9 > share(batch - 1)
    assert interconnect.smallest_batch(3e-3, 1e-3, 100, 1e-4) == 1
    hidden = Collective("all-reduce", 10**6, 8, 1, 3, 0, 1.0)
    found = interconnect.model([hidden], 3e-3, 1e-3, 100)
    assert found["overlapped"] == {"waits_seconds": 0.0, "efficiency": 1.0, "smallest_batch": 1}
    assert found["in_a_row"]["waits_seconds"] == pytest.approx(3 * interconnect.seconds(hidden))


def test_lenet5_on_eight_devices(tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(inspect.main, ["lenet5", "--devices", "8", "--batch-size", "64", "--out", str(tmp_path)]) == 0
    record = result.read(tmp_path / "sharded-lenet5-8.json", "sharded")
    printed = capsys.readouterr().out
    assert record["measured"] is False
    assert "compiled for nvidia-h200 (not measured)" in printed
    assert "modelled" in printed
    assert max(len(line) for line in printed.splitlines() if "tmp" not in line and str(tmp_path) not in line) <= 80
    replicated, sharded = (record["layouts"][layout] for layout in ("replicated", "sharded"))
    # Parameters, two moments of AdamW and its count. Of the 61,706 the 48,000 of one matrix are split in eight.
    assert replicated["state_bytes"] == 3 * 4 * 61_706 + 4
    assert sharded["state_bytes"] == 3 * 4 * (61_706 - 48_000 * 7 // 8) + 4
    assert all(layout["memory_bytes"] > layout["state_bytes"] for layout in (replicated, sharded))
    (reduced,) = replicated["collectives"]
    assert (reduced["kind"], reduced["devices"], reduced["hosts"]) == ("all-reduce", 8, 1)
    # Every gradient once, in bfloat16 or float32, and the loss.
    assert 2 * 61_706 <= reduced["bytes"] <= 4 * 61_706 + 64
    assert reduced["sent_bytes"] == pytest.approx(2 * 7 / 8 * reduced["bytes"], abs=2)
    kinds = {row["kind"]: row for row in sharded["collectives"]}
    assert kinds["reduce-scatter"]["bytes"] in (2 * 48_000, 4 * 48_000)
    assert kinds["all-gather"]["bytes"] >= 2 * 48_000  # forward, and again backward where that is another kernel's operand
    for make in (page.table, page.scaling):
        header, rows = make([record, record | {"devices": 64}])
        assert {len(row) for row in rows} == {len(header)}
        assert [row[1] for row in rows] == ["8", "8", "64", "64"]
    assert json.loads(json.dumps(record)) == record


def test_wrong_devices(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        (["--devices", "1"], "--devices: 1 given, 2 to 1024 is needed"),
        (["--devices", "12"], "--devices: 12 given, 2 to 8 or a multiple of that"),
        (["--devices", "8", "--mode", "infer"], "leave out --mode and --implementation"),
    ):
        assert run(inspect.main, ["lenet5", *flags]) == 2
        assert message in capsys.readouterr().err


def test_the_page_without_files(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert "python -m experiments.inspect resnet50 --devices 8" in report.between_devices()
