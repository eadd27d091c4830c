"""Measures block sizes on the GPU at hand: python -m experiments.tune [--only OPERATOR].

Each candidate of each operator, forward and backward, at shapes that the zoo's models have, beside XLA. The fastest go to
kernels/tuned/DEVICE.json, with versions, date and times; `implementation=None` follows what stands there. The file is written
after each case, and what it holds of the same sources and versions is not measured again: a run that was cut off, or that
`--minutes` stopped, goes on by the same command. A candidate that the device refuses is left out and named.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from experiments.errors import UserError, run
from experiments.measuring import sources
from kernels.runtime import checks, dispatch, tuning

BF16 = jnp.bfloat16
BEGUN = time.monotonic()


@dataclasses.dataclass(frozen=True)
class Case:
    """An operator at one shape. `fn` takes the arrays and implementation=; `classed` of them name the shape class."""

    operator: str
    fn: Callable
    shapes: tuple[tuple[tuple[int, ...], Any], ...]
    classed: int = 1
    backward: bool = True

    @property
    def name(self) -> str:
        return " ".join([self.operator, *("x".join(map(str, shape)) for shape, _ in self.shapes)])


def _batch_norm(shape: tuple[int, ...], residual: bool) -> Case:
    def fn(x: jax.Array, s: jax.Array, b: jax.Array, r: jax.Array | None = None, *, implementation: str) -> jax.Array:
        return kernels.batch_norm_act(x, s, b, r, implementation=implementation)[0]

    channels = (shape[-1:], jnp.float32)
    return Case("batch_norm_act", fn, ((shape, BF16), channels, channels, *([(shape, BF16)] if residual else [])))


def _linear(rows: int, inputs: int, outputs: int) -> Case:
    fn = lambda x, w, b, implementation: kernels.linear_act(x, w, b, implementation=implementation)
    return Case("linear_act", fn, (((rows, inputs), BF16), ((inputs, outputs), BF16), ((outputs,), jnp.float32)), 2)


def _loss(rows: int, classes: int) -> Case:
    labels = lambda x: jnp.arange(rows) % classes
    fn = lambda x, implementation: kernels.softmax_cross_entropy(x, labels(x), implementation=implementation)
    return Case("softmax_cross_entropy", fn, (((rows, classes), BF16),))


def _mlp(rows: int, inputs: int, outputs: int) -> Case:
    fn = lambda x, w, v, b, c, implementation: kernels.mlp(x, [w, v], [b, c], "relu", "tanh", implementation=implementation)
    shapes = (((rows, inputs), BF16), ((inputs, 256), BF16), ((256, outputs), BF16), ((256,), BF16), ((outputs,), BF16))
    return Case("mlp", fn, shapes, 3, backward=False)


CASES = (
    *(
        Case("max_pool", lambda x, implementation: kernels.max_pool(x, 3, 2, implementation=implementation), ((shape, BF16),))
        for shape in ((1024, 55, 55, 64), (256, 112, 112, 64), (256, 28, 28, 480))
    ),
    *(
        Case("local_response_norm", kernels.local_response_norm, ((shape, BF16),))
        for shape in ((1024, 55, 55, 96), (1024, 27, 27, 256), (256, 56, 56, 64))
    ),
    *(_batch_norm(shape, shape[-1] >= 256) for shape in ((256, 112, 112, 64), (256, 28, 28, 512), (256, 14, 14, 256))),
    *(_linear(*sizes) for sizes in ((65536, 128, 512), (1024, 9216, 4096), (4096, 1024, 256))),
    *(_loss(*sizes) for sizes in ((1024, 1000), (8192, 50257), (4096, 10))),
    *(_mlp(*sizes) for sizes in ((4096, 100, 1024), (4096, 1024, 1))),
)


def drawn(case: Case, seed: int) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for shape, dtype in case.shapes]


def program(case: Case, implementation: str) -> Callable:
    """What is timed: the operator and, where its kernels have one, its gradient."""
    fn = lambda *args: case.fn(*args, implementation=implementation)
    if not case.backward:
        return jax.jit(fn)

    def both(*args: jax.Array) -> Any:
        y, pullback = jax.vjp(fn, *args)
        return pullback(y)

    return jax.jit(both)


def seconds(fn: Callable, inputs: Sequence[Sequence[jax.Array]], calls: int, rounds: int) -> float:
    """Median over rounds of the time per call; calls are asynchronous and go through `inputs` in turn."""
    jax.block_until_ready([fn(*args) for args in inputs])
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        results = [fn(*inputs[i % len(inputs)]) for i in range(calls)]
        jax.block_until_ready(results[-1])
        found.append((time.perf_counter() - begun) / calls)
    return float(np.median(found))


def families(operator: str, implementation: str) -> dict[str, tuple[str, Sequence[Any]]]:
    """The hand kernels to measure: for each implementation its name in kernels/tuned/ and its candidates.

    Those of a second kernel, in Pallas, are listed where the device runs it.
    """
    module = importlib.import_module(f"kernels.{operator}.config")
    found = {implementation: (operator, module.CANDIDATES)}
    if implementation == "triton" and hasattr(module, "PALLAS_CANDIDATES") and dispatch.device_reason("pallas") is None:
        found["pallas"] = (f"{operator}.pallas", module.PALLAS_CANDIDATES)
    return found


def measure(
    case: Case, implementation: str = "triton", calls: int = 10, rounds: int = 7
) -> dict[str, dict[str, dict[str, Any]]]:
    """Entries of kernels/tuned/ for one case, {operator: {key: entry}}: the choice of implementation under the shape class, and
    each kernel's fastest configuration under the keys that its launches look up."""
    inputs = [drawn(case, seed) for seed in range(2)]
    tried: dict[str, dict[str, float]] = {}
    entries: dict[str, dict[str, dict[str, Any]]] = {case.operator: {}}
    fastest = {"xla": seconds(program(case, "xla"), inputs, calls, rounds)}
    for name, (operator, candidates) in families(case.operator, implementation).items():
        with tuning.keys_asked() as asked:
            jax.eval_shape(program(case, name), *inputs[0])
        times = tried[name] = {}
        for candidate in candidates:
            values = dataclasses.asdict(candidate)
            try:
                with tuning.candidate(operator, values):
                    times[json.dumps(values)] = seconds(program(case, name), inputs, calls, rounds)
            except jax.errors.JaxRuntimeError as refusal:  # one candidate that cannot be launched must not end the run
                print(f"{case.name}: {name} {values} cannot run: {str(refusal).partition(chr(10))[0]}", flush=True)
        if not times:
            continue
        best = min(times, key=lambda values: times[values])
        fastest[name] = times[best]
        found = {"config": json.loads(best), "seconds": times[best]}
        entries.setdefault(operator, {}).update({key: found for asker, key in asked if asker == operator})
    entries[case.operator][checks.shape_class(*inputs[0][: case.classed])] = {
        "implementation": min(fastest, key=lambda name: fastest[name]),
        "seconds": fastest,
        "candidates": tried,
    }
    return entries


