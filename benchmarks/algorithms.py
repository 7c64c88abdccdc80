"""Every convolution algorithm side by side: time and memory over density and shape, with one filter and many.

    python benchmarks/algorithms.py                                  # all shapes; results/algorithms.json
    python benchmarks/algorithms.py --family resnet --filters many   # a part; prints, writes only with --out

One core. Algorithms that skip zero activations get inputs of each density, those that skip zero weights get
weights of it, those that skip both get both; the others are measured once. Answers are compared first, and
what differs gets no time. Times are of the fastest variant's fastest run, the encoding included, as the
selector takes them. A series ends where it is hopeless. Ctrl-C keeps what was measured: the same command goes
on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import results
from shapes import FAMILIES, SHAPES, Shape
from zeroskip.bench import difference, onnxruntime_call, pinned, tolerance
from zeroskip.bench.calibration import calibrate
from zeroskip.bench.convolution import time_convolution
from zeroskip.codegen import resolve
from zeroskip.codegen.cache import generator_digest
from zeroskip.conv import ALGORITHMS, ConvProblem
from zeroskip.encodings import conv_memory
from zeroskip.encodings.lowering import WORDS
from zeroskip.errors import AlgorithmError
from zeroskip.graph import Graph, evaluate

Array = np.ndarray[Any, Any]
Entry = dict[str, Any]
Answers = dict[float, Callable[[Array], Array]]

SKIPS = {name: row.skips for name, row in ALGORITHMS.items() if row.skips}
"""Whose zeros an algorithm skips; one that is not here has the same time whatever is zero."""
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
HEAVY = 5000.0
"""Layers whose best dense algorithm takes so many microseconds get every second density."""
HOPELESS = 2.0
"""A series of rising density ends where it takes so many times as long as the slowest dense algorithm."""
SECONDS_OF_CALIBRATION = 0.1
FILTERS = ("many", "one")


def operands(shape: Shape, filters: int, density: float, skips: str) -> tuple[Array, Array]:
    """Input and weights, standard normal, with zeros at random places of what the algorithm skips.

    The input is positive, as after a ReLU.
    """
    of_x, of_w = (np.random.default_rng([shape.channels, shape.height, which]) for which in (0, 1))
    x = np.abs(of_x.standard_normal(shape.x_shape)).astype(np.float32)
    w = of_w.standard_normal(shape.w_shape(filters)).astype(np.float32)
    if skips in ("activations", "both"):
        x[of_x.random(x.shape) >= density] = 0
    if skips in ("weights", "both"):
        w[of_w.random(w.shape) >= density] = 0
    return x, w


def measured(shape: Shape, filters: int, seconds: float) -> Entry:
    """One shape by every algorithm that accepts it."""
    _, w = operands(shape, filters, 1.0, "")
    problem = ConvProblem(
        *shape.x_shape, w, strides=(shape.stride,) * 2, pads=shape.pads, groups=shape.groups
    )
    refused = {name: row.refuses(problem, resolve()) for name, row in ALGORITHMS.items()}
    entry: Entry = {
        "family": shape.family,
        "name": shape.name,
        "layer": shape.layer,
        "filters": filters,
        "many": filters == shape.filters,
        "density": shape.density,
        "macs": problem.macs,
        "refused": {name: reason for name, reason in refused.items() if reason},
        "measured": [],
    }
    names = [name for name, reason in refused.items() if not reason]
    dense = [name for name in names if name not in SKIPS]
    answers: Answers = {}
    for name in dense:
        entry["measured"].append(_one(shape, filters, name, 1.0, seconds, answers))
    known = [e["microseconds"] for e in entry["measured"] if "microseconds" in e]
    limit = HOPELESS * max(known)
    densities = DENSITIES[::2] if min(known) > HEAVY else DENSITIES
    entry["words"] = {name: words(shape, filters, name) for name in WORDS if name in names}
    for name in names:
        if name not in dense:
            found = (_one(shape, filters, name, density, seconds, answers) for density in densities)
            entry["measured"] += _until(limit, found)
    return entry


def words(shape: Shape, filters: int, name: str) -> list[int]:
    """What a published lowering or encoding takes at each density, for such maps."""
    w_shape, how = shape.w_shape(filters), {"stride": shape.stride, "padding": shape.pads}
    if SKIPS.get(name) != "activations":
        return [conv_memory(name, shape.x_shape, w_shape, **how)] * len(DENSITIES)
    maps = (operands(shape, filters, density, "activations")[0] for density in DENSITIES)
    return [conv_memory(name, shape.x_shape, w_shape, x=x, **how) for x in maps]


def _until(limit: float, series: Iterable[Entry]) -> Iterator[Entry]:
    """The series up to and with the first that takes longer."""
    for found in series:
        yield found
        if found.get("microseconds", 0) > limit:
            return


def _one(shape: Shape, filters: int, name: str, density: float, seconds: float, answers: Answers) -> Entry:
    """One algorithm at one density; `answers` has who answers for the weights of each."""
    skips = SKIPS.get(name, "")
    x, w = operands(shape, filters, density, skips)
    graph = shape.graph(w)
    weights = density if skips in ("weights", "both") else 1.0
    if weights not in answers:
        answers[weights] = _reference(graph)
    try:
        found = time_convolution(graph, x, name, seconds=seconds)
    except AlgorithmError as error:  # refused for its zeros, not its shape
        return {"algorithm": name, "density": density, "reason": str(error)}
    gap, allowed = difference(found.answer, answers[weights](x)), tolerance(graph)
    entry: Entry = {"algorithm": name, "variant": found.variant}
    if skips:
        entry["density"] = density
    if gap > allowed:
        return entry | {"reason": f"its answers differ by {gap:.1e} of the largest output, not {allowed:.1e}"}
    entry |= {
        "microseconds": 1e6 * found.seconds,
        "difference": gap,
        "workspace_bytes": found.workspace_bytes,
        "scratch_bytes": found.scratch_bytes,
    }
    return entry


def _reference(graph: Graph) -> Callable[[Array], Array]:
    """Answers of onnxruntime, where it is installed, else of NumPy."""
    call = onnxruntime_call(graph, np.zeros(graph.values["x"].sizes, np.float32), 1)
    return call or (lambda x: evaluate(graph, {"x": x})[0])


def line(entry: Entry) -> str:
    """One shape for the terminal: each algorithm's best time, or its trouble."""
    best: dict[str, float] = {}
    for found in entry["measured"]:
        if "microseconds" in found:
            name = found["algorithm"]
            best[name] = min(best.get(name, np.inf), found["microseconds"])
    parts = [f"{name} {best[name]:.0f}" for name in sorted(best, key=best.__getitem__)]
    wrong = [f"{e['algorithm']}: {e['reason']}" for e in entry["measured"] if "reason" in e]
    layer = f"{entry['family']} {entry['name']}, {entry['filters']} filter(s)"
    return f"{layer}: {', '.join(parts)} us{'; '.join(['', *wrong])}"


