"""One kernel applied to concrete operands: what a plan is a list of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zeroskip.codegen.compile import Kernel
from zeroskip.codegen.layout import Address


@dataclass(frozen=True)
class Scratch:
    """Stands for the address of the scratch memory; its argument slot + 1 receives the bytes per thread."""


@dataclass(frozen=True, eq=False)
class Part:
    """Stands for the address of a byte of an array that another call keeps alive."""

    array: np.ndarray
    offset: int = 0


@dataclass(frozen=True)
class Coming:
    """Stands for the address of a byte of what the next run will find in a buffer of the caller's.

    Where no run follows, it and the argument in its slot + 1 are 0.
    """

    buffer: int
    offset: int = 0


Argument = int | Address | Scratch | Part | Coming | np.ndarray
"""A number, a place in a buffer, the scratch memory, or the address of an array (kept alive by the call).

Or of a part of another call's array, or of the next run's."""


@dataclass(frozen=True)
class Asking:
    """How a kernel can ask for memory that later calls read, while it computes.

    Its arguments from `slot` on say for which: the first byte, bytes for each task, bytes for each turn. It
    has so many `turns` in all tasks together, and can ask for so many `bytes`, whole lines, without waiting.
    """

    slot: int
    turns: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Call:
    """`kernel` run `tasks` times (in any order, by any threads), over one argument block.

    Two tasks must not write the same byte, unless they write the same value; `scratch` is bytes per thread.
    While a call that `overlaps` is not done, threads that find no task of it may begin with the next one.
    The array in slot `stream`, if any, is read once, in order, and takes longer to come than to be used.
    """

    kernel: Kernel
    arguments: tuple[Argument, ...]
    tasks: int = 1
    scratch: int = 0
    label: str = ""
    overlaps: bool = False
    stream: int | None = None
    asking: Asking | None = None

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
