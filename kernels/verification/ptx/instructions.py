"""From the name of an instruction to who knows what it does."""

from __future__ import annotations

from collections.abc import Callable

from kernels.verification.ptx import bulk, copies, integers, movement, tensor_cores, values, warps, wgmma
from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.steps import Layout, Step, computing
from kernels.verification.ptx.text import Instruction

Decoder = Callable[[Layout, Instruction], Step | None]


def decode(program: Layout, it: Instruction) -> Step:
    """The step of an instruction.

    Raises:
      NotCoveredError: it, or a part of it, is not known.
    """
    special = _DECODERS.get(it.parts[0])
    step = special(program, it) if special is not None else None
    if step is None:
        step = computing(program, it)
    if step is None:
        raise NotCoveredError("the instruction is not known")
    return step


def _branch(program: Layout, it: Instruction) -> Step:
    if it.parts[1:] not in ([], ["uni"]):
        raise NotCoveredError("the branch is not known")
    return Step(it, kind="branch", target=program.kernel.labels[it.operands[0]])


def _exit(program: Layout, it: Instruction) -> Step:
    return Step(it, kind="exit")


def _barrier(program: Layout, it: Instruction) -> Step:
    if it.opcode == "bar.warp.sync":
        return Step(it, lambda block, mask: block.whole_warps(mask, it))
    if it.opcode not in ("bar.sync", "barrier.sync", "barrier.sync.aligned", "barrier.cta.sync.aligned"):
        raise NotCoveredError("a barrier of this form")
    if it.operands == ("0",):
        return Step(it, kind="barrier")
    if len(it.operands) != 2:
        raise NotCoveredError("a barrier of this form")
    name, count = reads = tuple(program.slot(o, 32) for o in it.operands)
    return Step(it, lambda block, mask: block.name_barrier(name, count, mask), "barrier", target=1, reads=reads)


def _copy(program: Layout, it: Instruction) -> Step | None:
    return bulk.copy(program, it) if it.opcode.startswith("cp.async.bulk") else copies.decode(program, it)


def _nothing(program: Layout, it: Instruction) -> Step:
    """What changes speed alone: registers that move between warps, descriptors that are fetched ahead."""
    return Step(it, lambda block, mask: None)


def _prefetch(program: Layout, it: Instruction) -> Step:
    if it.opcode != "prefetch.tensormap":
        raise NotCoveredError("the prefetch is not known")
    return _nothing(program, it)


def _fence(program: Layout, it: Instruction) -> Step:
    if it.opcode == "fence.mbarrier_init.release.cluster":
        return _nothing(program, it)
    if it.opcode.startswith("fence.proxy.async"):
        return Step(it, lambda block, mask: block.fence(mask))
    raise NotCoveredError("the fence is not known")


def _cache_policy(program: Layout, it: Instruction) -> Step:
    """createpolicy makes a hint for caches, which nothing here has."""
    to = program.slot(it.operands[0], 64)
    hint = values.constant("0", 64)
    return Step(it, lambda block, mask: block.write(to, hint, mask))


def _logic(program: Layout, it: Instruction) -> Step:
    """lop3, whose last operand is the table of its function."""
    if it.opcode != "lop3.b32":
        raise NotCoveredError("logic of this form")
    function, to = integers.logic(int(it.operands[4], 0)), program.slot(it.operands[0], 32)
    a, b, c = sources = tuple(program.slot(o, 32) for o in it.operands[1:4])
    return Step(it, lambda block, mask: block.write(to, function(block.R[a], block.R[b], block.R[c]), mask), reads=sources)


_DECODERS: dict[str, Decoder] = {
    "bra": _branch,
    "ret": _exit,
    "exit": _exit,
    "bar": _barrier,
    "barrier": _barrier,
    "fence": _fence,
    "createpolicy": _cache_policy,
    "ld": movement.memory,
    "st": movement.memory,
    "mov": movement.move,
    "atom": movement.atomic,
    "red": movement.atomic,
    "lop3": _logic,
    "prmt": movement.permute,
    "cvta": movement.convert_address,
    "cp": _copy,
    "mbarrier": bulk.barrier,
    "elect": bulk.elect,
    "setmaxnreg": _nothing,
    "prefetch": _prefetch,
    "setp": warps.compare_halves,
    "shfl": warps.shuffle,
    "redux": warps.reduction,
    "ldmatrix": tensor_cores.matrices,
    "stmatrix": tensor_cores.matrices,
    "mma": tensor_cores.product,
    "wgmma": wgmma.decode,
}