def versions() -> dict[str, str]:
    """Of the packages that decide what a kernel is compiled to."""
    return {
        name: importlib.metadata.version(name)
        for name in ("jax", "jaxlib", "triton", "jax-triton")
        if importlib.util.find_spec(name.replace("-", "_"))
    }


def tune(
    cases: Sequence[Case], path: pathlib.Path, implementation: str = "triton", deadline: float = math.inf, **protocol: int
) -> list[str]:
    """Measure the cases and write their entries into the file, beside those of other operators that stand there.

    Cases that the file holds of the same sources and versions are left out. None is begun that would end after `deadline` (on
    time.monotonic), going by its last time or the longest so far.

    Returns:
      The names of the cases for which there was no time.
    """
    record = json.loads(path.read_text()) if path.exists() else {"operators": {}}
    record["device"] = dispatch.device().kind
    conditions = {"source": sources.digest("kernels", "kernels.linear_act.pallas"), "versions": versions()}
    done = record.setdefault("done", {})
    current = lambda case: conditions.items() <= done.get(case.name, {}).items()
    left, longest = [case for case in cases if not current(case)], 0.0
    if len(left) < len(cases):
        print(f"{len(cases) - len(left)} of {len(cases)} cases stand in the file already")
    while left and time.monotonic() + done.get(left[0].name, {}).get("seconds", longest) < deadline:
        case, begun = left.pop(0), time.monotonic()
        found = measure(case, implementation, **protocol)
        stamp = {"date": datetime.date.today().isoformat(), "versions": versions()}
        for operator, entries in found.items():
            written = record["operators"].setdefault(operator, {})
            written.update({key: entry | stamp for key, entry in entries.items()})
        done[case.name] = conditions | {"seconds": round(time.monotonic() - begun, 1)}
        longest = max(longest, done[case.name]["seconds"])
        times = next(entry["seconds"] for entry in found[case.operator].values() if "implementation" in entry)
        print(f"{case.name}: {', '.join(f'{name} {taken * 1e6:.0f} us' for name, taken in times.items())}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".tmp")
        whole.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(whole, path)  # at once: a run that is cut off leaves the file as it was
    dispatch.tuned.cache_clear()
    return [case.name for case in left]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.tune", description="Measures block sizes on the GPU at hand.")
    parser.add_argument("--only", help="one operator")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop before so much time is over; the same command goes on"
    )
    given = parser.parse_args(arguments)
    if not given.minutes > 0:
        raise UserError(f"--minutes: {given.minutes:g} given, a number above 0 is needed")
    operators = sorted({case.operator for case in CASES})
    if given.only is not None and given.only not in operators:
        raise UserError(f"--only: {given.only!r} given, it is one of {', '.join(operators)}")
    if (reason := dispatch.device_reason("triton")) is not None:
        raise UserError(f"nothing to measure: the kernels do not run here: {reason}")
    path = pathlib.Path(kernels.__file__).parent / "tuned" / f"{dispatch.device().kind}.json"
    chosen = [case for case in CASES if given.only in (None, case.operator)]
    left = tune(chosen, path, deadline=BEGUN + 60 * given.minutes)
    print(f"written: {path}")
    if left:
        print(f"stopped for time; left: {len(left)} cases, next {left[0]}. The same command goes on with them.")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
