"""Large batches: their images a few at a time, then the matrix products at the network's end all at once.

Activations of a few images stay in the second cache (16 images of a ResNet-50 take 1.5 times as long together
as one after the other), but matrices are read once for each run: a VGG-16's take 0.4 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from zeroskip.codegen.target import SECOND_CACHE
from zeroskip.engine.plan import Array, Plan
from zeroskip.engine.runner import Runner, Shapes

# Images whose products are done at once, at most: more share no more, and their features need memory.
TOGETHER = 64

Run = Callable[[Mapping[str, Array], Mapping[str, Array]], tuple[dict[str, Array], Plan]]


@dataclass(eq=False)
class Batches:
    """Runs a network that keeps images apart: `head`, then the products at its end, if any, as the `rest`."""

    head: Runner
    rest: Runner | None
    _joined: dict[tuple[Plan, Plan], Plan] = field(default_factory=dict)

    def images(self, shapes: Shapes) -> int:
        """How many images of a batch to run at once for their activations to stay near."""
        count = next(iter(shapes.values()))[0]
        plan = self.head.ready({name: (1, *shape[1:]) for name, shape in shapes.items()}, {}).plan
        return share(count, max(1, SECOND_CACHE // max(1, plan.peak_bytes)))

    def run(self, arrays: Mapping[str, Array], images: int) -> tuple[dict[str, Array], Plan]:
        """The outputs for a batch, so many `images` at a time, and the plan that made them."""
        outputs, plan = in_parts(lambda part, coming: self.head.run(part, {}, coming), arrays, images)
        rest = self.rest
        if rest is None:
            return outputs, plan
        passed = {name: array for name, array in outputs.items() if name in rest.inputs}
        together = share(len(next(iter(passed.values()))), TOGETHER)
        made, then = in_parts(lambda part, coming: rest.run(part, {}, coming), passed, together)
        return {**outputs, **made}, self._plan(plan, then)

    def prepare(self, shapes: Shapes, images: int) -> Plan:
        """Have plans and kernels ready for a batch of these shapes; the plan."""
        count = next(iter(shapes.values()))[0]
        plan = self.head.ready({name: (images, *shape[1:]) for name, shape in shapes.items()}, {}).plan
        if self.rest is None:
            return plan
        together = share(count, TOGETHER)
        features = {name: (together, *plan.output_shapes[name][1:]) for name in self.rest.inputs}
        return self._plan(plan, self.rest.ready(features, {}).plan)

    def _plan(self, plan: Plan, then: Plan) -> Plan:
        if (plan, then) not in self._joined:
            self._joined = {(plan, then): replace(plan, then=then)}
        return self._joined[plan, then]


def share(count: int, most: int) -> int:
    """At most so many of `count`, in parts as equal as can be."""
    return -(-count // -(-count // most))


def in_parts(run: Run, arrays: Mapping[str, Array], images: int) -> tuple[dict[str, Array], Plan]:
    """What `run` gives for so many `images` at a time, of all of them; the plan of the last part.

    It is told what is coming after each part, nothing after the last one.
    """
    count = len(next(iter(arrays.values())))
    whole: dict[str, Array] = {}
    for first in range(0, count, images):
        now, coming = (
            {name: array[start : start + images] for name, array in arrays.items() if start < count}
            for start in (first, first + images)
        )
        part, plan = run(now, coming)
        for name, array in part.items():
            if name not in whole:
                whole[name] = np.empty((count, *array.shape[1:]), array.dtype)
            whole[name][first : first + len(array)] = array
    return whole, plan
