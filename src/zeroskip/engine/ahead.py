"""Weights of matrix products are asked for by the convolutions before them.

A product reads each of its weights once, as fast as they come from memory, while convolutions leave the way
from there idle. So these ask for the weights of the products to come, and a product finds what it reads first
in the second cache or the last. (Where others use that one too, a MobileNet v2 on Zen 4 takes 4 % less time,
a v1 2 %; else nothing is gained.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zeroskip.codegen import Asking, Call, Part
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.engine.plan import PythonCall, Step

# Bytes; more would not stay in the last cache until they are read, for others use it, too.
AT_MOST = 8 << 20


def ask_ahead(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, those before products asking for their weights: the nearest for what is read first."""
    wanted: list[Part] = []
    made = []
    for step in reversed(steps):
        calls: list[Call | PythonCall] = []
        for call in reversed(step.calls):
            asks = call
            if isinstance(call, Call):
                if call.asking is not None and wanted:
                    asks = _asking(call, call.asking, wanted)
                if call.stream is not None:
                    array = call.arguments[call.stream]
                    assert isinstance(array, np.ndarray)
                    if array.size:  # of weights that are all zero nothing is read
                        wanted.insert(0, Part(array))
            calls.append(asks)
        made.append(replace(step, calls=tuple(reversed(calls))))
    return tuple(reversed(made))


def _asking(call: Call, asking: Asking, wanted: list[Part]) -> Call:
    """The call, which asks for a part of the first of what is wanted; the rest of that stays."""
    first = wanted.pop(0)
    left = min(first.array.nbytes, AT_MOST) - first.offset
    size = min(left, asking.bytes)
    if size < left:
        wanted.insert(0, Part(first.array, first.offset + size))
    turn = round_up(-(-size // asking.turns), LINE)
    task = round_up(-(-size // call.tasks), turn)
    arguments = list(call.arguments)
    arguments[asking.slot : asking.slot + 3] = [first, task, turn]
    return replace(call, arguments=tuple(arguments))
