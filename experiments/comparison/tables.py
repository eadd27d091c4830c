"""Tables of who won the comparison, measured or compiled, by how much and why."""

from __future__ import annotations

from typing import Any

from experiments.comparison import conclusions
from experiments.comparison.cases import WHY
from experiments.comparison.contenders import LOOPS
from experiments.measuring import tables, verdict
from experiments.measuring.tables import Table

Found = dict[str, Any]


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


def _won(duels: list[verdict.Duel]) -> str:
    """How many of its cases each side won."""
    counts = {who: sum(d.winner == who for d in duels) for who in ("hand-written", "even", "XLA")}
    return ", ".join(f"{who} {count}" for who, count in counts.items() if count) + f" of {len(duels)}"


def operators(record: Found) -> Table:
    """Header and rows: an operator a row, over all its cases, and why."""
    groups: dict[str, list[verdict.Duel]] = {case["operator"]: [] for case in record["cases"]}
    for duel in verdict.duels(record):
        groups[duel.case["operator"]].append(duel)
    rows = []
    for operator, duels in groups.items():
        cells = ["", "", "XLA (no hand-written kernel)"]
        if duels:
            counted = "" if record["measured"] else _range([d.ratio("bytes") for d in duels])
            cells = [counted, _range([d.ratio() for d in duels]), _won(duels)]
        rows.append([f"`{operator}`", *cells, WHY[operator]])
    how, clock = ("measured", "measured") if record["measured"] else ("compiled", "compiled, time model")
    return ["operator", f">bytes, XLA / ours ({how})", f">speedup ({clock})", "faster", "why"], rows


def _size(count: float) -> str:
    """A count of bytes in GB."""
    return f"{count / 1e9:.3g}"


def compiled_cases(record: Found) -> Table:
    """Header and rows: each compiled case, the best of XLA's forms and the best hand-written contender under the time model."""
    rows = []
    for duel in verdict.duels(record):
        sides = (duel.xla, duel.hand)
        form = "" if duel.xla_name == "xla" else f" ({duel.xla_name.removeprefix('xla ')})"
        ours = "" if duel.hand_name in ("triton", "zoo") else f" ({duel.hand_name})"
        cells = [verdict.full_name(duel.case), f"{duel.xla['kernels']:,}{form}", f"{duel.hand['kernels']:,}{ours}"]
        cells += [_size(side["bytes"]) for side in sides] + [f"{duel.ratio('bytes'):.2f}"]
        cells += [f"{side['modelled_seconds'] * 1e3:.3g}" for side in sides] + [f"{duel.ratio():.2f}", duel.winner]
        rows.append(cells)
    header = [
        "compiled, not run",
        ">kernels, XLA",
        ">ours",
        ">GB, XLA",
        ">ours",
        ">ratio",
        ">modelled ms, XLA",
        ">ours",
        ">speedup",
    ]
    return [*header, "faster under the time model"], rows


def folded(record: Found) -> Table:
    """Header and rows: XLA's code for inference with batch norm as it is and folded, for each model that has both."""
    ending, by_name = ", batch norm folded", {case["name"]: case for case in record["cases"]}
    rows = []
    for name, case in by_name.items():
        if name.endswith(ending):
            both = [found["contenders"]["xla"] for found in (by_name[name.removesuffix(ending)], case)]
            cells = [f"{figures['kernels']:,}" for figures in both] + [_size(figures["bytes"]) for figures in both]
            cells += [f"{figures['modelled_seconds'] * 1e3:.3g}" for figures in both]
            rows.append([name.removesuffix(ending), *cells])
    header = [">kernels", ">folded", ">GB", ">folded", ">modelled ms", ">folded"]
    return ["compiled, not run", *header], rows


def floors(record: Found) -> Table:
    """Header and rows: each compiled case of the operators without a loop, beside the bytes that must move."""
    rows = []
    for duel in verdict.duels(record):
        if duel.case["operator"] not in LOOPS:
            kernels = [f"{side['kernels']:,}" for side in (duel.xla, duel.hand)]
            sizes = [_size(count) for count in (duel.xla["bytes"], duel.hand["bytes"], duel.case["bytes"])]
            ours = "" if duel.hand_name == "triton" else f" ({duel.hand_name})"
            rows.append([duel.case["name"], kernels[0], kernels[1] + ours, *sizes])
    return ["compiled, not run", ">kernels, XLA", ">ours", ">GB, XLA", ">ours", ">floor"], rows


