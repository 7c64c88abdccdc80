"""`mec` and `im2col` beside onnxruntime and OpenVINO on MEC's cv5-cv12: batch 1, one thread, whole calls.

    python benchmarks/lowering.py                 # results/lowering.json

Every runtime gets the same layer as an ONNX file and a plain array, and gives one back; they take turns on
one processor; medians. The floor: at most 15 % slower than the faster of the two rivals.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import results
import zeroskip as zs
from shapes import MEC, Shape
from zeroskip.bench import RIVALS, difference, measure, pinned, tolerance
from zeroskip.graph import save

SHAPES = MEC[4:]
OURS = ("mec", "im2col", "auto")
BESIDE = ("onnxruntime", "openvino")
FLOOR = 1.15
Array = np.ndarray[Any, Any]


def compare(shape: Shape, seconds: float) -> dict[str, Any]:
    """One layer: our two lowerings and the selector's choice, and the rivals installed here."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape.x_shape).astype(np.float32)
    graph = shape.graph(rng.standard_normal(shape.w_shape(shape.filters)).astype(np.float32))
    entry: dict[str, Any] = {"name": shape.name, "layer": shape.layer, "contenders": {}}
    calls: dict[str, Callable[[Array], Array]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        save(graph, path)
        for rival in (r for r in RIVALS if r.name in BESIDE):
            entry["contenders"][rival.name] = {"reason": rival.refuses(path)}
            if not rival.refuses(path):
                calls[rival.name] = rival.open(path, x, 1)
    for name in OURS:
        options = zs.SessionOptions(algorithm=name, tune=True, calibration={"x": x})
        session = zs.InferenceSession(graph, options)
        step = session.plan.step("conv")
        kernel_us = next(c.microseconds for c in step.candidates if c.variant == step.variant)
        entry["contenders"][name] = {"kernel": f"{step.algorithm} {step.variant}", "kernel_us": kernel_us}
        calls[name] = lambda x, session=session: session.run(None, {"x": x})[0]
    reference = np.array(next(iter(calls.values()))(x))
    for name, call in calls.items():
        gap, allowed = difference(np.array(call(x)), reference), tolerance(graph)
        if gap > allowed:
            entry["contenders"][name]["reason"] = f"its answers differ by {gap:.1e}, not {allowed:.1e}"
    agreeing = {n: partial(c, x) for n, c in calls.items() if not entry["contenders"][n].get("reason")}
    for name, latency in measure(agreeing, seconds=seconds).items():
        entry["contenders"][name] |= latency.to_dict()
    return entry | _judged(entry["contenders"])


def _judged(contenders: dict[str, Any]) -> dict[str, Any]:
    """Of each of ours, how many times as long as the faster rival it takes."""
    medians = {name: c["median_ms"] for name, c in contenders.items() if "median_ms" in c}
    rivals = [medians[name] for name in BESIDE if name in medians]
    ratios = {name: medians[name] / min(rivals) for name in OURS if name in medians and rivals}
    met = all(ratios.get(name, np.inf) <= FLOOR for name in ("mec", "im2col"))
    return {"ratios": ratios, "floor": FLOOR, "met": met}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file (default: results/lowering.json, if all is run)")
    parser.add_argument("--seconds", type=float, default=0.5, help="spent on each runtime and layer")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="layers of these names, e.g. cv12")
    options = parser.parse_args()
    found = []
    with results.own_cache(), pinned(1):
        for shape in SHAPES:
            if options.only and shape.name not in options.only:
                continue
            found.append(entry := compare(shape, options.seconds))
            times = ", ".join(
                f"{name} {c['median_ms']:.3f} ms" if "median_ms" in c else f"{name}: {c['reason']}"
                for name, c in entry["contenders"].items()
            )
            print(f"{'ok   ' if entry['met'] else 'SHORT'} {entry['name']}: {times}", flush=True)
    out = options.out or (None if options.only else results.FOLDER / "lowering.json")
    if out:
        results.write(out, {"layers": found})
    return 0 if all(entry["met"] for entry in found) else 1


if __name__ == "__main__":
    sys.exit(main())
