"""One kernel applied to concrete operands: what a plan is a list of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zeroskip.codegen.compile import Kernel
from zeroskip.codegen.layout import Address


@dataclass(frozen=True)
class Scratch:
    """Stands for the address of the scratch memory; its argument slot + 1 receives the bytes per thread."""


Argument = int | Address | Scratch | np.ndarray
"""A number, a place in a buffer, the scratch memory, or the address of an array (kept alive by the call)."""


@dataclass(frozen=True, eq=False)
class Call:
    """`kernel` run `tasks` times (in any order, by any threads), over one argument block.

    Two tasks must not write the same byte, unless they write the same value; `scratch` is bytes per thread.
    While a call that `overlaps` is not done, threads that find no task of it may begin with the next one.
    """

    kernel: Kernel
    arguments: tuple[Argument, ...]
    tasks: int = 1
    scratch: int = 0
    label: str = ""
    overlaps: bool = False

    @property
    def constant_bytes(self) -> int:
        """Bytes of the arrays the call keeps (weights, offsets, masks)."""
        return sum(argument.nbytes for argument in self.arguments if isinstance(argument, np.ndarray))


def side_by_side(*calls: Call) -> tuple[Call, ...]:
    """Calls of which none reads or overwrites what another one writes: no thread waits between them.

    Those that use scratch memory need equally much: each thread's lies in the same place for all of them.
    """
    assert len({call.scratch for call in calls} - {0}) <= 1, "scratch memory of threads would overlap"
    return (*(replace(call, overlaps=True) for call in calls[:-1]), *calls[-1:])
