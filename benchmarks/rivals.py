"""zeroskip beside every runtime installed here, on any networks; names the runtimes that are missing.

    python benchmarks/rivals.py --models FOLDER_OR_FILE... [--batch 1 16] [--threads 1 2] [--rival NAME...]
    python benchmarks/rivals.py --networks resnet50.s90 mobilenetv1.s90 --batch 1 16
    python benchmarks/rivals.py --networks resnet50.s90 --python deepsparse=ENVIRONMENT/bin/python

Pinned to as many processors as there are threads; runtimes take turns, in this process or, where they need
an environment of their own, in that; medians; answers compared with onnxruntime's first, and no time is given
to a runtime whose answers differ. Writes JSON: by default results/rivals.json; with --add, what that holds of
other networks, batches and threads stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import networks
import results
from comparison import compare, line
from zeroskip.bench import RIVALS
from zeroskip.bench.elsewhere import pythons_of


def added(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The result at `path` with these rows in place of those that compare the same."""
    if not path.is_file():
        return {"comparisons": rows}
    before = json.loads(path.read_text(encoding="utf-8"))
    new = {_compared(row) for row in rows}
    kept = [row for row in before["comparisons"] if _compared(row) not in new]
    command = f"{before['command']}` and `{results.command(sys.argv)}"
    return {"command": command, "comparisons": kept + rows}


def _compared(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["network"], *row["shape"], row["threads"], row.get("target")


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, nargs="+", default=[], help="ONNX files, folders of them")
    parser.add_argument("--networks", nargs="+", default=[], help="named networks, which are built")
    parser.add_argument("--out", type=Path, default=results.FOLDER / "rivals.json")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=5.0, help="spent on each runtime")
    parser.add_argument("--rival", nargs="+", choices=[rival.name for rival in RIVALS], help="only these")
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="NAME=PATH", help="another Python, which has this rival"
    )
    parser.add_argument("--add", action="store_true", help="keep the other comparisons that --out holds")
    parser.add_argument("--target", default="host", help="what zeroskip compiles for, e.g. x86-64-v3")
    options = parser.parse_args()
    paths = networks.files(options.models) + [networks.find(name) for name in options.networks]
    if not paths:
        parser.error("name networks with --models or --networks")
    rows: list[dict[str, Any]] = []
    with results.own_cache():
        for path in paths:
            for batch in options.batch:
                for threads in options.threads:
                    rows.append(
                        compare(
                            path,
                            batch=batch,
                            threads=threads,
                            seconds=options.seconds,
                            rivals=options.rival,
                            pythons=pythons_of(options.python),
                            target=options.target,
                        )
                    )
                    print(line(rows[-1]), flush=True)
    results.write(options.out, added(options.out, rows) if options.add else {"comparisons": rows})
    ours = [row["contenders"]["zeroskip"] for row in rows]
    return 0 if all("median_ms" in entry for entry in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
