"""The training runs that are disturbed: several models, in one process or two, on the digits and on made-up text."""

from __future__ import annotations

import dataclasses
import pathlib
import random
import socket
import sys

# A text and a tagging file, made anew for each soak.
TEXT, TAGS = "text.txt", "tags.tsv"
JUDGE = "lenet5"  # the case whose undisturbed run judges the GAN
FLAGS = {
    # 176 steps, a checkpoint every 11.
    "lenet5": "--epochs 4 --batch-size 32 --checkpoint-every 0.25 --evaluate-every 2",
    # About 120 steps, a checkpoint every 8.
    "lstm_lm": "--data text:{folder}/text.txt --data-options length=32 --epochs 3 --batch-size 8 --checkpoint-every 0.2 "
    "--evaluate-every 1",
    # 144 steps, a checkpoint every 9.
    "bilstm_tagger": "--data tagging:{folder}/tags.tsv --data-options longest=12 --epochs 8 --batch-size 16 "
    "--checkpoint-every 0.5 --evaluate-every 2",
    # 220 steps, 11 in a call, a checkpoint after each.
    "gan_mlp": "--epochs 10 --checkpoint-every 0.5 --evaluate-every 5 --task-options r1=10.0,conditional=True,"
    "judge={folder}/lenet5-1",
    # 24 steps, a checkpoint every 4.
    "resnet20_cifar": "--data digits --steps 24 --batch-size 16 --checkpoint-every 0.045 --evaluate-every 10",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model in one process or several."""

    model: str
    processes: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.processes}"

    def commands(self, workdir: pathlib.Path) -> list[list[str]]:
        """The command of each process of one start; `workdir` lies beside what the flags name."""
        flags = FLAGS[self.model].format(folder=workdir.parent).split()
        command = [sys.executable, "-m", "experiments.train", self.model, *flags, "--workdir", str(workdir)]
        if self.processes == 1:
            return [command]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        joined = ["--distributed", "--coordinator", address, "--processes", str(self.processes), "--process-id"]
        return [[*command, *joined, str(index)] for index in range(self.processes)]


# ResNet-20 is mostly compiled, which two processes on two cores would do twice.
CASES = [Case(model, 1) for model in FLAGS] + [Case(model, 2) for model in FLAGS if model != "resnet20_cifar"]


def write_data(folder: pathlib.Path) -> None:
    """The text and the tagging file that the flags name: words that follow each other by a rule, tokens with their tag."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(40)]
    text, at = "", 0
    while len(text) < 11_800:
        text, at = f"{text}{words[at]} ", (3 * at + draw.randint(1, 4)) % len(words)
    (folder / TEXT).write_text(text)
    sentences = [[draw.randrange(20) for _ in range(draw.randint(3, 12))] for _ in range(320)]
    (folder / TAGS).write_text("".join("".join(f"w{t}\tT{t % 4}\n" for t in tokens) + "\n" for tokens in sentences))
