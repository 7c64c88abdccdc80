"""Plans of one network, a plan for each set of input shapes, and running them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zeroskip.codegen import Target
from zeroskip.codegen.compile import short_turns, uncollected
from zeroskip.codegen.runtime import ThreadPool
from zeroskip.codegen.target import runs_here
from zeroskip.engine import store
from zeroskip.engine.convolutions import Choice, ConvSite
from zeroskip.engine.executor import Context
from zeroskip.engine.lowering import lower, problems_of
from zeroskip.engine.memory import give_back, memory_limit
from zeroskip.engine.network import Network, check_size
from zeroskip.engine.plan import Array, Plan
from zeroskip.engine.prepare import prepare
from zeroskip.engine.selection import Selector
from zeroskip.engine.tuning import Tuner
from zeroskip.errors import ModelError
from zeroskip.graph import Graph

if TYPE_CHECKING:
    from zeroskip.engine.session import SessionOptions

PLANS_KEPT = 8
"""Plans for as many input shapes are kept; the least recently used goes first."""

Shapes = Mapping[str, tuple[int, ...]]


class Ready:
    """A plan with its contexts; each run takes one, so that runs may go on side by side."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._free: list[Context] = []
        self._lock = threading.Lock()

    def take(self) -> Context:
        """A context that nobody else has."""
        with self._lock:
            if self._free:
                return self._free.pop()
        try:
            return Context(self.plan)
        except MemoryError as error:
            raise _too_large(self.plan.arena_bytes + self.plan.scratch_bytes) from error

    def give(self, context: Context) -> None:
        """Bring a context back."""
        with self._lock:
            self._free.append(context)

    def prepare(self) -> None:
        """Have one context ready, and the kernels compiled."""
        context = self.take()
        context.prepare()
        self.give(context)


@dataclass(eq=False)
class Runner:
    """Runs a network, with a plan for each set of input shapes; plans have their own form of the weights.

    `read` gives the simplified network, `fresh` is what it gave for the first plan. `forced` says whether the
    options name an algorithm; `pool` is shared with other runners of the session.
    """

    read: Callable[[], Graph]
    fresh: Graph | None
    inputs: tuple[str, ...]
    options: SessionOptions
    target: Target
    threads: int
    pool: ThreadPool | None
    forced: bool
    plans: OrderedDict[object, Ready] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def run(
        self,
        data: Mapping[str, Array],
        numbers: Mapping[str, Array],
        coming: Mapping[str, Array] | None = None,
    ) -> tuple[dict[str, Array], Plan]:
        """The outputs by name, and the plan that made them; `numbers` are inputs that decide shapes.

        `coming` is what the next run will be given, where that is known.
        """
        ready = self.ready({name: array.shape for name, array in {**data, **numbers}.items()}, numbers)
        context = ready.take()
        try:
            outputs = context.fresh_outputs()
            pool = self.pool if self.pool is not None and self.pool.lock.acquire(blocking=False) else None
            try:
                context.run(data, outputs, pool, coming)
            finally:
                if pool is not None:
                    pool.lock.release()
        finally:
            ready.give(context)
        return outputs, ready.plan

    def ready(self, shapes: Shapes, numbers: Mapping[str, Array]) -> Ready:
        """The plan for these shapes, made where there is none yet."""
        key = (
            tuple(sorted(shapes.items())),
            tuple((name, array.tobytes()) for name, array in sorted(numbers.items())),
        )
        with self._lock:
            found = self.plans.get(key)
            if found is None:
                # not while tuning, which takes long: others in this process make dead objects, too
                with nullcontext() if self.options.tune else uncollected():
                    found = Ready(self._make_plan(shapes, numbers))
                    found.prepare()
                self.plans[key] = found
                give_back()
                while len(self.plans) > PLANS_KEPT:
                    self.plans.popitem(last=False)
            self.plans.move_to_end(key)
            return found

    def bound(self, shapes: Shapes, numbers: Mapping[str, Array]) -> Graph:
        """The simplified network for these shapes; nobody else keeps its weights, unless it was a `Graph`."""
        simple, self.fresh = self.fresh or self.read(), None
        return prepare(simple, shapes, numbers, threads=self.threads)

    def _make_plan(self, shapes: Shapes, numbers: Mapping[str, Array]) -> Plan:
        network = Network(
            self.bound(shapes, numbers),
            self.target,
            self.threads,
            in_place=True,
            ahead=runs_here(self.target),
        )
        limit = memory_limit()
        check_size(network, limit)
        selector = Selector(self.target, self.threads, self.options.algorithm, self.options.prefer)
        problems = problems_of(network, self.forced)
        keys = dict.fromkeys(map(selector.key, problems))
        selector.known = store.read(keys)
        selector.known |= store.read(store.predicted(key) for key in keys if key not in selector.known)
        tune = self.options.tune and not all(selector.measured(p) for p in problems)
        del problems  # what stays in memory of each layer is the form that its algorithm reads

        def choose(name: str, site: ConvSite) -> Choice:
            choice = selector.choose(name, site)
            if not tune:
                selector.layers.clear()
            return choice

        try:
            with uncollected(), short_turns:
                plan = lower(network, choose, self.forced, release=not tune)
            store.write(selector.fresh)
            size = plan.arena_bytes + plan.workspace_bytes
            if limit is not None and size > limit:
                raise _too_large(size)
            if tune:
                selector.known |= self._tune(plan, selector, self._calibration(network.graph))
                tune = False
                del plan
                selector.layers.clear()
                network = network.anew()  # the one that was lowered goes, with its form of the weights
                plan = lower(network, choose, self.forced, release=True)
        except MemoryError as error:
            name = network.graph.name or "the network"
            raise ModelError(f"{name} does not fit into memory: {error}") from error
        return plan

    def _tune(self, plan: Plan, selector: Selector, inputs: Mapping[str, Array]) -> store.Remembered:
        """Measure what is not known, and remember it; what an earlier tuning measured need not be again."""
        layers = {layer.key: layer for layer in selector.layers}
        partial = store.read(map(store.unfinished, layers))
        measured = {
            key: selector.current(partial.get(store.unfinished(key), ()), layer.site.problem)
            for key, layer in layers.items()
        }
        tuner = Tuner(Context(plan), inputs, self.pool, selector.layers, measured)
        try:
            tuner.run(self.options.progress)
        finally:  # also after an interrupt
            done = {store.unfinished(key): () for key in tuner.found}
            todo = {store.unfinished(key): times for key, times in tuner.unfinished.items()}
            store.write({**tuner.found, **done, **todo})
        return tuner.found

    def _calibration(self, graph: Graph) -> dict[str, Array]:
        """What to measure on: the arrays given for it, or random numbers."""
        given = self.options.calibration or {}
        random = np.random.default_rng(0)
        arrays = {}
        for name in graph.inputs:
            shape, dtype = graph.values[name].sizes, graph.values[name].dtype
            there = np.shape(given[name]) if name in given else ()
            if shape and there[1:] == shape[1:] and there[:1] >= shape[:1]:
                arrays[name] = np.ascontiguousarray(given[name][: shape[0]], dtype)
            else:
                arrays[name] = np.ascontiguousarray(random.standard_normal(shape), dtype)
        return arrays


def _too_large(size: int) -> ModelError:
    return ModelError(
        f"the activations take {size / 1e9:.1f} GB, which this machine has not; use a smaller batch or input"
    )
