"""What will run, in order, and where its data lies: made once for each set of input shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np

from zeroskip.codegen import Call, Plain, Target
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.engine import explanation
from zeroskip.engine.memory import Lifetime, place, whole_pages
from zeroskip.errors import InputError

Array = np.ndarray[Any, Any]
Objects = dict[str, Array]
"""Values held as NumPy arrays, between steps that run in Python."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory of the plan; `source` is the network's input or output that it is bound to at run time."""

    bytes: int
    source: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class PythonCall:
    """A step's part that runs in Python: reads and writes views of buffers, and objects."""

    run: Callable[[Callable[[int, Plain], Array], Objects], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An algorithm considered for a layer: its variant and time, or the reason why not."""

    algorithm: str
    variant: str = ""
    microseconds: float | None = None
    predicted_cycles: float | None = None
    reason: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """What tells it from a layer's other candidates."""
        return self.algorithm, self.variant


@dataclass(frozen=True, eq=False)
class Step:
    """One node's work: kernel calls or Python; the buffers it reads and writes; how it was chosen."""

    name: str
    op: str
    calls: tuple[Call | PythonCall, ...]
    buffers: tuple[int, ...]
    algorithm: str = ""
    variant: str = ""
    candidates: tuple[Candidate, ...] = ()
    how: str = ""
    summary: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps, buffers and their places; `inputs` and `outputs` in the network's order.

    In large batches, whose images run a few at a time, `then` is what runs after them for all at once.
    """

    target: Target
    threads: int
    shapes: Mapping[str, tuple[int, ...]]
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    output_shapes: Mapping[str, tuple[int, ...]]
    object_inputs: tuple[str, ...]
    object_outputs: Mapping[str, str]
    constants: Objects = field(default_factory=dict)
    then: Plan | None = None

    def __post_init__(self) -> None:
        lifetimes: dict[int, Lifetime] = {}
        for number, step in enumerate(self.steps):
            for buffer in step.buffers:
                if self.buffers[buffer].source is None:
                    first = lifetimes[buffer].first if buffer in lifetimes else number
                    lifetimes[buffer] = Lifetime(self.buffers[buffer].bytes, first, number)
        offsets, total = place(lifetimes)
        scratch = [call.scratch for step in self.steps for call in step.calls if isinstance(call, Call)]
        scratch_bytes = round_up(max(scratch, default=0) * self.threads, LINE)
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "scratch_bytes", scratch_bytes)
        object.__setattr__(self, "arena_bytes", whole_pages(total + scratch_bytes) - scratch_bytes)

    offsets: dict[int, int] = field(init=False, repr=False)
    arena_bytes: int = field(init=False)
    """Of the steps before `then`, as `scratch_bytes`: buffers share it over time; it ends with a page."""
    scratch_bytes: int = field(init=False)

    @property
    def peak_bytes(self) -> int:
        """Bytes of activation memory."""
        return self.arena_bytes + (self.then.peak_bytes if self.then else 0)

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, offsets, masks and other constants, each array counted once."""
        seen = {id(a): a.nbytes for a in self.constants.values()}
        for step in self.steps:
            for call in step.calls:
                if isinstance(call, Call):
                    seen.update({id(a): a.nbytes for a in call.arguments if isinstance(a, np.ndarray)})
        return sum(seen.values()) + (self.then.weight_bytes if self.then else 0)

    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch memory, all threads together."""
        return self.scratch_bytes + (self.then.workspace_bytes if self.then else 0)

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that running takes: activations, weights and workspace."""
        return self.peak_bytes + self.weight_bytes + self.workspace_bytes

    def step(self, name: str) -> Step:
        """The step of the node called `name`; `InputError` where there is none."""
        steps = {step.name: step for step in (*self.steps, *(self.then.steps if self.then else ()))}
        if name in steps:
            return steps[name]
        close = get_close_matches(name, list(steps), 3)
        hint = f"did you mean {', '.join(map(repr, close))}?" if close else "plan.explain() lists them"
        raise InputError(f"the plan has no step called {name!r}; {hint}")

    def explain(self, layer: str | None = None) -> str:
        """What runs and why, as text: the whole plan a line per step, or one layer with every candidate."""
        return explanation.of_layer(self.step(layer)) if layer is not None else explanation.of_plan(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything `explain` says, for JSON."""
        return {
            "target": self.target.name,
            "cpu": self.target.cpu,
            "threads": self.threads,
            "inputs": {name: list(shape) for name, shape in self.shapes.items()},
            "peak_bytes": self.peak_bytes,
            "weight_bytes": self.weight_bytes,
            "workspace_bytes": self.workspace_bytes,
            "steps": [_step_dict(step) for step in self.steps],
            "then": self.then.to_dict() if self.then else None,
        }


def _step_dict(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "op": step.op,
        "layer": step.summary,
        "algorithm": step.algorithm,
        "variant": step.variant,
        "chosen_by": step.how,
        "candidates": [
            {
                "algorithm": c.algorithm,
                "variant": c.variant,
                "microseconds": c.microseconds,
                "predicted_cycles": c.predicted_cycles,
                "reason": c.reason,
            }
            for c in step.candidates
        ],
    }
