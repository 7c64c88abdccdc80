"""Whether zeroskip is as fast, as small and as ready as it must be: every floor, measured in one run.

    python benchmarks/must.py                      # everything, 17 minutes; writes results/must.json
    python benchmarks/must.py --only resnet50.s90  # one network; prints, writes nothing unless --out is given
    python benchmarks/must.py --only threads memory

Networks against onnxruntime, pinned to one processor, in turns, medians, answers compared first; other zeros
against 90 % of them; one thread against two; memory; how long a session takes to open. Ends with status 1
where a floor is missed. The named networks come from `../shared` (see networks.py) or ``--models FOLDER``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import networks
import reached
import results
from comparison import line
from zeroskip.bench.machine import processors

Entry = dict[str, Any]


@dataclass(frozen=True)
class Floor:
    """A network and how many times onnxruntime's median must be ours, at least."""

    network: str
    speedup: float
    batch: int = 1
    target: str = "host"


DENSE = 1 / 1.25
FLOORS = (
    Floor("resnet50.s90", 4.8),
    Floor("mobilenetv1.s90", 4.4),
    Floor("mobilenetv2.s90", 3.0),
    Floor("squeezenet11.s90", 4.4),
    Floor("googlenet.s90", 4.5),
    Floor("vgg16.s90", 4.2),
    Floor("vgg16.s90fc", 5.5),
    Floor("squeezenet1.0-deepcompression", 2.0),
    Floor("alexnet-convs-sparse-0.5421", 5.0),
    Floor("resnet50.dense", 1.1),
    Floor("mobilenetv1.dense", 1.0),
    Floor("mobilenetv2.dense", 1.12),
    Floor("vgg16.dense", 2.3),
    Floor("squeezenet11.dense", 1.2),
    Floor("googlenet.dense", 1.9),
    *(Floor(name, DENSE) for name in networks.DENSE_MODELS),
    Floor("resnet50.s90", 7.0, batch=16),
    Floor("mobilenetv1.s90", 5.2, batch=16),
    Floor("mobilenetv2.s90", 3.6, batch=16),
    Floor("squeezenet11.s90", 5.0, batch=16),
    Floor("vgg16.s90", 7.4, batch=16),
    Floor("squeezenet1.0-deepcompression", 2.3, batch=16),
    Floor("resnet50.dense", 1.05, batch=16),
    Floor("mobilenetv1.dense", 1.0, batch=16),
    Floor("mobilenetv2.dense", 1.1, batch=16),
    Floor("resnet50.s90", 2.4, target="x86-64-v3"),
)
LESS_PRUNED = ("resnet50", "vgg16", "googlenet", "mobilenetv1", "mobilenetv2", "squeezenet11")
# A network, another one, and how many times as fast as that it must be: fewer zeros, more, in blocks.
SPARSITIES = (
    *((f"{net}.s80", f"{net}.s90", 0.6) for net in LESS_PRUNED),
    *((f"{net}.s95", f"{net}.s90", 1.5) for net in ("resnet50", "vgg16")),
    ("resnet50.s90o4", "resnet50.s90", 1.25),
)
THREADED = {
    "resnet50.s90": 1.8,
    "resnet50.dense": 1.8,
    "vgg16.s90": 1.8,
    "mobilenetv1.s90": 1.6,
    "mobilenetv2.s90": 1.6,
}
CALLED_TWICE = {"resnet50.s90": 1.9, "mobilenetv1.s90": 1.9}
# At most so large a part of onnxruntime's peak; and how far the plan's bytes may be from what was gained.
MEMORY = {"resnet50.s90": 0.5, "resnet50.dense": 1.0}
PLAN_ERROR = 0.1
# These need two processors.
PAIRED = ("threads", "callers")
OPENED = "resnet50.s90"
SECONDS_AT_MOST = {"cold": 1.5, "warm": 0.3, "tuning": 20.0}
OVERHEAD_MICROSECONDS = 20.0


