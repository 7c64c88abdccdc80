"""Where the time goes, layer by layer, and what this machine can do at most.

    python benchmarks/layers.py resnet50.s90 mobilenetv1.s90    # named networks, or ONNX files

Pinned to one processor, tuned on the spot. Writes results/layers.json. `zeroskip bench --profile` shows the
same for one model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

import networks
import results
from comparison import tuned
from zeroskip.bench import pinned
from zeroskip.bench.limits import clock_ghz, fma_gflops, read_gbs
from zeroskip.bench.profile import profile
from zeroskip.cli.inputs import input_arrays
from zeroskip.graph import load
from zeroskip.report.profile import profile_table

READ_BYTES = (16 << 10, 256 << 10, 8 << 20, 256 << 20)
"""Sizes that lie well inside a first, second and third cache, and in none."""
SHIFT = 4
LIMIT_SECONDS = 0.5


def limits(seconds: float) -> dict[str, Any]:
    """One core's clock, multiply-add peak, and read bandwidth by size, vectors aligned and not."""
    return {
        "clock_ghz": clock_ghz(seconds=seconds),
        "fma_gflops": fma_gflops(seconds=seconds),
        "read": [
            {"bytes": size, "aligned_gbs": read_gbs(size, seconds=seconds),
             "shifted_gbs": read_gbs(size, seconds=seconds, shift=SHIFT)}
            for size in READ_BYTES
        ],
    }  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", nargs="*", default=["resnet50.s90"], help="names or ONNX files")
    parser.add_argument("--models", type=Path, help="folder with the named networks, else they are built")
    parser.add_argument("--out", type=Path, default=results.FOLDER / "layers.json")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="spent on each network")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with results.own_cache(), pinned(1):
        machine = limits(min(LIMIT_SECONDS, options.seconds))
        for name in options.network:
            path = Path(name) if name.endswith(".onnx") else networks.find(name, options.models)
            graph = load(path)
            inputs = input_arrays(graph, None, options.batch, None, {})
            measured = profile(tuned(graph, inputs), inputs, model=path.stem, seconds=options.seconds)
            Console(highlight=False).print(profile_table(measured))
            found.append(measured.to_dict())
    results.write(options.out, {"limits": machine, "networks": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
