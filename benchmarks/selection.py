"""Selection pays: the selector's network against the best single algorithm for all layers, on real pictures.

    python benchmarks/selection.py                          # ../shared's networks; results/selection.json
    python benchmarks/selection.py --only squeezenet1.1     # prints, writes only with --out

A single algorithm is preferred: layers that it refuses are done by whatever is fastest there. Each session is
tuned on the pictures; answers are compared first; sessions take turns on one processor; medians.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import networks
import results
import zeroskip as zs
from algorithms import SKIPS
from zeroskip.bench import difference, measure, onnxruntime_call, pinned, tolerance
from zeroskip.cli.inputs import input_arrays
from zeroskip.conv import ALGORITHMS
from zeroskip.engine import Plan, Step
from zeroskip.engine.prepare import prepare
from zeroskip.graph import evaluate, load
from zeroskip.report.layers import LayerRow, layer_rows, with_input_zeros

SLACK = 1.02
"""Two medians of one run differ by as much when the same plan runs twice."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Network:
    """A trained network, and where its kind of pictures is."""

    name: str
    pictures: str


NETWORKS = (
    Network("squeezenet1.0-deepcompression", "images"),
    Network("squeezenet1.1", "images"),
    Network("mobilenet_v1_1.0_224", "images"),
    Network("mobilenet_v2_1.0_224_qat", "images"),
    Network("cifar10-resnet20", "cifar10/test.zip"),
)


def compare(network: Network, seconds: float, pictures: Path | None = None) -> dict[str, Any]:
    """One network: the selector, every algorithm preferred, and what won where."""
    graph = load(networks.find(network.name))
    inputs = input_arrays(graph, None, 1, pictures or networks.SHARED / network.pictures, {})
    feeds = {graph.inputs[0]: inputs}
    sessions = {name: _session(graph, feeds, name) for name in ("auto", *ALGORITHMS)}
    used = {name: s for name, s in sessions.items() if name == "auto" or name in _algorithms(s.plan)}
    answer = onnxruntime_call(graph, inputs, 1) or (lambda x: evaluate(graph, {graph.inputs[0]: x})[0])
    expected, allowed = np.array(answer(inputs)), tolerance(graph)
    gaps = {name: difference(s.run(None, feeds)[0], expected) for name, s in used.items()}
    calls = {name: _run(s, feeds) for name, s in used.items() if gaps[name] <= allowed}
    times = measure(calls, seconds=seconds)
    contenders: dict[str, Any] = {}
    for name, session in used.items():
        contenders[name] = {
            "difference": gaps[name],
            "layers": sum(step.algorithm == name for step in session.plan.steps),
            "peak_bytes": session.plan.peak_bytes + session.plan.workspace_bytes,
            "lowered_bytes": _lowered(session.plan),
        }
        contenders[name] |= times[name].to_dict() if name in times else {"reason": "its answers differ"}
    single = min((n for n in times if n != "auto"), key=lambda n: times[n].median_ms)
    ratio = times["auto"].median_ms / times[single].median_ms if "auto" in times else np.inf
    return {
        "network": network.name,
        "tolerance": allowed,
        "contenders": contenders,
        "best_single": single,
        "ratio": ratio,
        "met": bool(ratio <= SLACK),
        "layers": _layers(sessions, _rows(graph, inputs)),
    }


def _session(graph: zs.Graph, feeds: dict[str, Array], name: str) -> zs.InferenceSession:
    return zs.InferenceSession(graph, zs.SessionOptions(prefer=name, tune=True, calibration=feeds))


def _algorithms(plan: Plan) -> set[str]:
    return {step.algorithm for step in plan.steps}


def _run(session: zs.InferenceSession, feeds: dict[str, Array]) -> Callable[[], object]:
    return lambda: session.run(None, feeds)


def _lowered(plan: Plan) -> int:
    """Bytes of lowered, encoded or split input, all convolutions together: what only their own step uses."""
    users = Counter(buffer for step in plan.steps for buffer in set(step.buffers))
    own = {b for step in plan.steps if step.algorithm in ALGORITHMS for b in step.buffers if users[b] == 1}
    return sum(plan.buffers[b].bytes for b in own if plan.buffers[b].source is None)


def _rows(graph: zs.Graph, inputs: Array) -> dict[str, LayerRow]:
    """What is known of each node, the zeros in its input among it, for these pictures."""
    bound = prepare(graph, {graph.inputs[0]: inputs.shape})
    return {row.name: row for row in with_input_zeros(layer_rows(bound), bound, [inputs])}


def _layers(sessions: dict[str, zs.InferenceSession], known: dict[str, LayerRow]) -> list[dict[str, Any]]:
    """Of each convolution what was chosen, and the fastest time of every algorithm."""
    rows = []
    for step in sessions["auto"].plan.steps:
        if step.algorithm not in ALGORITHMS:
            continue
        row = known[step.name]
        micro = {name: _fastest(session.plan.step(step.name), name) for name, session in sessions.items()}
        rows.append(
            {
                "name": step.name,
                "layer": step.summary,
                "input_zeros": row.input_zeros,
                "weight_zeros": 1 - row.nonzero / row.weights,
                "pointwise": ", 1x1" in step.summary,
                "algorithm": step.algorithm,
                "variant": step.variant,
                "skips": SKIPS.get(step.algorithm, ""),
                "microseconds": {name: t for name, t in micro.items() if t is not None},
            }
        )
    return rows


def _fastest(step: Step, name: str) -> float | None:
    """The time of the algorithm's best variant on this layer (``"auto"``: of any), where it was measured."""
    times = [c.microseconds for c in step.candidates if c.algorithm == name or name == "auto"]
    return min((t for t in times if t is not None), default=None)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file (default: results/selection.json, if all is run)")
    parser.add_argument("--seconds", type=float, default=0.5, help="spent on each session")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks")
    parser.add_argument("--images", type=Path, help="pictures instead of those in ../shared")
    options = parser.parse_args()
    found = []
    with results.own_cache(), pinned(1):
        for network in NETWORKS:
            if options.only and network.name not in options.only:
                continue
            found.append(entry := compare(network, options.seconds, options.images))
            times = ", ".join(
                f"{name} {c['median_ms']:.2f}" if "median_ms" in c else f"{name}: {c['reason']}"
                for name, c in entry["contenders"].items()
            )
            print(f"{'ok   ' if entry['met'] else 'SHORT'} {entry['network']}: {times} ms", flush=True)
    out = options.out or (None if options.only else results.FOLDER / "selection.json")
    if out:
        results.write(out, {"networks": found})
    return 0 if all(entry["met"] for entry in found) else 1


if __name__ == "__main__":
    sys.exit(main())