def speed(options: argparse.Namespace) -> Iterator[tuple[str, Entry]]:
    """The networks beside onnxruntime."""
    for floor in FLOORS:
        if wanted(options, floor.network, "speed"):
            path = networks.find(floor.network, options.models)
            entry = reached.speedup(path, floor.batch, floor.target, options.seconds)
            ratio = entry["contenders"]["onnxruntime"].get("speedup")
            met = ratio is not None and ratio >= floor.speedup
            yield line(entry), entry | {"floor": floor.speedup, "met": met}


def ratios(
    measure: Callable[..., Entry],
    options: argparse.Namespace,
    section: str,
    floors: Sequence[tuple[Any, ...]],
) -> Iterator[tuple[str, Entry]]:
    """Rows of (names of networks, how many times as fast the first must be)."""
    if not wanted(options, section):
        return
    for *names, floor in floors:
        if section in PAIRED and processors() < 2:
            entry = {"network": names[0], "reason": "this process may use one processor only"}
        else:
            entry = measure(*(networks.find(name, options.models) for name in names), options.seconds)
        entry |= {"floor": floor, "met": entry.get("ratio", 0) >= floor}
        yield f"{section}: {reached.words(entry)}", entry


def memory(options: argparse.Namespace) -> Iterator[tuple[str, Entry]]:
    """Resident memory beside onnxruntime's, and beside what the plan reports."""
    for name, floor in MEMORY.items():
        if wanted(options, "memory"):
            text, entry = reached.memory_of(networks.find(name, options.models))
            met = entry["ratio"] <= floor and abs(entry["plan_error"]) <= PLAN_ERROR
            yield text, entry | {"floor": floor, "met": met}


def opening(options: argparse.Namespace) -> Iterator[tuple[str, Entry]]:
    """Seconds to open a session with empty and with full caches, and to tune it."""
    if wanted(options, "opening"):
        entry = reached.opened(networks.find(OPENED, options.models), options.runs)
        met = all(entry[name] < most for name, most in SECONDS_AT_MOST.items())
        times = ", ".join(f"{entry[name]:.2f} s {name}" for name in SECONDS_AT_MOST)
        yield f"{OPENED}: opens in {times}", entry | {"floors": SECONDS_AT_MOST, "met": met}


def overhead(options: argparse.Namespace) -> Iterator[tuple[str, Entry]]:
    """What `run` takes where there is nothing to do."""
    if wanted(options, "overhead"):
        micro = reached.empty_run(options.seconds)
        entry = {"microseconds": micro, "floor": OVERHEAD_MICROSECONDS, "met": micro < OVERHEAD_MICROSECONDS}
        yield f"an empty network runs in {micro:.1f} us", entry


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[tuple[str, Entry]]]] = {
    "speed": speed,
    "sparsity": partial(ratios, reached.faster, section="sparsity", floors=SPARSITIES),
    "threads": partial(ratios, reached.two_threads, section="threads", floors=tuple(THREADED.items())),
    "callers": partial(ratios, reached.two_callers, section="callers", floors=tuple(CALLED_TWICE.items())),
    "memory": memory,
    "opening": opening,
    "overhead": overhead,
}


def wanted(options: argparse.Namespace, *names: str) -> bool:
    """Whether any of these names was asked for, or nothing in particular."""
    return not options.only or any(name in options.only for name in names)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="folder with the named networks, else they are built")
    parser.add_argument(
        "--out", type=Path, help="JSON file (default: results/must.json, where all is measured)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="spent on each runtime and network")
    parser.add_argument("--runs", type=int, default=5, help="sessions opened per kind")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help=f"networks, or sections: {', '.join(SECTIONS)}"
    )
    options = parser.parse_args()
    body: dict[str, list[Entry]] = {name: [] for name in SECTIONS}
    with results.own_cache():
        for name, section in SECTIONS.items():
            for text, entry in section(options):
                body[name].append(entry)
                print(f"{'ok   ' if entry['met'] else 'SHORT'} {text}", flush=True)
    out = options.out or (None if options.only else results.FOLDER / "must.json")
    if out:
        results.write(out, body)
    return 0 if all(entry["met"] for entries in body.values() for entry in entries) else 1


if __name__ == "__main__":
    sys.exit(main())
