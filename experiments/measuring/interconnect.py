"""Models the time of collectives between hosts of eight GPUs, and from which batch on a training step scales.

Every figure here is modelled: computed by the formulas below from counts in compiled programs, not measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from experiments.measuring.collectives import Collective
from experiments.measuring.device_model import Constant

PER_HOST = 8  # GPUs
CONSTANTS = {
    "nvlink": Constant(450e9, "bytes a second", "one way; 900 GB/s both ways: NVIDIA H200 data sheet"),
    "network": Constant(50e9, "bytes a second", "one way: 400 Gb/s for each GPU, as ConnectX-7 has on paper"),
    "inside_latency": Constant(10e-6, "seconds", "assumed: a small collective among the GPUs of a host"),
    "hop_latency": Constant(5e-6, "seconds", "assumed: a hop between hosts; a tree has log2(hosts) of them, each way"),
}
SCALES = 0.9  # share of the throughput of as many single devices


def seconds(collective: Collective) -> float:
    """The time of one collective: within each host over NVLink, then each GPU with its like in the other hosts.

    Of an array of B bytes, g devices of the group in a host and h hosts, one pass (all-gather, reduce-scatter) takes
    (g - 1) / g B / nvlink + (h - 1) / h B / g / network + inside_latency + log2(h) hop_latency; an all-reduce takes two, with
    one inside_latency.
    """
    inside, network = CONSTANTS["nvlink"].value, CONSTANTS["network"].value
    hosts, here = collective.hosts, max(1, collective.devices // collective.hosts)
    one = (here - 1) / here * collective.bytes / inside + (hosts - 1) / hosts * collective.bytes / here / network
    hops = math.log2(hosts) * CONSTANTS["hop_latency"].value
    passes = 2 if collective.kind == "all-reduce" else 1
    return passes * (one + hops) + CONSTANTS["inside_latency"].value


def sent(collective: Collective) -> float:
    """Bytes that each device sends at least: (n - 1) / n of the array, twice in an all-reduce."""
    passes = 2 if collective.kind == "all-reduce" else 1
    return passes * (collective.devices - 1) / collective.devices * collective.bytes


def exposed(collectives: Sequence[Collective], *, overlap: bool) -> float:
    """Seconds of a step in which devices wait for collectives: all of them one after the other, or, of each, what its
    independent kernels are too short to hide."""
    return sum(c.times * max(0.0, seconds(c) - (c.free_seconds if overlap else 0.0)) for c in collectives)


def smallest_batch(compute: float, fixed: float, batch: int, waits: float) -> int:
    """The smallest batch of a device from which on a step has `SCALES` of the throughput of as many single devices.

    Args:
      compute: modelled seconds of the kernels of a step of `batch` examples on each device.
      fixed: those of them that another batch does not change: launches, and the optimizer.
      waits: seconds for the collectives, whatever the batch.
    """
    needed = waits * SCALES / (1 - SCALES)
    return max(1, math.ceil(batch * (needed - fixed) / (compute - fixed))) if needed > fixed else 1


def model(collectives: Sequence[Collective], compute: float, fixed: float, batch: int) -> dict[str, Any]:
    """The modelled part of a record: seconds, share of the throughput, smallest batch; "overlapped" with all that can be."""
    found: dict[str, Any] = {"compute_seconds": compute, "fixed_seconds": fixed}
    for name, overlap in (("in_a_row", False), ("overlapped", True)):
        waits = exposed(collectives, overlap=overlap)
        smallest = smallest_batch(compute, fixed, batch, waits)
        found[name] = {"waits_seconds": waits, "efficiency": compute / (compute + waits), "smallest_batch": smallest}
    return found