def kept(part: Path, settings: Entry) -> list[Entry]:
    """What an interrupted run of these settings, on this machine and with these kernels, has measured."""
    try:
        found = json.loads(part.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    same = all(found.get(key) == value for key, value in settings.items())
    return found["shapes"] if same and found["machine"] == results.machine() else []


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file (default: results/algorithms.json, if all is run)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="spent on each variant chosen, beyond the selector's runs"
    )
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--filters", nargs="+", choices=FILTERS, default=list(FILTERS))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="layers of these names")
    options = parser.parse_args()
    whole = (options.family, options.filters, options.only) == (list(FAMILIES), list(FILTERS), None)
    out = options.out or (results.FOLDER / "algorithms.json" if whole else None)
    part = out.with_suffix(".part.json") if out else None
    settings = {
        "kernels": generator_digest()[:12],
        "algorithms": {name: SKIPS.get(name, "") for name in ALGORITHMS},
        "densities": list(DENSITIES),
        "seconds": options.seconds,
    }
    with pinned(1):
        found = kept(part, settings) if part else []
        done = {(e["family"], e["name"], e["filters"]) for e in found}
        for shape in SHAPES:
            if shape.family not in options.family or (options.only and shape.name not in options.only):
                continue
            for filters in (shape.filters if kind == "many" else shape.groups for kind in options.filters):
                if (shape.family, shape.name, filters) in done:
                    continue
                found.append(measured(shape, filters, options.seconds))
                if part:
                    results.write(part, settings | {"shapes": found})
                print(line(found[-1]), flush=True)
        fitted = asdict(calibrate(SECONDS_OF_CALIBRATION)) if whole else None
    if out and part:
        results.write(out, settings | {"shapes": found, "roofline": fitted})
        part.unlink(missing_ok=True)
    return 1 if any("reason" in e and "variant" in e for entry in found for e in entry["measured"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
