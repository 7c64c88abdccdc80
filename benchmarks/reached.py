"""What must.py holds against its floors: speed, ratios of two ways to run, memory, opening, overhead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

import memory
import opening
import zeroskip as zs
from comparison import compare, tuned
from zeroskip.bench import difference, measure, pinned, tolerance
from zeroskip.bench.machine import processors
from zeroskip.cli.inputs import input_arrays
from zeroskip.graph import load

Entry = dict[str, Any]
TURNS = 5


def speedup(path: Path, batch: int, target: str, seconds: float) -> Entry:
    """One network beside onnxruntime."""
    return compare(path, batch=batch, seconds=seconds, rivals=["onnxruntime"], target=target)


def faster(path: Path, other: Path, seconds: float) -> Entry:
    """How many times as fast the first network is as the other, both with answers like onnxruntime's."""
    runs = {}
    for each in (path, other):
        found = compare(each, seconds=0, rivals=["onnxruntime"])["contenders"]["zeroskip"]
        if "median_ms" not in found:
            return {"network": path.stem, "other": other.stem, "reason": found["reason"]}
        session, feeds = _session(each)
        runs[each.stem] = _run(session, feeds)
    with pinned(1):
        return _ratio(path, other.stem, path.stem, runs, seconds) | {"other": other.stem}


def two_threads(path: Path, seconds: float) -> Entry:
    """Two threads against one, both pinned to two processors."""
    with pinned(2):
        (one, feeds), (two, _) = _session(path, 1), _session(path, 2)
        gap = difference(two.run(None, feeds)[0], one.run(None, feeds)[0])
        if gap > (allowed := tolerance(load(path))):
            return {"network": path.stem, "reason": f"answers differ by {gap:.1e} of {allowed:.1e}"}
        return _ratio(path, "1", "2", {"1": _run(one, feeds), "2": _run(two, feeds)}, seconds)


def two_callers(path: Path, seconds: float) -> Entry:
    """Calls a second of one session by two threads of Python against one, pinned to two processors."""
    session, feeds = _session(path)
    with pinned(2):
        for count in (1, 2):  # a context for each
            _calls(session, feeds, count, 0)
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(TURNS):
            for count, found in rates.items():
                found.append(_calls(session, feeds, count, seconds / TURNS))
    one, two = (float(np.median(found)) for found in rates.values())
    return {"network": path.stem, "calls_per_second": {"1": one, "2": two}, "ratio": two / one}


def memory_of(path: Path) -> tuple[str, Entry]:
    """In words; `ratio` of the peaks above what was there, `plan_error` of the plan's sum to the gain."""
    small = Path(__file__).resolve().parents[1] / "examples" / "digits.onnx"
    found = memory.of(path, small)
    ours, theirs = found["zeroskip"], found["onnxruntime"]
    ratios = {
        "ratio": ours["peak_gained"] / theirs["peak_gained"],
        "plan_error": ours["reported"] / ours["gained"] - 1,
    }
    return memory.line(found), found | ratios


def opened(path: Path, runs: int) -> Entry:
    """Seconds to open a session with empty and with full caches."""
    return {"network": path.stem, "processors": processors(), **opening.seconds(path, runs)}


def empty_run(seconds: float) -> float:
    """Microseconds that `run` takes on a network that hands one number on."""
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", shape[:1], shape[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = zs.InferenceSession(model.SerializeToString())
    run = _run(session, {"x": np.ones(1, np.float32)})
    with pinned(1):
        return 1e3 * measure({"run": run}, seconds=min(seconds, 1.0))["run"].median_ms


def words(entry: Entry) -> str:
    """A ratio for the terminal."""
    if "reason" in entry:
        return f"{entry['network']}: {entry['reason']}"
    than = entry.get("other", "one")
    return f"{entry['network']}: {entry['ratio']:.2f}x of {than}"


def _session(path: Path, threads: int = 1) -> tuple[zs.InferenceSession, dict[str, Any]]:
    graph = load(path)
    inputs = input_arrays(graph, None, 1, None, {})
    return tuned(graph, inputs, threads), {graph.inputs[0]: inputs}


def _run(session: zs.InferenceSession, feeds: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: session.run(None, feeds)


def _ratio(
    path: Path, slow: str, fast: str, runs: Mapping[str, Callable[[], object]], seconds: float
) -> Entry:
    times = measure(runs, seconds=seconds)
    return {
        "network": path.stem,
        "times": {name: latency.to_dict() for name, latency in times.items()},
        "ratio": times[slow].median_ms / times[fast].median_ms,
    }


def _calls(session: zs.InferenceSession, feeds: Mapping[str, Any], callers: int, seconds: float) -> float:
    """Calls a second, by so many threads, of at least three each."""
    counts = [0] * callers
    start = time.perf_counter()

    def work(number: int) -> None:
        while counts[number] < 3 or time.perf_counter() < start + seconds:
            session.run(None, feeds)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)
