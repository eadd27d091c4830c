"""Three seeds of each GAN recipe on the digits: python -m experiments.benchmarks.gan_learning [NAME ...].

NAME: gan_mlp or dcgan. Fréchet distance, precision, recall and label histogram of the samples, each beside the same figure of
one half of the real images against the other. Aims, for the median of the Fréchet distances over the real one: gan_mlp 2.5
within five minutes, dcgan at 32x32 4 within twenty. Writes experiments/results/cpu/gan-learning.json and the first seed's
samples beside it.
"""

from __future__ import annotations

import pathlib
import shutil
import sys

from experiments.benchmarks import seeds
from experiments.measuring import result

SEEDS = (0, 1, 2)
AIMS = {"gan_mlp": {"ratio": 2.5, "seconds": 300}, "dcgan": {"ratio": 4.0, "seconds": 1200}}
QUALITY = ("frechet_distance", "precision", "recall", "label_distance", "missing_classes")
FIGURES = ("eval_frechet_distance", *(f"eval_{real}{name}" for name in QUALITY for real in ("", "real_")), "collapsed")


def measure(name: str, folder: pathlib.Path) -> dict:
    def keep_samples(seed: int, workdir: pathlib.Path) -> None:
        if seed == SEEDS[0]:
            for kind, source in (("grid", max((workdir / "samples").glob("*.png"))), ("strip", workdir / "samples.png")):
                shutil.copyfile(source, folder / f"gan-learning-{name}-{kind}.png")

    found = seeds.over([name], SEEDS, dict.fromkeys(FIGURES), keep_samples)
    ratio = found["median"] / found["runs"][0]["eval_real_frechet_distance"]
    return found | {"median_over_real": round(ratio, 2), "aim": AIMS[name]}


def main(names: list[str]) -> None:
    unknown = set(names) - set(AIMS)
    if unknown:
        sys.exit(f"error: {', '.join(sorted(unknown))} given, known: {', '.join(AIMS)}")
    folder = result.RESULTS / "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    recipes = result.kept("gan-learning", "recipes")
    for name in names or AIMS:
        recipes[name] = measure(name, folder)
        print(result.save("gan-learning", {"recipes": recipes}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