def models(record: Found) -> Table:
    """Header and rows: each compiled model, and which kinds of work gain or lose the most bytes."""
    rows = []
    for duel in verdict.duels(record):
        counts = [f"{side['kernels']:,}" for side in (duel.xla, duel.hand)]
        ratios = [f"{duel.ratio('bytes'):.2f}", f"{duel.ratio():.2f}"]
        rows.append([verdict.full_name(duel.case), *counts, *ratios, duel.winner, _where(duel)])
    header = ["compiled, not run", ">kernels, XLA", ">ours", ">bytes, XLA / ours", ">modelled speedup"]
    return [*header, "faster under the time model", "where: GB transferred, XLA to ours"], rows


# The training steps that README shows, one of each kind.
_SHOWN = "alexnet alexnet_original bilstm_tagger gan_mlp googlenet googlenet_original lenet5 lstm_lm resnet50 vgg16"


def _steps(record: Found) -> list[verdict.Duel]:
    """The duels of those training steps."""
    found = {d.case["model"]: d for d in verdict.duels(record) if d.case["train"]}
    return [found[name] for name in _SHOWN.split() if name in found]


def training_steps(record: Found) -> Table:
    """Header and rows: training steps with XLA's code in its best form alone, and with the hand-written kernels."""
    rows = []
    for duel in _steps(record):
        cells = [f"`{duel.case['model']}`", str(duel.case["examples"])]
        cells += [f"{side['kernels']:,}" for side in (duel.xla, duel.hand)]
        cells += [f"{side['bytes'] / 1e9:.1f}" for side in (duel.xla, duel.hand)]
        rows.append([*cells, f"{duel.ratio('bytes'):.2f}"])
    return ["model", ">batch", ">kernels, XLA", ">with ours", ">GB transferred, XLA", ">with ours", ">bytes, XLA / ours"], rows


def outside_convolutions(record: Found) -> Table:
    """Header and rows: the same steps by launches, and by the bytes that no convolution moves."""
    rows = []
    for duel in _steps(record):
        sides = (duel.xla, duel.hand)
        elsewhere = [side["bytes"] - side["kinds"].get("convolution", {"bytes": 0})["bytes"] for side in sides]
        cells = [duel.case["model"], str(duel.case["examples"]), *(f"{side['kernels']:,}" for side in sides)]
        rows.append([*cells, *(f"{count / 1e9:.2f}" for count in elsewhere)])
    header = ["training step", ">batch", ">kernels, XLA", ">with ours", ">GB outside convolutions, XLA"]
    return [*header, ">with ours"], rows


def _where(duel: verdict.Duel) -> str:
    """The two kinds of work whose bytes differ most, if by at least a hundredth of all."""
    moved = lambda side, kind: side["kinds"].get(kind, {"bytes": 0})["bytes"]
    kinds = {*duel.xla["kinds"], *duel.hand["kinds"]}
    changes = sorted(kinds, key=lambda kind: (-abs(moved(duel.xla, kind) - moved(duel.hand, kind)), kind))
    large = [k for k in changes[:2] if abs(moved(duel.xla, k) - moved(duel.hand, k)) > 0.01 * duel.xla["bytes"]]
    return "; ".join(f"{k} {_size(moved(duel.xla, k))} to {_size(moved(duel.hand, k))}" for k in large) or "no difference"


def measured_cases(record: Found) -> Table:
    """Header and rows: each measured case; XLA's best form, the hand-written kernels where they ran, and the peers."""
    duels = {d.case["name"]: d for d in verdict.duels(record)}
    peers = list(dict.fromkeys(name for case in record["cases"] for name in verdict.peers(case)))
    rows = []
    for case in record["cases"]:
        xla, duel = verdict.best(case["contenders"], "median", verdict.is_xla), duels.get(case["name"])
        if xla is None:
            rows.append([case["name"], case["contenders"].get("xla", {}).get("failed", "failed")])
            rows[-1] += [""] * (len(peers) + (2 if duels else 0) + 1)
            continue
        cells = [case["name"], _median(xla[1])]
        if duels:
            cells += [_median(duel.hand), f"{duel.ratio():.2f}"] if duel else ["", ""]
        points = verdict.peers(case)
        cells += [f"{points[name]:.2f}" if name in points else "" for name in peers]
        rows.append([*cells, _fastest(case)])
    ours = [">ours, ms", ">speedup"] if duels else []
    return ["measured", ">XLA, ms", *ours, *(f">speedup of {name}" for name in peers), "fastest"], rows


