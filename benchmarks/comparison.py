"""One network, zeroskip and its rivals side by side: `zeroskip.bench`, with what result files keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import zeroskip as zs
from zeroskip.bench import Benchmark, benchmark
from zeroskip.bench.rivals import Call
from zeroskip.cli.inputs import input_arrays
from zeroskip.report.layers import layer_rows, totals


def compare(
    path: Path,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 5.0,
    rivals: Sequence[str] | None = None,
    pythons: Mapping[str, str] | None = None,
    target: str = "host",
) -> dict[str, Any]:
    """Times of a tuned session and of the rivals installed here, in turns, answers compared first.

    Raises:
        ModelError: the network cannot be opened.
    """
    graph = zs.load(path)
    inputs = input_arrays(graph, None, batch, None, {})
    sessions: list[zs.InferenceSession] = []

    def ours() -> Call:
        sessions.append(tuned(graph, inputs, threads, target))
        return lambda x: sessions[0].run(None, {graph.inputs[0]: x})[0]

    found = benchmark(
        path, graph, inputs, ours, threads=threads, seconds=seconds, rivals=rivals, pythons=pythons
    )
    return row(found, graph, sessions[0]) | ({} if target == "host" else {"target": target})


def tuned(
    graph: zs.Graph, inputs: np.ndarray[Any, Any], threads: int = 1, target: str = "host"
) -> zs.InferenceSession:
    """A session whose kernels were chosen by measuring on these inputs."""
    options = zs.SessionOptions(
        threads=threads, target=target, tune=True, calibration={graph.inputs[0]: inputs}
    )
    return zs.InferenceSession(graph, options=options)


def row(found: Benchmark, graph: zs.Graph, session: zs.InferenceSession) -> dict[str, Any]:
    """The comparison as a result file has it: times, the network's size, what the plan chose."""
    bound = zs.simplify(zs.bind(graph, {graph.inputs[0]: found.shape}))
    size = totals(layer_rows(bound))
    plan = session.plan
    contenders = {}
    for contender in found.contenders:
        entry: dict[str, Any] = {"version": contender.version}
        if contender.latency:
            entry |= contender.latency.to_dict()
            entry["difference"] = contender.difference
            entry["speedup"] = found.speedup(contender.name)
        else:
            entry["reason"] = contender.reason
        contenders[contender.name] = entry
    return {
        "network": Path(found.model).stem,
        "shape": list(found.shape),
        "threads": found.threads,
        **size,
        "reference": found.reference,
        "tolerance": found.tolerance,
        "contenders": contenders,
        "plan": {
            "peak_bytes": plan.peak_bytes,
            "weight_bytes": plan.weight_bytes,
            "algorithms": dict(Counter(step.algorithm for step in plan.steps if step.algorithm)),
        },
    }


def line(entry: dict[str, Any]) -> str:
    """One comparison for the terminal: the runtimes' medians, and why one has none."""
    parts = []
    for name, found in entry["contenders"].items():
        if "median_ms" in found:
            ratio = "" if name == "zeroskip" else f" ({found['speedup']:.2f}x)"
            parts.append(f"{name} {found['median_ms']:.3f} ms{ratio}")
        else:
            parts.append(f"{name}: {found['reason']}")
    head = f"{entry['network']}, batch {entry['shape'][0]}, {entry['threads']} thread(s)"
    return f"{head}: {'; '.join(parts)}"
