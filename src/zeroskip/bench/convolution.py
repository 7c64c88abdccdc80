"""One convolution by one algorithm: its fastest variant, timed as the selector does, and its memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zeroskip.codegen import Call, resolve
from zeroskip.codegen.runtime import ThreadPool
from zeroskip.conv import ALGORITHMS
from zeroskip.engine.executor import Context
from zeroskip.engine.lowering import lower
from zeroskip.engine.network import Network
from zeroskip.engine.plan import Candidate, Plan
from zeroskip.engine.selection import Layer, Selector, Tuner
from zeroskip.errors import InputError
from zeroskip.graph import Graph, bind, simplify

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ConvTime:
    """What one algorithm did.

    Attributes:
        variant: the fastest one.
        seconds: of its fastest run on these activations, its input in the second cache, all else out of it;
            without bringing the input into planes and the output out of them.
        workspace_bytes: what it asks of the memory plan: lowered, encoded or split forms of the input.
        scratch_bytes: partial sums, of all threads.
        stored_bytes: packed weights and tables.
        answer: the output.
    """

    variant: str
    seconds: float
    workspace_bytes: int
    scratch_bytes: int
    stored_bytes: int
    answer: Array


def time_convolution(
    graph: Graph, x: Array, algorithm: str, *, seconds: float = 0.01, threads: int = 1, target: str = "host"
) -> ConvTime:
    """Measure every variant worth it, and the fastest for `seconds` more.

    The tuning store is neither read nor written.

    Args:
        graph: a network of one convolution, such as `conv_graph` makes.
        x: its input, of the density that is to be measured.
        algorithm: a name of `zs.algorithms()`.
        seconds: spent on the fastest variant, beyond the selector's own runs.
        threads: that share the work.
        target: as in `SessionOptions`.

    Raises:
        AlgorithmError: the algorithm is unknown or refuses the convolution.
        InputError: the network is not one convolution.
    """
    machine = resolve(target)
    name = graph.inputs[0]
    feeds = {name: np.ascontiguousarray(x)}
    network = Network(simplify(bind(graph, {name: x.shape})), machine, threads)
    selector = Selector(machine, threads, algorithm)
    plan = lower(network, selector.choose, True)
    if len(selector.layers) != 1:
        raise InputError(f"graph: expected one convolution, got {len(selector.layers)}")
    (layer,) = selector.layers
    pool = ThreadPool(threads) if threads > 1 else None
    best = _tune(plan, layer, feeds, pool)
    end = time.perf_counter() + seconds
    again = replace(layer, candidates=(best,))
    while time.perf_counter() < end:
        best = min(best, _tune(plan, again, feeds, pool), key=_microseconds)
    selector.known = {layer.key.text: (best,)}
    network = Network(network.graph, machine, threads, problems=network.problems)
    chosen = lower(network, selector.choose, True)
    context = Context(chosen)
    outputs = context.fresh_outputs()
    context.run(feeds, outputs, pool)
    return ConvTime(
        best.variant, 1e-6 * _microseconds(best), *_memory(layer, best, threads), *outputs.values()
    )


def _microseconds(candidate: Candidate) -> float:
    assert candidate.microseconds is not None, "the tuner measures what it returns"
    return candidate.microseconds


def _tune(plan: Plan, layer: Layer, feeds: dict[str, Array], pool: ThreadPool | None) -> Candidate:
    found = Tuner(Context(plan), feeds, pool, {layer.name: layer}).run()
    return min(found[layer.key], key=_microseconds)


def _memory(layer: Layer, chosen: Candidate, threads: int) -> tuple[int, int, int]:
    """Bytes of workspace, of scratch memory, and stored."""
    asked: list[int] = []

    def allocate(size: int) -> int:
        asked.append(size)
        return -1 - len(asked)

    calls = layer.site.calls(ALGORITHMS[chosen.algorithm], chosen.variant, allocate)
    native = [call for call in calls if isinstance(call, Call)]
    scratch = threads * max(call.scratch for call in native)
    return sum(asked), scratch, sum(call.constant_bytes for call in native)
