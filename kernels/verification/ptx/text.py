"""Reads PTX: the text of one kernel to its registers, parameters and instructions. Nothing is interpreted here."""

from __future__ import annotations

import dataclasses
import re

from kernels.verification.ptx.errors import NotCoveredError

SPECIAL = ("tid", "ntid", "ctaid", "nctaid", "laneid", "warpid", "clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction as it is written.

    Attributes:
      opcode: with all of its modifiers, "ld.global.v4.b32".
      operands: as they are written, vectors with their braces and addresses with their brackets.
      guard: the predicate register it depends on, or None; `negated` where it must be false.
      number: its place in the kernel.
      source: line of the kernel's source that it was compiled from, "triton.py:62:24", or "" where the text does not say.
    """

    opcode: str
    operands: tuple[str, ...]
    guard: str | None
    negated: bool
    number: int
    source: str
    text: str

    @property
    def parts(self) -> list[str]:
        return self.opcode.split(".")

    def __str__(self) -> str:
        text = self.text if len(self.text) <= 120 else f"{self.text[:60]} ... {self.text[-50:]}"
        return f"`{text}`" + f" ({self.source})" * bool(self.source)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """
    Attributes:
      parameters: name -> size in bytes, in order.
      threads: of a block.
      registers: name, or what stands before a register's number -> bits (1 for a predicate).
      labels: name -> number of the instruction behind it.
      shared: statically allocated arrays in shared memory, name -> (alignment, bytes); 0 bytes where the launch says how many.
    """

    name: str
    target: str
    parameters: dict[str, int]
    threads: int
    registers: dict[str, int]
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    shared: dict[str, tuple[int, int]]

    def bits(self, name: str) -> int | None:
        """Width of a register, or None where this is the name of none."""
        return self.registers.get(name) or self.registers.get(re.sub(r"\d+$", "", name))


def width(kind: str) -> int:
    """Bits of a type: 32 of "f32", "b32" and "f16x2", 1 of "pred"."""
    if kind == "pred":
        return 1
    found = re.fullmatch(r"(?:[subf]|bf|tf)(\d+)(x2)?", kind)
    if found is None:
        raise NotCoveredError(f"the type .{kind}")
    return int(found[1]) * (2 if found[2] else 1)


def listed(operand: str) -> list[str]:
    """The registers of a vector operand, `{a, b}`; one of any other."""
    return [o.strip() for o in operand[1:-1].split(",")] if operand.startswith("{") else [operand]


def address(operand: str) -> tuple[str, int]:
    """Base and offset in bytes of `[base+offset]`."""
    found = re.fullmatch(r"\[\s*([%$\w.]+)\s*(?:([+-])\s*(-?\w+)\s*)?\]", operand)
    if found is None:
        raise NotCoveredError(f"the address {operand}")
    offset = int(found[3] or "0", 0)
    return found[1], -offset if found[2] == "-" else offset


def read(ptx: str) -> Kernel:
    """The one kernel in `ptx`.

    Raises:
      NotCoveredError: there is none, more than one, or something that is not read.
    """
    entries = re.findall(r"\.entry\s+(\w+)\s*\(([^)]*)\)([^{]*)\{", ptx)
    if len(entries) != 1:
        raise NotCoveredError(f"{len(entries)} kernels in one text")
    name, header, directives = entries[0]
    threads = re.search(r"\.(?:req|max)ntid\s+(\d+)(?:\s*,\s*(\d+)\s*,\s*(\d+))?", directives)
    target = re.search(r"\.target\s+(\w+)", ptx)
    if threads is None or target is None:
        raise NotCoveredError(f"{name} without .target, or without .reqntid or .maxntid")
    count = int(threads[1]) * int(threads[2] or 1) * int(threads[3] or 1)
    shared = {
        found[2]: (int(found[1]), int(found[3] or 0))
        for found in re.finditer(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+(\w+)(?:\[(\d*)\])?", ptx)
    }
    body = _Body()
    for line in ptx[ptx.index("{", ptx.index(f".entry {name}")) + 1 :].splitlines():
        if line.startswith("}"):  # the kernel's own
            break
        body.line(line)
    return Kernel(name, target[1], _parameters(header), count, body.registers, tuple(body.instructions), body.labels, shared)


def _parameters(header: str) -> dict[str, int]:
    found = {}
    for declared in filter(str.strip, header.split(",")):
        array = re.search(r"\.b8\s+(\w+)\[(\d+)\]\s*$", declared)
        single = re.search(r"\.param\s+\.(\w+)\b.*?(\w+)\s*$", declared, re.S)
        if array is not None:
            found[array[1]] = int(array[2])
        elif single is not None:
            found[single[2]] = width(single[1]) // 8
        else:
            raise NotCoveredError(f"the parameter {declared.strip()}")
    return found


class _Body:
    """What stands between a kernel's braces, read line by line."""

    def __init__(self) -> None:
        self.registers: dict[str, int] = {}
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self.source = ""
        self.pending = ""
        # Names declared in inner braces, as inline assembly has them -> the names they are given here.
        self.scopes: list[dict[str, str]] = []
        self.inner = 0

    def line(self, line: str) -> None:
        code, _, comment = line.partition("//")
        code = code.strip()
        if code.startswith(".loc"):
            self.source = comment.partition("@[")[0].strip() or self.source
            return
        self.pending += " " + code
        while self.pending.strip()[:1] == "{":
            self.open()
        label = re.fullmatch(r"([$%\w]+):", self.pending.strip())
        if label is not None:
            self.labels[self.renamed(label[1])] = len(self.instructions)
            self.pending = ""
            return
        *whole, self.pending = self.pending.split(";")
        for statement in whole:
            self.statement(statement.strip())
        while self.pending.strip()[:1] == "}":
            self.close()

    def open(self) -> None:
        self.scopes.append({})
        self.inner += 1
        self.pending = self.pending.strip()[1:]

    def renamed(self, label: str) -> str:
        """A label of inner braces is theirs alone."""
        return label if not self.scopes or label.startswith("$") else f"{label}${self.inner}_"

    def close(self) -> None:
        self.scopes.pop()
        self.pending = self.pending.strip()[1:]

    def statement(self, text: str) -> None:
        while text[:1] in ("{", "}"):
            if text[0] == "{":
                self.scopes.append({})
                self.inner += 1
            else:
                self.scopes.pop()
            text = text[1:].strip()
        if text.startswith(".reg"):
            self.declare(text)
        elif text and not text.startswith((".pragma", ".loc", ".shared")):
            if text.startswith("."):
                raise NotCoveredError(f"`{text}`")
            self.instruction(text)

    def declare(self, text: str) -> None:
        found = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text, re.S)
        if found is None:
            raise NotCoveredError(f"`{text}`")
        for written in (name.strip() for name in found[2].split(",")):
            name = re.sub(r"<\d+>$", "", written)
            if self.scopes:
                self.scopes[-1][name] = name = f"{name}${self.inner}_"
            self.registers[name] = width(found[1])

    def instruction(self, text: str) -> None:
        for scope in reversed(self.scopes):
            for name, mine in scope.items():
                text = re.sub(rf"(?<![\w%$]){re.escape(name)}(?![\w$])", mine.replace("\\", r"\\"), text)
        guard = re.match(r"@(!?)\s*([%$\w]+)\s+", text)
        rest = text[guard.end() :] if guard else text
        opcode, *more = rest.split(maxsplit=1)
        if opcode.partition(".")[0] == "bra":
            more = [self.renamed(more[0].strip())]
        operands = tuple(o.strip() for o in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]])+", "".join(more)) if o.strip())
        self.instructions.append(
            Instruction(
                opcode,
                operands,
                guard[2] if guard else None,
                bool(guard and guard[1]),
                len(self.instructions),
                self.source,
                " ".join(text.split()),
            )
        )