def _median(figures: Found) -> str:
    return f"{figures['median'] * 1e3:.3g}"


def _fastest(case: Found) -> str:
    """The contenders that none beats beyond the noise."""
    timed = {name: found for name, found in case["contenders"].items() if "median" in found}
    first = min(timed, key=lambda name: timed[name]["median"])
    even = [name for name, found in timed.items() if found["p20"] <= timed[first]["p80"]]
    return " = ".join(sorted(even, key=lambda name: timed[name]["median"]))


def failures(record: Found) -> str:
    """Contenders that could not be compiled or run, one per line; empty if there are none."""
    return "".join(
        f"- {case['name']}, {name}: {found['failed']}\n"
        for case in record["cases"]
        for name, found in case["contenders"].items()
        if "failed" in found
    )


def regressions(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Cases whose new p20 is above the old p80 by a twentieth or more, slower beyond the noise of either run; and failures."""
    found = []
    before = {(c["name"], n): f for c in old["cases"] for n, f in c["contenders"].items() if "median" in f}
    for case in new["cases"]:
        for name, figures in case["contenders"].items():
            was = before.get((case["name"], name))
            if was is None:
                continue
            if "median" not in figures:
                found.append(f"{case['name']}, {name}: {figures['failed']}")
            elif figures["p20"] > verdict.EVEN * was["p80"]:
                found.append(
                    f"{case['name']}, {name}: {was['median'] * 1e3:.3f} ms before, {figures['median'] * 1e3:.3f} ms now"
                )
    return found


def every_contender(record: Found) -> str:
    """A page: a row for each measured case and contender, the fastest in bold, failures with their reason."""
    rows = []
    for case in record["cases"]:
        timed = {name: f["median"] for name, f in case["contenders"].items() if "median" in f}
        label = case["name"] + (f" (commit {case['commit']})" if case["commit"] != record["commit"] else "")
        for name, f in case["contenders"].items():
            row = [label, case["dtype"], name]
            if "median" not in f:
                rows.append([*row, f["failed"].replace("|", "/"), *[""] * 7])
                continue
            row[-1] = f"**{name}**" if f["median"] == min(timed.values()) else name
            row += [_milliseconds(f["median"]), f"{_milliseconds(f['p20'])} to {_milliseconds(f['p80'])}"]
            row += [_shown(f["kernel_seconds"], 1e3, ".3f"), f"{timed['xla'] / f['median']:.2f}" if "xla" in timed else ""]
            row += [_of_floor(f["floor_fraction"]), _shown(f["bytes_per_second"], 1e-9, ".1f")]
            rows.append([*row, _shown(f["flops_per_second"], 1e-9, ".1f"), f"{f['error']:.1e}"])
    header = ["case", "dtype", "contender", ">median ms", ">p20 to p80", ">kernels ms", ">speedup", ">of the floor", ">GB/s"]
    title = (
        f"{record['experiment'].capitalize()} on {record['device']} ({record['how']}), jax {record['versions']['jax']}, "
        f"{record['date']}, commit {record['commit']}. {record['protocol']}. Speedups are relative to XLA's code.\n\n"
    )
    over = any((f.get("floor_fraction") or 0) > 1 for case in record["cases"] for f in case["contenders"].values())
    title += f"{conclusions.OVER}\n\n" if over else ""
    return title + tables.markdown([*header, ">GFLOP/s", ">error"], rows)


def _of_floor(share: float | None) -> str:
    """A share of what the machine allows; what is above it is no share, and conclusions.OVER says why."""
    return "over" if share is not None and share > 1 else _shown(share, 1, ".0%")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _shown(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else format(value * factor, form)
