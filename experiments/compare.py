"""XLA's code, the hand-written kernels and torch side by side: python -m experiments.compare operators|models [flags].

Writes a result file (its fields: docs/results.md), a Markdown table and pictures to experiments/results/DEVICE/ or --out. Each
contender's result is checked in the same run before it is timed; what is already in the result file of this commit is not run
again. `--check OLD NEW` compares two result files and names what became slower beyond the noise.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from experiments.benchmarks.result import RESULTS, conditions
from experiments.comparison import pictures
from experiments.comparison.cases import Case, operator_cases
from experiments.comparison.models import ModelCase, draw_inputs, jax_program, model_cases
from experiments.comparison.timing import Contender, kernel_seconds, measure
from experiments.errors import UserError, nearest, run

PEERS = ("torch", "torch.compile")


# -- contenders -------------------------------------------------------------------------------------------------------


def jax_contender(call: Callable[..., Any], implementation: str | None, dtype: Any) -> Contender:
    """An operator under one implementation, inputs cast to `dtype`."""

    def scoped(*args: Any) -> Any:
        with kernels.use(implementation):
            return call(*args)

    cast = lambda x: jnp.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else None)
    return Contender(
        jax.jit(scoped),
        prepare=lambda inputs: [cast(x) for x in inputs],
        to_numpy=lambda out: [np.asarray(leaf.astype(jnp.float32), np.float64) for leaf in jax.tree.leaves(out)],
    )


def torch_contender(call: Callable[..., Any], dtype: str, compiled: bool) -> Contender:
    """A torch function of the same inputs: images channels last in memory, on the GPU where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def prepare(inputs: list[np.ndarray]) -> list[Any]:
        tensors = [torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in inputs]
        tensors = [t.to(getattr(torch, dtype)) if t.is_floating_point() else t for t in tensors]
        return [t.permute(0, 3, 1, 2) if t.dim() == 4 else t for t in tensors]

    def to_numpy(out: Any) -> list[np.ndarray]:
        leaves = out if isinstance(out, tuple) else (out,)
        arrays = [leaf.detach().float().cpu().numpy().astype(np.float64) for leaf in leaves]
        return [a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for a in arrays]

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    return Contender(torch.compile(call) if compiled else call, wait, prepare, to_numpy)


def operator_contenders(case: Case, dtype: str, peers: list[str]) -> dict[str, Contender]:
    """Every implementation of the operator that runs here, and the peers asked for."""
    found = {}
    for name, reason in kernels.available(case.operator).items():
        if name != "interpret" and reason is None:
            found[name] = jax_contender(case.call, name, dtype)
    for peer in peers:
        if case.torch is not None:
            import torch.nn.functional as functional

            found[peer] = torch_contender(case.torch(functional), dtype, peer == "torch.compile")
    return found


def _with_state(state: list[Any], inputs: list[np.ndarray]) -> list[Any]:
    return [*state, *(jax.device_put(x) for x in inputs)]


def _loss_and_norm_or_logits(out: Any) -> list[np.ndarray]:
    return [np.asarray(leaf.astype(jnp.float32), np.float64) for leaf in (out[:2] if isinstance(out, tuple) else [out])]


def model_contenders(case: ModelCase, dtype: str, peers: list[str]) -> dict[str, Contender]:
    """The zoo's model with XLA's code and, on a GPU, with the kernels chosen for it; torchvision's where it has the model."""
    choices = {"xla": "xla"} | ({"zoo": None} if kernels.device().platform == "cuda" else {})
    found = {}
    for name, implementation in choices.items():
        program, first = jax_program(case, jnp.dtype(dtype), implementation)
        found[name] = Contender(
            program,
            prepare=functools.partial(_with_state, first),
            to_numpy=_loss_and_norm_or_logits,
        )
    return found


# -- the record -------------------------------------------------------------------------------------------------------


