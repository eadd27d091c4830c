"""Training steps on many devices, as compiled, and modelled from that."""

from __future__ import annotations

from typing import Any

from experiments.measuring.tables import Table

Found = dict[str, Any]


def table(records: list[Found]) -> Table:
    """Header and rows: a row for each model, number of devices and layout of the state."""
    header = ["model, examples per device", ">devices", "state", ">state, MB", ">memory, GB", ">collectives", ">sent, MB"]
    header += [">beside kernels", ">independent", ">efficiency", ">overlapped"]
    rows = []
    for record in records:
        for layout, found in record["layouts"].items():
            total = lambda name, found=found: sum(row[name] for row in found["collectives"])
            share = lambda name, total=total: f"{total(name) / max(1, total('bytes')):.0%}"
            row = [f"`{record['model']}`, {record['batch_per_device']}", str(record["devices"]), layout]
            row += [f"{found['state_bytes'] / 1e6:,.1f}", f"{found['memory_bytes'] / 1e9:.2f}", str(total("count"))]
            row += [f"{total('sent_bytes') / 1e6:.1f}", share("beside_bytes"), share("free_bytes")]
            rows.append([*row, *(f"{found['model'][name]['efficiency']:.1%}" for name in ("in_a_row", "overlapped"))])
    return header, rows


def scaling(records: list[Found]) -> Table:
    """Header and rows: from which batch of a device on a step has 90 % of the throughput of as many single devices."""
    header = ["model", ">devices", "state", ">kernels, ms", ">waits, ms", ">overlapped, ms", ">90 % from", ">overlapped"]
    rows = []
    for record in records:
        for layout, found in record["layouts"].items():
            both = [found["model"][name] for name in ("in_a_row", "overlapped")]
            row = [f"`{record['model']}`", str(record["devices"]), layout, f"{found['model']['compute_seconds'] * 1e3:.1f}"]
            row += [f"{one['waits_seconds'] * 1e3:.2f}" for one in both]
            rows.append([*row, *(f"{one['smallest_batch']:,}" for one in both)])
    return header, rows
