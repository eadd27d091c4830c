"""A kernel that is ready to run: every one of its instructions as a step."""

from __future__ import annotations

from kernels.verification.ptx import instructions
from kernels.verification.ptx.errors import NotCoveredError
from kernels.verification.ptx.steps import Layout, Step
from kernels.verification.ptx.text import Instruction


class Program(Layout):
    """A kernel whose every instruction is known.

    Raises:
      NotCoveredError: an instruction is not; the message names it.
    """

    def __init__(self, ptx: str):
        super().__init__(ptx)
        self.steps: list[Step] = []
        for it in self.kernel.instructions:
            try:
                step = instructions.decode(self, it)
            except NotCoveredError as error:
                raise NotCoveredError(f"not covered: {it}: {error}") from error
            except (ValueError, IndexError, KeyError) as error:
                raise NotCoveredError(f"not covered: {it}: {error!r}") from error
            if it.guard is not None:
                step.guard, step.negated = self.slot(it.guard, 1), it.negated
            self.steps.append(step)
        end = Instruction("end", (), None, False, len(self.steps), "", "the end of the kernel")
        self.steps.append(Step(end, kind="exit"))