def commit() -> str:
    """The commit of the tree, with a plus where it has changes."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed else "")


def ceilings(platform: str) -> dict[str, float]:
    """Bytes and float32 operations per second that this device reaches on a large copy and a large matrix product."""
    size = 2**28 if platform == "cuda" else 2**25
    x = jnp.ones(size, jnp.float32)
    w = jnp.ones((8192 if platform == "cuda" else 1024,) * 2, jnp.bfloat16 if platform == "cuda" else jnp.float32)
    add, product = jax.jit(lambda x: x + 1), jax.jit(lambda w: w @ w)

    def best(call: Callable[[], Any]) -> float:
        call().block_until_ready()
        times = []
        for _ in range(8):
            begun = time.perf_counter()
            call().block_until_ready()
            times.append(time.perf_counter() - begun)
        return min(times)

    copied, multiplied = best(lambda: add(x)), best(lambda: product(w))
    return {"bytes_per_second": 8 * size / copied, "flops_per_second": 2 * len(w) ** 3 / multiplied}


def compare(
    kind: str, options: argparse.Namespace, save: Callable[[dict[str, Any]], None], old: dict[str, Any]
) -> dict[str, Any]:
    """Run every case of a kind that `old` does not hold, saving after each."""
    platform = kernels.device().platform
    dtype = options.precision or ("bfloat16" if platform == "cuda" else "float32")
    peers = [peer for peer in PEERS if peer in options.peers]
    record: dict[str, Any] = {"measured": True, "experiment": kind} | conditions()
    record |= {
        "device": record["device"] if platform == "cpu" else jax.devices()[0].device_kind,
        "commit": commit(),
        "dtype": dtype,
        "protocol": f"{options.rounds} rounds in turn, blocks of {options.block_seconds} s, inputs rotated beyond the cache",
        "ceilings": ceilings(platform),
        "cases": [],
    }
    kept = {c["name"]: c for c in old.get("cases", [])} if old.get("commit") == record["commit"] else {}
    cases: list[Any] = operator_cases(options.quick, platform) if kind == "operators" else model_cases(options.quick, platform)
    if options.only:
        chosen = [c for c in cases if options.only in c.name]
        if not chosen:
            raise UserError(nearest("--only", options.only, [c.name for c in cases]))
        cases = chosen
    itemsize = jnp.dtype(dtype).itemsize
    for case in cases:
        if case.name in kept:
            record["cases"].append(kept[case.name])
            continue
        if isinstance(case, Case):
            inputs, contenders = case.inputs, operator_contenders(case, dtype, peers)
            row: dict[str, Any] = {"name": case.name, "operator": case.operator, "bytes": case.bytes(itemsize)}
            row["flops"] = case.flops
            exact = jax_contender(case.call, "xla", jnp.float32)
        else:
            inputs, contenders = draw_inputs(case), model_contenders(case, dtype, peers)
            row = {"name": case.name, "model": case.model, "examples": case.shape[0]}
            exact = model_contenders(dataclasses.replace(case), "float32", [])["xla"]
        first = exact.prepare(inputs(np.random.default_rng(0)))
        with jax.default_matmul_precision("highest"):
            reference = exact.to_numpy(exact.call(*first))
        row["contenders"] = measure(
            contenders, inputs, reference, dtype, platform=platform, rounds=options.rounds, block_seconds=options.block_seconds
        )
        for name, figures in row["contenders"].items():
            if "median" not in figures:
                continue
            if platform == "cuda" and name not in PEERS:
                figures["kernel_seconds"] = kernel_seconds(contenders[name], inputs(np.random.default_rng(0)))
            if "bytes" in row:
                limits = record["ceilings"]
                floor = max(row["bytes"] / limits["bytes_per_second"], row["flops"] / limits["flops_per_second"])
                figures |= {"floor_fraction": floor / figures["median"], "bytes_per_second": row["bytes"] / figures["median"]}
                figures["flops_per_second"] = row["flops"] / figures["median"]
        record["cases"].append(row)
        print_case(row)
        save(record)
    return record


def print_case(row: dict[str, Any]) -> None:
    parts = []
    for name, figures in row["contenders"].items():
        parts.append(f"{name} {figures['median'] * 1e3:.3f} ms" if "median" in figures else f"{name} {figures['failed']}")
    print(f"{row['name']}: {'; '.join(parts)}", flush=True)


def markdown(record: dict[str, Any]) -> str:
    """A table: a row for each case and contender, who won in bold."""
    how = "measured" if record["measured"] else "compiled, not run"
    versions = f"{record['dtype']}, jax {record['versions']['jax']}, {record['date']}"
    lines = [
        f"{record['experiment']} on {record['device']} ({how}), {versions}",
        "",
        "| case | contender | median ms | p20 to p80 | over XLA | of the floor |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for case in record["cases"]:
        timed = {name: f["median"] for name, f in case["contenders"].items() if "median" in f}
        for name, f in case["contenders"].items():
            if "median" not in f:
                lines.append(f"| {case['name']} | {name} | {f['failed']} | | | |")
                continue
            shown = f"**{name}**" if f["median"] == min(timed.values()) else name
            ratio = f"{timed['xla'] / f['median']:.2f}" if "xla" in timed else ""
            floor = f"{f['floor_fraction']:.0%}" if "floor_fraction" in f else ""
            spread = f"{f['p20'] * 1e3:.3f} to {f['p80'] * 1e3:.3f}"
            lines.append(f"| {case['name']} | {shown} | {f['median'] * 1e3:.3f} | {spread} | {ratio} | {floor} |")
    return "\n".join(lines) + "\n"


def regressions(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Cases whose new p20 is above the old p80 by a twentieth or more: slower beyond the noise of either run."""
    found = []
    before = {(c["name"], n): f for c in old["cases"] for n, f in c["contenders"].items() if "median" in f}
    for case in new["cases"]:
        for name, figures in case["contenders"].items():
            was = before.get((case["name"], name))
            if was is None:
                continue
            if "median" not in figures:
                found.append(f"{case['name']}, {name}: {figures['failed']}")
            elif figures["p20"] > 1.05 * was["p80"]:
                found.append(
                    f"{case['name']}, {name}: {was['median'] * 1e3:.3f} ms before, {figures['median'] * 1e3:.3f} ms now"
                )
    return found


