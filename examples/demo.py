"""The main job on the embedded example: prune to 90 %, tune, and show the network before and after.

    python examples/demo.py            # or `make demo`, which sets up everything first

Prunes `digits.onnx`, refits what stays on the training digits, stores it sparse, and measures both networks
on this computer: top-1 on the digits that took no part in training or fitting, bytes, and latency of zeroskip
and onnxruntime, pinned to one processor, batch 1, in turns. Answers are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import digits
import zeroskip as zs
from zeroskip.bench import RIVALS, difference, measure, pinned, tolerance
from zeroskip.cli.common import progress
from zeroskip.report.before_after import Side, before_after_table
from zeroskip.report.layers import layer_rows, totals
from zeroskip.report.units import times

MODEL = Path(__file__).with_name("digits.onnx")
ANSWERS = 64
"""Held-back digits on which zeroskip and onnxruntime are compared."""


@dataclass(frozen=True)
class Measured:
    """One network's figures so far, its timed calls by runtime, and how far zeroskip is from onnxruntime."""

    side: Side
    calls: dict[str, Callable[[], object]]
    difference: float | None
    allowed: float


def prune(data: digits.Digits, sparsity: float, images: int) -> tuple[zs.Graph, zs.PruneReport, float]:
    """The pruned network, what pruning did, and the seconds it took."""
    start = time.perf_counter()
    with progress("pruning") as bar:
        graph, report = zs.prune(
            zs.simplify(zs.load(MODEL)),
            sparsity=sparsity,
            calibration=data.train_images[:images],
            refine=True,
            progress=lambda done, total, _: bar(done, total),
        )
    return graph, report, time.perf_counter() - start


def prepare(path: Path, data: digits.Digits) -> Measured:
    """Open a network in both runtimes, compare their answers, and count what can be counted."""
    graph = zs.load(path)
    name = graph.inputs[0]
    image, several = data.held_back_images[:1], data.held_back_images[:ANSWERS]
    session = zs.InferenceSession(graph, options=zs.SessionOptions(threads=1, tune=True))
    ours = partial(session.run, None, {name: image})
    ours()  # tunes for this shape
    accuracy = zs.evaluate(
        graph,
        (data.held_back_images, data.held_back_labels),
        batch=ANSWERS,
        options=zs.SessionOptions(threads=1, tune=False),
    )
    bound = zs.simplify(zs.bind(graph, {name: image.shape}))
    total = totals(layer_rows(bound))
    memory = session.plan.memory_bytes
    side = Side(
        0.0, path.stat().st_size, memory, total["weights"], total["nonzero"], total["effectual_macs"],
        top1=accuracy.top1, top5=accuracy.top5,
    )  # fmt: skip
    calls: dict[str, Callable[[], object]] = {"zeroskip": ours}
    gap = None
    if not RIVALS[0].refuses(path):
        expected = RIVALS[0].open(path, several, 1)(several)
        answers = [session.run(None, {name: several[i : i + 1]})[0] for i in range(ANSWERS)]
        gap = difference(np.concatenate(answers), expected)
        calls["onnxruntime"] = partial(RIVALS[0].open(path, image, 1), image)
    return Measured(side, calls, gap, tolerance(bound))


def measured(networks: Sequence[Measured], seconds: float) -> list[Side]:
    """The networks' figures with their latencies, all measured in turns."""
    calls = {f"{i} {name}": call for i, each in enumerate(networks) for name, call in each.calls.items()}
    with progress("measuring") as bar:
        found = measure(calls, seconds=seconds, progress=bar)
    return [
        replace(
            network.side,
            latency_ms=found[f"{i} zeroskip"].median_ms,
            onnxruntime_ms=found[f"{i} onnxruntime"].median_ms if "onnxruntime" in network.calls else None,
        )
        for i, network in enumerate(networks)
    ]


def verdict(before: Side, after: Side, networks: Sequence[Measured]) -> str:
    """What the table does not say: against the rival's better time, and whether the answers agree."""
    lines = []
    if before.onnxruntime_ms and after.onnxruntime_ms:
        ratio = min(before.onnxruntime_ms, after.onnxruntime_ms) / after.latency_ms
        compared = f"{times(ratio)} faster" if ratio >= 1 else f"{times(1 / ratio)} slower"
        lines.append(f"Pruned, zeroskip is {compared} than onnxruntime (the better of its two times).")
    gaps = [network.difference for network in networks if network.difference is not None]
    if gaps:
        allowed = min(network.allowed for network in networks)
        lines.append(
            f"Their answers to {ANSWERS} digits differ by up to {max(gaps):.0e} of the largest output;\n"
            f"up to {allowed:.0e} is rounding."
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prune, measure, print; the exit status is 1 where the two runtimes' answers disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sparsity", type=float, default=0.9, help="share of zeros (default 0.9)")
    parser.add_argument("--seconds", type=float, default=1.0, help="spent on each latency (default 1)")
    parser.add_argument("--images", type=int, default=600, help="training digits to fit on (default 600)")
    parser.add_argument("--output", type=Path, help="keep the pruned network here")
    options = parser.parse_args(arguments)
    console: Any = Console(highlight=False)
    data = digits.load()
    with tempfile.TemporaryDirectory() as folder:
        graph, report, seconds = prune(data, options.sparsity, options.images)
        console.print(f"{report}\n{seconds:.0f} s\n")
        path = options.output or Path(folder) / "digits-pruned.onnx"
        graph.save(path, sparse=True)
        with pinned(1):
            networks = [prepare(each, data) for each in (MODEL, path)]
            before, after = measured(networks, options.seconds)
    console.print(before_after_table(before, after, f"{MODEL.name}, dense and with {after.zeros:.0%} zeros"))
    count = len(data.held_back_labels)
    console.print(f"Top-1 on {count} held-back digits; latency of one image on one processor, median.")
    console.print(verdict(before, after, networks))
    wrong = [n for n in networks if n.difference is not None and n.difference > n.allowed]
    if wrong:
        print("the runtimes' answers differ by more than rounding", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except zs.ZeroskipError as error:
        sys.exit(f"demo: {error}")
