"""A run killed at ten random moments ends as one never killed: python -m experiments.benchmarks.kill_ten_times [SEED].

Writes experiments/results/cpu/kill-ten-times.json.
"""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from experiments.measuring import result

FLAGS = ["--epochs", "12", "--checkpoint-every", "0.25", "--evaluate-every", "4"]


def start(workdir: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.train", "lenet5", *FLAGS, "--workdir", str(workdir)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def outcome(workdir: pathlib.Path) -> str:
    return json.loads((workdir / "summary.json").read_text())["parameters_sha256"]


def newest(workdir: pathlib.Path) -> int:
    return max((int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def main(seed: int = 0, kills: int = 10) -> int:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = pathlib.Path(folder, "whole"), pathlib.Path(folder, "killed")
        start(whole).wait()
        moments: list[dict] = []
        while len(moments) < kills:
            process = start(killed)
            before, running = newest(killed), time.monotonic()
            # Now and then before anything of this start was saved, most often soon after a save or during one.
            while newest(killed) == before and process.poll() is None and draw.random() > 0.0005:
                time.sleep(0.01)
            time.sleep(draw.random() * 0.5)
            alive = process.poll() is None
            process.kill()
            process.wait()
            if not alive:
                break
            left = len(list((killed / "checkpoints").glob("*tmp*")))
            moments.append({"seconds": round(time.monotonic() - running, 2), "saved": newest(killed), "half_written": left})
            print(moments[-1])
        process = start(killed)
        process.wait()
        same = outcome(whole) == outcome(killed)
    print("the same parameters" if same else "DIFFERENT parameters", f"after {len(moments)} kills")
    found = {"kills": moments, "same_parameters": same, "flags": FLAGS, "seed": seed}
    print(result.save("kill-ten-times", found))
    return 0 if same and len(moments) == kills else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