def read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"result file: {path} does not exist") from error
    except json.JSONDecodeError as error:
        raise UserError(f"result file: {path} is damaged ({error})") from error


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.compare", description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", nargs="?", choices=("operators", "models"))
    parser.add_argument("--only", help="run the cases whose name contains this")
    parser.add_argument("--peers", default="", help="torch, torch.compile: compare with them too (comma between)")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), help="bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases, under a minute on a CPU")
    parser.add_argument("--rounds", type=int, help="9; 3 with --quick")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the result; experiments/results/DEVICE if not given")
    parser.add_argument("--check", nargs=2, type=pathlib.Path, metavar=("OLD", "NEW"), help="compare two result files")
    options = parser.parse_args(arguments)
    if options.check:
        found = regressions(*map(read, options.check))
        print("\n".join(found) or "nothing became slower beyond the noise")
        return 1 if found else 0
    if options.kind is None:
        raise UserError("kind: operators or models is needed")
    options.peers = [p for p in options.peers.split(",") if p]
    for peer in options.peers:
        if peer not in PEERS:
            raise UserError(nearest("--peers", peer, PEERS))
    if options.rounds is not None and options.rounds < 1:
        raise UserError(f"--rounds: {options.rounds} given, at least 1 is needed")
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.block_seconds = 0.03 if options.quick else 0.2
    folder = options.out or RESULTS / kernels.device().kind
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"compare-{options.kind}.json"
    old: dict[str, Any] = {}
    if path.exists():
        with contextlib.suppress(UserError):
            old = read(path)

    def save(record: dict[str, Any]) -> None:
        path.write_text(json.dumps(record, indent=1) + "\n")
        path.with_suffix(".md").write_text(markdown(record))

    record = compare(options.kind, options, save, old)
    save(record)
    pictures.draw_speedups(record, folder / f"compare-{options.kind}.png")
    pictures.draw_roofline(record, folder / f"roofline-{options.kind}.png")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
