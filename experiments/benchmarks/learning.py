"""What the recipes achieve: python -m experiments.benchmarks.learning lenet5|recurrent|conv|gan [NAME ...].

Runs of several seeds, each a process of its own, as a person would start it; and networks that must learn 64 images with
random labels by heart. Writes a result file to experiments/results/cpu/: lenet5-digits, recurrent-learning (an hour and a half
on two cores), conv-learning or gan-learning (with pictures of the first seed's samples). NAMEs run those alone and leave the
figures of the others as they are.

Aims: resnet20_cifar 98.5 % of the test images; gan_mlp at most 2.5 times the Fréchet distance of real images within five
minutes, dcgan 4 times within twenty, both as the median of three seeds.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import zoo
from experiments.errors import UserError, nearest
from experiments.errors import run as run_main
from experiments.losses import cross_entropy
from experiments.measuring import result

SEEDS = (0, 1, 2)
# name -> flags of experiments.train, what is reported
RECURRENT: dict[str, tuple[list[str], str]] = {
    "lstm_lm": (["lstm_lm"], "eval_bits_per_character"),
    "gru_lm": (["gru_lm"], "eval_bits_per_character"),
    "rnn_lm": (["rnn_lm"], "eval_bits_per_character"),
    "bilstm_tagger": (["bilstm_tagger"], "eval_accuracy"),
    # As many weights in one direction as the tagger has in two.
    "lstm_tagger": (["bilstm_tagger", "--model-options", "bidirectional=False,hidden_size=192"], "eval_accuracy"),
    "rnn_classifier": (["rnn_classifier"], "eval_accuracy"),
    "lstm_classifier": (["lstm_classifier"], "eval_accuracy"),
    "bilstm_classifier": (["bilstm_classifier"], "eval_accuracy"),
}
OVERFIT = {"alexnet": 64, "vgg11_bn": 32, "googlenet": 64}  # image size
MOST_STEPS = 300
GANS = {"gan_mlp": {"ratio": 2.5, "seconds": 300}, "dcgan": {"ratio": 4.0, "seconds": 1200}}  # aims
QUALITY = ("frechet_distance", "precision", "recall", "label_distance", "missing_classes")
GAN_FIGURES = ("eval_frechet_distance", *(f"eval_{real}{name}" for name in QUALITY for real in ("", "real_")), "collapsed")
Look = Callable[[int, pathlib.Path], None]


def run(flags: list[str], seed: int, look: Look = lambda seed, workdir: None) -> dict[str, Any]:
    """One run of experiments.train: its summary, with the seconds of the whole process; `look` sees its folder."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        begun = time.perf_counter()
        command = [sys.executable, "-m", "experiments.train", *flags, "--seed", str(seed), "--workdir", str(workdir)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = round(time.perf_counter() - begun, 1)
        look(seed, workdir)
        return json.loads((workdir / "summary.json").read_text()) | {"process_seconds": seconds}


def over_seeds(flags: list[str], figures: Iterable[str], look: Look = lambda seed, workdir: None) -> dict[str, Any]:
    """The figures of a run for each seed, and the smallest, median and largest of the first figure."""
    names, runs = list(dict.fromkeys(figures)), []
    for seed in SEEDS:
        summary = run(flags, seed, look)
        runs.append({"seed": seed} | {key: summary[key] for key in (*names, "steps", "seconds", "process_seconds")})
        print(" ".join(flags), runs[-1], flush=True)
    values = sorted(r[names[0]] for r in runs)
    return {
        "command": f"python -m experiments.train {' '.join(flags)}",
        "parameters": summary["parameters"],
        "figure": names[0],
        "lowest": values[0],
        "median": values[len(values) // 2],
        "highest": values[-1],
        "runs": runs,
    }


def recurrent(name: str) -> dict[str, Any]:
    flags, figure = RECURRENT[name]
    return over_seeds(flags, [figure, "eval_short_accuracy"] if name.endswith("_tagger") else [figure])


def conv(name: str) -> dict[str, Any]:
    return overfit(name, OVERFIT[name]) if name in OVERFIT else over_seeds([name], ["eval_accuracy"])


def gan(name: str) -> dict[str, Any]:
    """The quality of the samples, each figure beside that of one half of the real images against the other."""

    def keep_samples(seed: int, workdir: pathlib.Path) -> None:
        if seed == SEEDS[0]:
            for kind, source in (("grid", max((workdir / "samples").glob("*.png"))), ("strip", workdir / "samples.png")):
                shutil.copyfile(source, result.RESULTS / "cpu" / f"gan-learning-{name}-{kind}.png")

    found = over_seeds([name], GAN_FIGURES, keep_samples)
    ratio = found["median"] / found["runs"][0]["eval_real_frechet_distance"]
    return found | {"median_over_real": round(ratio, 2), "aim": GANS[name]}


def overfit(name: str, size: int, most_steps: int = MOST_STEPS) -> dict[str, Any]:
    """Adam on all 64 images at once until training accuracy, in evaluation mode, is 100 %."""
    begun = time.monotonic()
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(64, size, size, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, 64), jnp.int32)
    family = zoo.model_info(name).family
    options: dict[str, Any] = {"dropout": 0.0} if family in ("alexnet", "vgg", "googlenet") else {}
    options |= {"dropout_aux": 0.0} if family == "googlenet" else {}
    params, state, apply = zoo.functional(zoo.create_model(name, num_classes=10, in_channels=3, **options))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.warmup_constant_schedule(0, 3e-4, 20)))

    def loss(params: Any, state: Any) -> tuple[jax.Array, Any]:
        outputs, state = apply(params, state, images, train=True)
        return cross_entropy(outputs, labels)[0], state

    def step(params: Any, state: Any, slots: Any) -> tuple[Any, Any, Any, jax.Array]:
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, slots = optimizer.update(gradient, slots)
        return optax.apply_updates(params, updates), state, slots, value

    stepped = jax.jit(step, donate_argnums=(0, 1, 2))
    score = jax.jit(lambda params, state: (apply(params, state, images)[0].argmax(-1) == labels).mean())
    slots, accuracy, value = optimizer.init(params), 0.0, jnp.inf
    for number in range(1, most_steps + 1):
        params, state, slots, value = stepped(params, state, slots)
        if number % 10 == 0:
            accuracy = float(score(params, state))
            if accuracy == 1.0:
                break
    return {"accuracy": accuracy, "steps": number, "loss": float(value), "seconds": round(time.monotonic() - begun, 1)}


