"""Memory for all that the kernels read and never write: weights, offsets, masks.

They are read once per run, in order; side by side in huge pages they stream without page walks. They move
here layer by layer, so that no two forms of all weights are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from zeroskip.codegen import Argument, Call
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.engine.memory import allocate, give_back_tail
from zeroskip.engine.plan import Array

FIRST, GROWTH, LARGEST = 64 << 10, 8, 64 << 20
"""Bytes of the first chunk, how many times larger the next is, and of the largest."""
SHARED = 64 << 10
"""Arrays of so many bytes may belong to several steps (masks do); larger ones are one step's own."""


@dataclass(eq=False)
class Weights:
    """Chunks of memory, filled one after the other."""

    _chunk: Array = field(default_factory=lambda: np.zeros(0, np.uint8))
    _used: int = 0
    _moved: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    def gather(self, calls: Iterable[Call]) -> list[Call]:
        """A step's calls with their constant arrays moved here, each once, however many calls read it."""
        own: dict[int, Array] = {}
        return [self._moved_call(call, own) for call in calls]

    def trim(self) -> None:
        """Give back what is left over at the end of the last chunk: up to a huge page."""
        give_back_tail(self._chunk, self._used)

    def _moved_call(self, call: Call, own: dict[int, Array]) -> Call:
        arguments: list[Argument] = []
        for argument in call.arguments:
            if isinstance(argument, np.ndarray):
                if id(argument) not in own:
                    own[id(argument)] = self._place(argument)
                argument = own[id(argument)]
            arguments.append(argument)
        return replace(call, arguments=tuple(arguments))

    def _place(self, array: Array) -> Array:
        if id(array) in self._moved:
            return self._moved[id(array)][1]
        size = round_up(array.nbytes, LINE)
        if self._used + size > len(self._chunk):
            self.trim()
            self._chunk = allocate(max(size, FIRST, min(LARGEST, GROWTH * len(self._chunk))))
            self._used = 0
        place = self._chunk[self._used : self._used + array.nbytes].view(array.dtype).reshape(array.shape)
        place[...] = array
        self._used += size
        if array.nbytes <= SHARED:
            self._moved[id(array)] = (array, place)  # the array stays, lest another one has its number
        return place
