"""Where a network's time goes: each step's time, its useful work, and how near the machine's limit it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from zeroskip.bench.limits import fma_gflops, read_gbs
from zeroskip.bench.machine import cpu_name
from zeroskip.codegen import Call
from zeroskip.codegen.runtime import ThreadPool
from zeroskip.engine import InferenceSession, Plan
from zeroskip.engine.executor import Context
from zeroskip.engine.prepare import prepare
from zeroskip.graph import Graph, macs_of

Array = np.ndarray[Any, Any]

LEAST_ROUNDS = 5


@dataclass(frozen=True)
class StepTime:
    """One step of the plan.

    Attributes:
        name, op, layer: the node's name and operator; a convolution's shapes in a few words.
        kernel: the algorithm and its variant.
        microseconds: median over the rounds.
        dense_macs, effectual_macs: multiply-accumulates, all and those whose weight is not zero.
        bytes: activations read and written, and constants read, each once.
        limit_microseconds: the longer of two times: the effectual multiply-accumulates at the measured peak,
            the bytes at the measured bandwidth.
    """

    name: str
    op: str
    layer: str
    kernel: str
    microseconds: float
    dense_macs: int
    effectual_macs: int
    bytes: int
    limit_microseconds: float

    @property
    def gflops(self) -> float:
        """10^9 useful operations per second, a multiply-accumulate being two."""
        return 2e-3 * self.effectual_macs / self.microseconds

    @property
    def share_of_limit(self) -> float:
        """The limit's time as a share of the time taken."""
        return self.limit_microseconds / self.microseconds

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "op": self.op,
            "layer": self.layer,
            "kernel": self.kernel,
            "microseconds": round(self.microseconds, 2),
            "dense_macs": self.dense_macs,
            "effectual_macs": self.effectual_macs,
            "bytes": self.bytes,
            "gflops": round(self.gflops, 2),
            "share_of_limit": round(self.share_of_limit, 4),
        }


@dataclass(frozen=True)
class Profile:
    """A network's steps, and what they are measured against.

    Attributes:
        model: the network's name.
        shape: of the input.
        at_once: images that run together, which the steps' figures are of: large batches come in parts. (Of
            what follows for the whole batch, their share.)
        threads: that share each step.
        steps: in order.
        run_ms: median of whole calls of `run`; the steps' sum is larger by Python's part between them.
        peak_gflops: measured multiply-add peak of one core times the threads.
        read_gbs: measured bandwidth of reading as many bytes as the plan holds, times the threads.
        plan_bytes: activations at their peak and constants.
        cpu: the processor's name.
    """

    model: str
    shape: tuple[int, ...]
    at_once: int
    threads: int
    steps: tuple[StepTime, ...]
    run_ms: float
    peak_gflops: float
    read_gbs: float
    plan_bytes: int
    cpu: str

    @property
    def total(self) -> StepTime:
        """All steps as one."""
        sums = {
            key: sum(getattr(step, key) for step in self.steps)
            for key in ("microseconds", "dense_macs", "effectual_macs", "bytes", "limit_microseconds")
        }
        return StepTime("total", "", "", "", **sums)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "model": self.model,
            "shape": list(self.shape),
            "at_once": self.at_once,
            "threads": self.threads,
            "cpu": self.cpu,
            "run_ms": round(self.run_ms, 4),
            "peak_gflops": round(self.peak_gflops, 1),
            "read_gbs": round(self.read_gbs, 1),
            "plan_bytes": self.plan_bytes,
            "total": self.total.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
        }


