"""Whether zeroskip is as fast as it must be: the floors of the main job, measured in one run.

    python benchmarks/must.py                      # everything, about five minutes; writes results/must.json
    python benchmarks/must.py --only resnet50.s90  # one network; prints, writes nothing unless --out is given

Networks against onnxruntime, pinned to one processor, batch 1, in turns, medians, answers compared first; one
thread against two; how long a session takes to open. Ends with status 1 where a floor is missed. The named
networks come from `../shared` (see networks.py) or from ``--models FOLDER``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import opening
import results
from comparison import compare, line, tuned
from zeroskip.bench import difference, measure, pinned, tolerance
from zeroskip.bench.machine import processors
from zeroskip.cli.inputs import input_arrays
from zeroskip.graph import load


@dataclass(frozen=True)
class Floor:
    """A network and how many times onnxruntime's median must be ours, at least."""

    network: str
    speedup: float


DENSE = 1 / 1.25
FLOORS = (
    Floor("resnet50.s90", 3.5),
    Floor("mobilenetv1.s90", 2.5),
    Floor("mobilenetv2.s90", 1.7),
    Floor("squeezenet1.0-deepcompression", 1.4),
    Floor("alexnet-convs-sparse-0.5421", 3.5),
    Floor("resnet50.dense", DENSE),
    *(Floor(name, DENSE) for name in networks.DENSE_MODELS),
)
THREADED = ("resnet50.s90", "resnet50.dense")
TWO_THREADS = 1.7
OPENED = "resnet50.s90"
COLD_SECONDS, WARM_SECONDS = 3.0, 0.5


def speed(floor: Floor, models: Path | None, seconds: float) -> dict[str, Any]:
    """One network against onnxruntime."""
    entry = compare(networks.find(floor.network, models), seconds=seconds, rivals=["onnxruntime"])
    reached = entry["contenders"]["onnxruntime"].get("speedup")
    met = reached is not None and reached >= floor.speedup
    return entry | {"floor": floor.speedup, "met": met}


def threads(name: str, models: Path | None, seconds: float) -> dict[str, Any]:
    """Two threads against one, both pinned to two processors."""
    graph = load(networks.find(name, models))
    inputs = input_arrays(graph, None, 1, None, {})
    with pinned(2):
        sessions = {f"{n}": tuned(graph, inputs, n) for n in (1, 2)}
        feeds = {graph.inputs[0]: inputs}
        one, two = (session.run(None, feeds)[0] for session in sessions.values())
        if (gap := difference(two, one)) > (allowed := tolerance(graph)):
            return {"network": name, "met": False, "reason": f"answers differ by {gap:.1e} of {allowed:.1e}"}
        times = measure({n: _run(s, feeds) for n, s in sessions.items()}, seconds=seconds)
    ratio = times["1"].median_ms / times["2"].median_ms
    medians = {n: t.to_dict() for n, t in times.items()}
    return {
        "network": name,
        "times": medians,
        "ratio": ratio,
        "floor": TWO_THREADS,
        "met": ratio >= TWO_THREADS,
    }


def _run(session: Any, feeds: dict[str, Any]) -> Any:
    return lambda: session.run(None, feeds)


def opened(models: Path | None, runs: int) -> dict[str, Any]:
    """Seconds to open a session with empty and with full caches."""
    path = networks.find(OPENED, models)
    found = opening.seconds(path, runs)
    met = found["cold"] < COLD_SECONDS and found["warm"] < WARM_SECONDS
    return {
        "network": OPENED,
        "processors": processors(),
        **found,
        "floor_cold": COLD_SECONDS,
        "floor_warm": WARM_SECONDS,
        "met": met,
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="folder with the named networks, else they are built")
    parser.add_argument(
        "--out", type=Path, help="JSON file (default: results/must.json, where all is measured)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="spent on each runtime and network")
    parser.add_argument("--runs", type=int, default=5, help="sessions opened per kind")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="networks, or `threads`, `opening`"
    )
    options = parser.parse_args()
    chosen = [floor for floor in FLOORS if not options.only or floor.network in options.only]
    body: dict[str, Any] = {"speed": [], "threads": [], "opening": []}
    with results.own_cache():
        for floor in chosen:
            body["speed"].append(speed(floor, options.models, options.seconds))
            _tell(line(body["speed"][-1]), body["speed"][-1])
        for name in THREADED if not options.only or "threads" in options.only else ():
            if processors() < 2:
                print("threads: this process may use one processor only; not measured", flush=True)
                break
            body["threads"].append(threads(name, options.models, options.seconds))
            _tell(
                f"{name}: two threads {body['threads'][-1].get('ratio', 0):.2f}x of one", body["threads"][-1]
            )
    if not options.only or "opening" in options.only:
        body["opening"].append(entry := opened(options.models, options.runs))
        _tell(f"{OPENED}: opens in {entry['cold']:.2f} s cold, {entry['warm']:.3f} s warm", entry)
    out = options.out or (None if options.only else results.FOLDER / "must.json")
    if out:
        results.write(out, body)
    return 0 if all(entry["met"] for part in body.values() for entry in part) else 1


def _tell(text: str, entry: dict[str, Any]) -> None:
    print(f"{'ok   ' if entry['met'] else 'SHORT'} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
