"""The tables of docs/recurrent.md, from the result file recurrent-compiled."""

from __future__ import annotations

from typing import Any

from experiments.measuring.tables import Table

Found = dict[str, Any]


def _shape(row: dict[str, Any]) -> str:
    form = "" if row["directions"] == 1 else ", both directions"
    layers = "" if row["layers"] == 1 else f", {row['layers']} layers"
    return f"{row['cell']} {row['batch']}, {row['steps']}, {row['features']} → {row['hidden']}{layers}{form}, {row['dtype']}"


def time(found: Found) -> Table:
    """The model of the time of recurrent layers, forward and forward + backward, beside the launches of XLA's loop."""
    rows = []
    for row in found["shapes"]:
        ours, alone, xla = row["ours"], row["layer_by_layer"], row["xla"]
        both = lambda figures: figures["forward_ms"] + figures["backward_ms"]
        step = "/".join(f"{sum(ours[f'{name}_step_us'].values()):.1f}" for name in ("forward", "backward"))
        rows.append(
            [
                _shape(row),
                f"{alone['steps']:,}",
                f"{ours['steps']:,}",
                step,
                *(f"{figures['forward_ms']:.2f} / {both(figures):.2f}" for figures in (alone, ours)),
                f"{xla['forward_ms']:.1f} / {xla['both_ms']:.1f}",
            ]
        )
    header = ["shape", ">steps by layer", ">wavefront", ">µs per step", ">ms by layer", ">ms wavefront", ">ms XLA's loop"]
    return header, rows


def assumptions(found: Found) -> Table:
    """What that model assumes."""
    rows = [[name.replace("_", " "), f"{row['value']:g}", row["unit"], row["source"]] for name, row in found["assumed"].items()]
    return ["constant", ">value", "unit", "source"], rows


def launches(found: Found) -> Table:
    """What the launches of the benchmarks' shapes take of the device."""
    rows = []
    for row in found["shapes"]:
        for name in ("forward", "backward"):
            taken = row[name]
            cells = [str(taken[key]) for key in ("blocks", "resident_blocks", "threads", "registers", "spilled")]
            kilobytes = f"{taken['shared_memory'] / 1024:.0f}"
            rows.append([_shape(row), name, *cells, kilobytes, ", ".join(taken["instructions"])])
    header = ["shape", "pass", ">blocks", ">resident", ">threads", ">registers", ">spilled", ">shared KB", "matrix instruction"]
    return header, rows


def sizes(found: Found) -> Table:
    """Which sizes one layer may have, and that none of them spills."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found["sizes"]:
        groups.setdefault((row["cell"], row["dtype"]), []).append(row)
    rows = []
    for (cell, dtype), members in groups.items():
        fitting = [row for row in members if "forward" in row]
        passes = [row[name] for row in fitting for name in ("forward", "backward")]
        refused = ", ".join(f"{row['hidden']} × {row['batch']}" for row in members if "forward" not in row)
        spilling = sum(taken["spilled"] > 0 for taken in passes)
        most = max(taken["registers"] for taken in passes)
        rows.append([cell, dtype, str(len(passes)), str(spilling), str(most), refused or "none"])
    header = ["cell", "dtype", ">kernels compiled", ">that spill", ">most registers", "refused, hidden × batch"]
    return header, rows


def unrolled(found: Found) -> Table:
    """XLA's best case: one layer with its loop unrolled."""
    rows = [
        [unroll, *(f"{figures[f'{name}_kernels_per_step']:.1f}" for name in ("forward", "both"))]
        for unroll, figures in found["xla_unrolled"].items()
    ]
    return ["unroll: steps per iteration", ">kernels per step, forward", ">forward + backward"], rows


def loops(found: Found) -> Table:
    """How XLA's two loops are driven."""
    rows = [[options, *map(str, counts.values())] for options, counts in found["xla_loops"].items()]
    return ["command buffers", *(f">{kind}" for kind in next(iter(found["xla_loops"].values())))], rows
