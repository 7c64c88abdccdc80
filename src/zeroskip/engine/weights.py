"""One block of memory for all that the kernels read and never write: weights, offsets, masks.

They are read once per run, in order; side by side in huge pages they stream without page walks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zeroskip.codegen import Call
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.engine.memory import allocate
from zeroskip.engine.plan import Array, PythonCall, Step


def gather(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps with their constant arrays moved into one block, each array once."""
    arrays: dict[int, Array] = {}
    for step in steps:
        for call in step.calls:
            if isinstance(call, Call):
                arrays.update({id(a): a for a in call.arguments if isinstance(a, np.ndarray)})
    block = allocate(sum(round_up(array.nbytes, LINE) for array in arrays.values()))
    moved: dict[int, Array] = {}
    at = 0
    for key, array in arrays.items():
        place = block[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
        place[...] = array
        moved[key] = place
        at += round_up(array.nbytes, LINE)

    def moved_call(call: Call | PythonCall) -> Call | PythonCall:
        if not isinstance(call, Call):
            return call
        arguments = tuple(moved[id(a)] if isinstance(a, np.ndarray) else a for a in call.arguments)
        return replace(call, arguments=arguments)

    return tuple(replace(step, calls=tuple(moved_call(call) for call in step.calls)) for step in steps)
