"""One convolution by one algorithm: its fastest variant, timed as layers of a network run, and its memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zeroskip.codegen import Call, resolve
from zeroskip.codegen.runtime import ThreadPool
from zeroskip.conv import ALGORITHMS
from zeroskip.engine.executor import Context, Program
from zeroskip.engine.lowering import lower
from zeroskip.engine.network import Network
from zeroskip.engine.plan import Candidate, Plan
from zeroskip.engine.selection import BEATEN, Layer, Selector, microseconds, worth_measuring
from zeroskip.engine.tuning import Stable
from zeroskip.errors import InputError
from zeroskip.graph import Graph, bind, simplify

Array = np.ndarray[Any, Any]

REPEATS = 5
LEAST_SECONDS = 300e-6
# Between two runs of a layer in a network, as many bytes pass through the caches as that has; more than the
# largest of them leave nothing behind.
SWEPT_AT_LEAST, SWEPT_AT_MOST = 2 << 20, 32 << 20


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
        seconds: spent on the fastest variant, beyond a few runs of each.
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
        best = min(best, _tune(plan, again, feeds, pool), key=microseconds)
    selector.known = {layer.key: (best,)}
    chosen = lower(network.anew(), selector.choose, True)
    context = Context(chosen)
    outputs = context.fresh_outputs()
    context.run(feeds, outputs, pool)
    return ConvTime(
        best.variant, 1e-6 * microseconds(best), *_memory(layer, best, threads), *outputs.values()
    )


def _tune(plan: Plan, layer: Layer, feeds: dict[str, Array], pool: ThreadPool | None) -> Candidate:
    """The fastest of the layer's candidates."""
    context = Context(plan)
    outputs = context.fresh_outputs()
    context.run(feeds, outputs, pool)  # the layer's input is there now
    external, _ = context.bind(feeds, outputs)
    fresh = context.memory(layer.site.x)
    size = plan.weight_bytes + plan.arena_bytes
    swept = np.ones(min(max(size, SWEPT_AT_LEAST), SWEPT_AT_MOST) // 8, np.int64)
    stable, timed, best = Stable(context), [], float("inf")
    for candidate in worth_measuring(layer.candidates):
        (entrant,) = stable.entrants([(layer, candidate)])
        seconds = _seconds(entrant.program, external, pool, (swept, fresh), BEATEN * best)
        timed.append(replace(candidate, microseconds=round(1e6 * seconds, 2)))
        best = min(best, seconds)
    return min(timed, key=microseconds)


def _seconds(
    program: Program,
    external: dict[int, int],
    pool: ThreadPool | None,
    before: tuple[Array, ...],
    beaten: float,
) -> float:
    """The fastest of several runs, the arrays having been read `before` each; of one, if that is `beaten`."""
    program.run(external, pool)
    best, spent, runs = float("inf"), 0.0, 0
    while (runs < REPEATS or spent < LEAST_SECONDS) and (runs == 0 or best <= beaten):
        for array in before:
            array.max(initial=0)
        start = time.perf_counter()
        program.run(external, pool)
        seconds = time.perf_counter() - start
        best, spent, runs = min(best, seconds), spent + seconds, runs + 1
    return best


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