def profile(
    session: InferenceSession,
    inputs: Array,
    *,
    model: str = "",
    seconds: float = 2.0,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Time every step of a session's plan on one batch.

    Args:
        session: of a network with one input, already tuned where that is wanted.
        inputs: the batch.
        model: a name for the result; the graph's own where it is empty.
        seconds: spent on rounds of all steps one by one and one whole run.
        progress: called with finished and all thousandths.

    Raises:
        InputError: `inputs` does not fit the network.
    """
    feeds = {session.graph.inputs[0]: inputs}
    session.run(None, feeds)
    plan, report = session.plan, progress or (lambda done, total: None)
    at_once = plan.shapes[session.graph.inputs[0]][0] if inputs.ndim else 1
    medians, whole = _medians(session, plan, feeds, seconds, lambda share: report(int(1000 * share), 1000))
    plan_bytes = plan.peak_bytes + plan.weight_bytes
    peak, bandwidth = fma_gflops(plan.target) * plan.threads, read_gbs(plan_bytes, plan.target) * plan.threads
    graph = prepare(session.graph, plan.shapes, threads=plan.threads)
    steps = _steps(plan, graph, medians, peak, bandwidth)
    if plan.then:
        share = at_once / len(inputs)
        steps += _steps(plan.then, graph, medians[len(plan.steps) :], peak, bandwidth, share)
    return Profile(
        model or session.graph.name,
        inputs.shape,
        at_once,
        plan.threads,
        steps,
        1e3 * whole,
        peak,
        bandwidth,
        plan_bytes,
        cpu_name(),
    )


def _medians(
    session: InferenceSession,
    plan: Plan,
    feeds: dict[str, Array],
    seconds: float,
    progress: Callable[[float], None],
) -> tuple[list[float], float]:
    """Seconds of each step, and of whole runs, in turns. Steps run in order: caches are as in a run."""
    pool = ThreadPool(plan.threads) if plan.threads > 1 else None
    part = {name: array[: plan.shapes[name][0]] if array.ndim else array for name, array in feeds.items()}
    runs = _runs(plan, part, pool)
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    while len(rounds) <= LEAST_ROUNDS or time.perf_counter() < begin + seconds:
        marks = [time.perf_counter()]
        for run in runs:
            run()
            marks.append(time.perf_counter())
        start = time.perf_counter()
        session.run(None, feeds)
        now = time.perf_counter()
        rounds.append([*(after - before for before, after in pairwise(marks)), now - start])
        progress(min(1.0, (now - begin) / seconds))
    progress(1.0)  # the last round may have ended before the time did
    *steps, whole = np.median(rounds[1:], axis=0).tolist()  # the first round warms up
    return steps, whole


def _runs(plan: Plan, feeds: dict[str, Array], pool: ThreadPool | None) -> list[Callable[[], None]]:
    """What runs each step; what follows for a whole batch gets this part's values over and over."""
    context = Context(plan)
    outputs = context.fresh_outputs()
    context.run(feeds, outputs, pool)
    features = {} if plan.then is None else {n: np.resize(outputs[n], s) for n, s in plan.then.shapes.items()}
    external, objects = context.bind(feeds, outputs)  # which keeps the arrays
    groups = (context.programs([step]) for step in plan.steps)
    runs: list[Callable[[], None]] = [
        partial(context.run_groups, parts, external, objects, pool) for parts in groups
    ]
    return runs if plan.then is None else runs + _runs(plan.then, features, pool)


def _steps(
    plan: Plan, graph: Graph, medians: list[float], peak: float, bandwidth: float, share: float = 1.0
) -> tuple[StepTime, ...]:
    """The plan's steps; of what all images of a batch share, the `share` of those in `graph`."""
    nodes = {node.name or node.outputs[0]: node for node in graph.nodes}
    rows = []
    for step, taken in zip(plan.steps, medians, strict=False):
        node = nodes.get(step.name)
        dense, effectual = macs_of(node, graph) if node else (0, 0)
        moved = share * sum(call.constant_bytes for call in step.calls if isinstance(call, Call))
        if node is None:  # a copy to or from the caller's arrays
            moved += share * sum(plan.buffers[buffer].bytes for buffer in step.buffers)
        else:
            values = [n for n in (*node.inputs, *node.outputs) if n and n not in graph.constants]
            moved += sum(4 * prod(graph.values[value].sizes) for value in values)
        limit = max(2e-3 * effectual / peak, 1e-3 * moved / bandwidth)
        kernel = f"{step.algorithm} {step.variant}".strip()
        rows.append(
            StepTime(
                step.name,
                step.op,
                step.summary,
                kernel,
                1e6 * taken * share,
                dense,
                effectual,
                round(moved),
                limit,
            )
        )
    return tuple(rows)
