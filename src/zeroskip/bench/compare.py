"""Latency against other runtimes: answers compared first, then interleaved rounds on pinned processors."""

from __future__ import annotations

import math
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import zeroskip
from zeroskip.bench import timing
from zeroskip.bench.agreement import difference, tolerance
from zeroskip.bench.elsewhere import Elsewhere
from zeroskip.bench.machine import cpu_name
from zeroskip.bench.rivals import RIVALS, Call
from zeroskip.errors import InputError
from zeroskip.graph import Graph, evaluate, save

Array = np.ndarray[Any, Any]

OURS = "zeroskip"


@dataclass(frozen=True)
class Contender:
    """One runtime's part in the comparison.

    Attributes:
        name, version: of the runtime; the version is empty where it is not installed.
        reason: why it has no time, in words; empty where it has one.
        difference: largest difference from the reference answer, as a share of the largest output.
        latency: its times, where its answers agree.
    """

    name: str
    version: str = ""
    reason: str = ""
    difference: float | None = None
    latency: timing.Latency | None = None


@dataclass(frozen=True)
class Benchmark:
    """The comparison of one model.

    Attributes:
        model: the file's name.
        shape: of the input.
        threads: of every contender.
        reference: whose answers the others were compared with.
        tolerance: the largest difference that counts as the same answer.
        contenders: ours first, then the rivals in the registry's order.
        cpu: the processor's name.
    """

    model: str
    shape: tuple[int, ...]
    threads: int
    reference: str
    tolerance: float
    contenders: tuple[Contender, ...]
    cpu: str

    def speedup(self, rival: str) -> float | None:
        """How many times our median goes into the rival's; None where one of them has no time."""
        ours, theirs = (
            next((c.latency for c in self.contenders if c.name == n), None) for n in (OURS, rival)
        )
        return theirs.median_ms / ours.median_ms if ours and theirs else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with machine and versions."""
        rows = []
        for contender in self.contenders:
            gap = contender.difference
            finite = None if gap is None or math.isinf(gap) else gap
            rows.append(asdict(contender) | {"difference": finite, "speedup": self.speedup(contender.name)})
        machine = {"cpu": self.cpu, "system": platform.platform(), "python": platform.python_version()}
        return asdict(self) | {"contenders": rows, "machine": machine}


def benchmark(
    model: Path,
    graph: Graph,
    inputs: Array,
    open_ours: Callable[[], Call],
    *,
    threads: int = 1,
    seconds: float = 2.0,
    rivals: Sequence[str] | None = None,
    pythons: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Time zeroskip and every rival installed here on one model.

    Args:
        model: the ONNX file, which the rivals read themselves.
        graph: the same network, for the tolerance and, without onnxruntime, the reference answer.
        inputs: the input of every call.
        open_ours: makes our session; called with the processors pinned, as the rivals' are.
        threads: for each contender; the process is pinned to as many processors.
        seconds: spent on each contender.
        rivals: names to compare with; None means all.
        pythons: executables of other Pythons that have a rival installed, by its name.
        progress: called with finished and all turns.

    Raises:
        InputError: an unknown rival, more threads than processors, or a Python that cannot be run.
        ModelError: the network cannot be opened.
    """
    names = [r.name for r in RIVALS]
    elsewhere = pythons or {}
    if unknown := sorted({*(rivals or ()), *elsewhere} - set(names)):
        raise InputError(f"no rival is named {unknown[0]!r}; known: {', '.join(names)}")
    with timing.pinned(threads), ExitStack() as opened:
        calls: dict[str, Call] = {OURS: open_ours()}
        found = {OURS: Contender(OURS, zeroskip.__version__)}
        for rival in (r for r in RIVALS if rivals is None or r.name in rivals):
            name, version, reason = rival.name, "", ""
            try:
                if name in elsewhere:
                    other = Elsewhere(elsewhere[name], rival, model, inputs, threads)
                    opened.callback(other.close)
                    calls[name], version = other, other.version
                elif not (reason := rival.refuses(model)):
                    call = rival.open(model, inputs, threads)
                    call(inputs)
                    calls[name] = call
            except InputError:
                raise
            except Exception as error:  # a rival's own trouble must not end the comparison
                reason = f"failed: {' '.join(str(error).split())}"
            found[name] = Contender(name, version or rival.version(), reason)
        reference, expected = _reference(graph, inputs, calls)
        bound = tolerance(graph)
        found = _compared(found, calls, inputs, expected, bound)
        agreeing: dict[str, Callable[[], object] | timing.Timed] = {
            name: call if isinstance(call, Elsewhere) else partial(call, inputs)
            for name, call in calls.items()
            if not found[name].reason
        }
        times = timing.measure(agreeing, seconds=seconds, progress=progress)
    rows = tuple(replace(c, latency=times.get(c.name)) for c in found.values())
    return Benchmark(model.name, inputs.shape, threads, reference, bound, rows, cpu_name())


def _reference(graph: Graph, inputs: Array, calls: Mapping[str, Call]) -> tuple[str, Array]:
    """Onnxruntime is the oracle; where it is not installed, the NumPy meaning of the graph."""
    if "onnxruntime" in calls:
        return "onnxruntime", np.array(calls["onnxruntime"](inputs))
    return "numpy", evaluate(graph, {graph.inputs[0]: inputs})[0]


def _compared(
    found: Mapping[str, Contender], calls: Mapping[str, Call], inputs: Array, expected: Array, bound: float
) -> dict[str, Contender]:
    compared = dict(found)
    for name, call in calls.items():
        gap = difference(np.array(call(inputs)), expected)
        reason = (
            ""
            if gap <= bound
            else f"its answers differ by {gap:.1e} of the largest output (allowed {bound:.1e})"
        )
        compared[name] = replace(found[name], difference=gap, reason=reason)
    return compared


def onnxruntime_call(graph: Graph, inputs: Array, threads: int) -> Call | None:
    """Onnxruntime on a graph in memory, or None where it is not installed."""
    rival = RIVALS[0]
    if rival.refuses(Path()):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(graph, path)
        return rival.open(path, inputs, threads)
