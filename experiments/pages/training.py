"""Tables of what the recipes achieve and how fast a CPU runs them."""

from __future__ import annotations

import pathlib
import statistics
from typing import Any

from experiments.measuring.pictures import BETTER, PALE, XLA, save
from experiments.measuring.tables import Table

Found = dict[str, Any]


def _spread(low: float, middle: float, high: float, form: str) -> str:
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _seconds(runs: list[Found]) -> str:
    return f"{statistics.median(r['process_seconds'] for r in runs):.0f}"


def _seeds(found: Found, name: str, what: str, form: str, aim: str) -> list[str]:
    spread = _spread(found["lowest"], found["median"], found["highest"], form)
    return [f"`{name}`", what, spread, aim, _seconds(found["runs"])]


def lenet5_digits(found: Found) -> str:
    """The seeds of `make train` in a sentence."""
    accuracies = sorted(r["accuracy"] for r in found["runs"])
    seconds = sorted(r["process_seconds"] for r in found["runs"])
    worst, median, best = accuracies[0], accuracies[len(accuracies) // 2], accuracies[-1]
    return (
        f"LeNet-5 on the digits, {len(accuracies)} seeds: test accuracy {worst:.2%} to {best:.2%}, median {median:.2%}; "
        f"the whole command took {seconds[0]:.0f} to {seconds[-1]:.0f} s.\n"
    )


def on_a_cpu(compared: Found, python: Found) -> str:
    """Whole models beside torch, and Python's share of a step, in sentences."""
    ratios = sorted(
        (case["contenders"]["xla"]["median"] / case["contenders"]["torch"]["median"], case["model"], case["train"])
        for case in compared["cases"]
        if "torch" in case["contenders"]
    )
    mean = statistics.geometric_mean(ratio for ratio, _, _ in ratios)
    each = ", ".join(f"{model}{' training' if train else ''} {ratio:.2f}" for ratio, model, train in ratios)
    return (
        "Our time divided by torch's; below 1 we are faster (`python -m experiments.compare models --peers torch`, float32): "
        f"{each}; "
        f"geometric mean {mean:.2f}. Python takes {python['seconds'] * 1e3:.2f} ms of a training step.\n"
    )


def input_and_checkpoints(found: Found) -> str:
    """How long a step waits for a checkpoint and for data, in a sentence."""
    size = f"{found['bytes'] / 2**20:.0f} MiB"
    return (
        f"A checkpoint of {found['model']}, {size}, blocks the step for {found['blocked_share']:.1%} of the time that writing "
        f"it takes, and the step waits for data {found['input_wait']:.2%} of the time "
        "(`python -m experiments.benchmarks.input_and_checkpoints`).\n"
    )


def recurrent_learning(found: Found) -> Table:
    """Header and rows: each recurrent recipe over its seeds."""
    aims = {"lstm_lm": "at most 1.6", "bilstm_tagger": "at least 97%", "bilstm_classifier": "at least 95%"}
    rows = []
    for name, recipe in found["recipes"].items():
        bits = "bits" in recipe["figure"]
        row = _seeds(recipe, name, "bits per character" if bits else "accuracy", ".3f" if bits else ".2%", aims.get(name, ""))
        rows.append([*row, f"{recipe['parameters']:,}"])
        if short := sorted(run["eval_short_accuracy"] for run in recipe["runs"] if "eval_short_accuracy" in run):
            spread = _spread(short[0], statistics.median(short), short[-1], ".2%")
            rows.append(["", "accuracy on short texts", spread, "at least 97%" if name in aims else "", "", ""])
    return ["recipe", "on the test data", ">median (lowest to highest)", ">aim", ">seconds", ">parameters"], rows


def conv_learning(found: Found) -> Table:
    """Header and rows: resnet20_cifar on the digits over its seeds, and the networks that learn 64 images by heart."""
    rows = []
    for name, run in found["runs"].items():
        if "runs" in run:
            row = _seeds(run, name, "digits, test", ".2%", "at least 98.5%")
        else:
            row = [f"`{name}`", "64 images memorized", f"{run['accuracy']:.0%} after {run['steps']} steps", "100%"]
            row.append(f"{run['seconds']:.0f}")
        rows.append(row)
    return ["network", "accuracy on", ">reached", ">aim", ">seconds"], rows


def fuzz(found: Found) -> Table:
    """Header and rows: how many mutated files each reader took and refused, and what it did otherwise."""
    readers = found["readers"]
    rows = [
        [name, *(f"{f[key]:,}" for key in ("inputs", "taken", "refused")), str(sum(f["findings"].values()))]
        for name, f in readers.items()
    ]
    total = [f"{sum(f[key] for f in readers.values()):,}" for key in ("inputs", "taken", "refused")]
    findings = sum(sum(f["findings"].values()) for f in readers.values())
    return ["reader", ">mutated files", ">accepted", ">refused", ">findings"], [*rows, ["total", *total, str(findings)]]


def fine_tuning(found: Found) -> Table:
    """Header and rows: accuracy by the number of images of a class, of each strategy."""
    rows = [
        [name, *(_spread(min(v), statistics.median(v), max(v), ".1%") for v in (by_each[str(each)] for each in found["each"]))]
        for name, by_each in found["accuracy"].items()
    ]
    return ["images per class", *(f">{each}" for each in found["each"])], rows


# One colour per strategy: grey for what fine-tuning is compared with.
_STRATEGIES = (XLA, "#E69F00", "#009E73", BETTER, "#CC79A7")


def draw_fine_tuning(found: Found, path: pathlib.Path) -> None:
    """An answer of zoo.predict, and what trained weights are worth by the number of images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    shown, answer, curves = figure.subplots(1, 3, gridspec_kw={"width_ratios": [0.8, 1, 2]})
    shown.imshow(found["example"]["image"], cmap="gray", vmin=0, vmax=255)
    shown.set_xticks([])
    shown.set_yticks([])
    shown.set_title("an image", fontsize=10)
    names, shares = zip(*found["example"]["answer"], strict=True)
    answer.barh([f"digit {name}" for name in names], shares, color=[BETTER, *[PALE] * (len(names) - 1)])
    for row, share in enumerate(shares):
        answer.text(share + 0.02, row, f"{share:.1%}", va="center", fontsize=8)
    answer.invert_yaxis()
    answer.set_xlim(0, 1.25)
    answer.set_xticks([])
    answer.spines[["top", "right", "bottom"]].set_visible(False)
    answer.set_title("zoo.predict(model, image)", fontsize=10)
    for colour, (name, by_each) in zip(_STRATEGIES, found["accuracy"].items(), strict=True):
        values = [by_each[str(each)] for each in found["each"]]
        curves.fill_between(found["each"], [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15, lw=0)
        middle = [statistics.median(v) for v in values]
        curves.plot(found["each"], middle, color=colour, marker="o", markersize=4, label=name)
    curves.set_xscale("log")
    curves.set_xticks(found["each"], [str(each) for each in found["each"]])
    curves.set_xticks([], minor=True)
    curves.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    curves.set_xlabel("training images of each class")
    curves.set_title("test accuracy: from weights of clean digits, or not", fontsize=10)
    curves.grid(color=PALE, linewidth=0.6)
    curves.spines[["top", "right"]].set_visible(False)
    curves.legend(frameon=False, fontsize=8)
    save(figure, path, found)


def gan_learning(found: Found) -> Table:
    """Header and rows: the quality of each GAN's samples beside that of real images."""
    rows = []
    for name, recipe in found["recipes"].items():
        median = lambda key, runs=recipe["runs"]: statistics.median(r[key] for r in runs)
        row = [f"`{name}`", _spread(recipe["lowest"], recipe["median"], recipe["highest"], ".1f")]
        row += [f"{median('eval_real_frechet_distance'):.1f}", f"{recipe['median_over_real']:.2f}", f"{recipe['aim']['ratio']}"]
        for key in ("precision", "recall"):
            row.append(f"{median(f'eval_{key}'):.2f} ({median(f'eval_real_{key}'):.2f})")
        rows.append([*row, f"{median('eval_missing_classes'):.0f}", _seconds(recipe["runs"])])
    header = ["recipe", ">Fréchet distance", ">real halves", ">ratio", ">aim", ">precision (real)", ">recall (real)"]
    return [*header, ">missing classes", ">seconds"], rows


def cpu_speed(conv: Found, recurrent: Found, gan: Found) -> Table:
    """Header and rows: a training step or an inference here and in torch."""
    cases = {f"`{c['model']}` {c['what']}": c for c in conv["cases"].values()}
    cases["LSTM, 128 steps, batch 32, 256 wide, forward and backward"] = recurrent["forward_backward"] | {"aim": 1.2}
    cases["LSTM, one step, batch 1 (of 200 in a row)"] = recurrent["one_step_batch_1"] | {"aim": 1.0}
    cases |= {f"`{name}` training step, batch 64": case for name, case in gan["steps"].items()}
    rows = []
    for name, case in cases.items():
        calls = case.get("calls", 1)
        ours, torch = (case["seconds"][side]["median"] * 1e3 / calls for side in ("zoo", "torch"))
        rows.append([name, f"{ours:.3g}", f"{torch:.3g}", f"{ours / torch:.2f}", f"{case['aim']}"])
    return ["float32, 2 cores", ">zoo, ms", ">torch, ms", ">ratio", ">aim"], rows


def conv_transpose(cpu: Found, compiled: Found) -> Table:
    """Header and rows: both forms of DCGAN's transposed convolutions, timed on a CPU and compiled for the H200."""
    rows = []
    for layer, times in cpu["conv_transpose"].items():
        for form, seconds in times["seconds"].items():
            program = compiled["layers"][layer][form]
            row = [layer, form, f"{seconds['median'] * 1e3:.2f}", str(program["kernels"]), f"{program['bytes'] / 1e6:.1f}"]
            rows.append(row)
    return ["layer", "form", ">CPU, ms", ">kernels, H200", ">MB transferred, H200"], rows