def lenet5() -> None:
    """Ten seeds of the recipe that README begins with."""
    found = []
    for seed in range(10):
        summary = run(["lenet5"], seed)
        times = {"train_seconds": summary["seconds"], "process_seconds": summary["process_seconds"]}
        found.append({"seed": seed, "accuracy": summary["eval_accuracy"]} | times)
        print(found[-1])
    print(result.save("lenet5-digits", {"epochs": 20, "runs": found}))


# group -> (result file, its field, names, what measures one of them)
GROUPS: dict[str, tuple[str, str, Iterable[str], Callable[[str], dict[str, Any]]]] = {
    "recurrent": ("recurrent-learning", "recipes", RECURRENT, recurrent),
    "conv": ("conv-learning", "runs", ("resnet20_cifar", *OVERFIT), conv),
    "gan": ("gan-learning", "recipes", GANS, gan),
}


def main(arguments: list[str]) -> int:
    group, *names = arguments or [""]
    if group == "lenet5":
        lenet5()
        return 0
    if group not in GROUPS:
        raise UserError(nearest("group", group, ["lenet5", *GROUPS]))
    file, field, known, measure = GROUPS[group]
    for name in names:
        if name not in known:
            raise UserError(nearest("NAME", name, known))
    found = result.kept(file, field)
    for name in names or known:
        found[name] = measure(name)
        print(result.save(file, {field: found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
