"""How much memory a session takes, beside onnxruntime's, in processes of their own.

    python benchmarks/memory.py                # resnet50.s90 and resnet50.dense; writes results/memory.json
    python benchmarks/memory.py MODEL ...      # any files or named networks; prints, writes only with --out

Resident bytes as Linux counts them: of the process at its peak, and what opening a session and running one
picture added (what the imports take, LLVM above all, and the picture are there before; the answers are
counted out). The tuning and compiling are done before, in another process. Beside them stands what
`session.plan` reports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx

import networks
import results
from zeroskip.errors import ZeroskipError

DEFAULT = ("resnet50.s90", "resnet50.dense")
REPORTED = ("activations", "weights", "workspace")

_CHILD = """
import gc, json, sys
from pathlib import Path
import numpy as np

def kilobytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

def ours(path, **options):
    import zeroskip as zs
    return zs.InferenceSession(path, zs.SessionOptions(**options))

def theirs(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

def picture(path):
    name, shape = json.loads(inputs)[path]
    return {name: np.random.default_rng(7).standard_normal(shape, np.float32)}

runtime, model, small, inputs = sys.argv[1:]
if runtime == "tune":
    ours(small)
    ours(model, tune=True)
    sys.exit()
open_session = ours if runtime == "zeroskip" else theirs
given = picture(model)  # the caller's
open_session(small).run(None, picture(small))
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = kilobytes("VmRSS")
session = open_session(model)
answers = session.run(None, given)
gained = kilobytes("VmRSS") - before - sum(a.nbytes for a in answers) // 1024
found = {"peak": kilobytes("VmHWM"), "peak_gained": kilobytes("VmHWM") - before, "gained": gained}
if runtime == "zeroskip":
    plan = session.plan
    found |= {"activations": plan.peak_bytes, "weights": plan.weight_bytes, "workspace": plan.workspace_bytes}
print(json.dumps({key: value * (1 if key in ("activations", "weights", "workspace") else 1024)
                  for key, value in found.items()}))
"""


def of(model: Path, small: Path) -> dict[str, Any]:
    """Bytes of both runtimes on one model; `small` is a model that each opens first."""
    inputs = json.dumps({str(path): _input(path) for path in (model, small)})
    _child("tune", model, small, inputs)
    ours, theirs = (
        json.loads(_child(runtime, model, small, inputs)) for runtime in ("zeroskip", "onnxruntime")
    )
    ours["reported"] = sum(ours[part] for part in REPORTED)
    return {"network": model.stem, "zeroskip": ours, "onnxruntime": theirs}


def _child(runtime: str, model: Path, small: Path, inputs: str) -> str:
    command = [sys.executable, "-c", _CHILD, runtime, str(model), str(small), inputs]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ZeroskipError(f"{model}: no memory measured of {runtime}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _input(path: Path) -> tuple[str, list[int]]:
    """Name and shape of the network's input."""
    value = onnx.load(path, load_external_data=False).graph.input[0]
    return value.name, [size.dim_value or 1 for size in value.type.tensor_type.shape.dim]


def line(entry: dict[str, Any]) -> str:
    """One network's memory in words."""
    ours, theirs = entry["zeroskip"], entry["onnxruntime"]
    return (
        f"{entry['network']}: gained {_mb(ours['gained'])} (plan: {_mb(ours['reported'])}), at its peak "
        f"{_mb(ours['peak_gained'])} of {_mb(ours['peak'])}; onnxruntime {_mb(theirs['gained'])}, "
        f"{_mb(theirs['peak_gained'])} of {_mb(theirs['peak'])}"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="MODEL", help="ONNX files or named networks")
    parser.add_argument("--models", type=Path, help="folder with the named networks, else they are built")
    parser.add_argument("--out", type=Path, help="JSON file (default: results/memory.json, without MODEL)")
    options = parser.parse_args()
    small = Path(__file__).resolve().parents[1] / "examples" / "digits.onnx"
    entries = []
    with results.own_cache():
        for name in options.names or DEFAULT:
            path = Path(name) if name.endswith(".onnx") else networks.find(name, options.models)
            entries.append(of(path, small))
            print(line(entries[-1]), flush=True)
    out = options.out or (None if options.names else results.FOLDER / "memory.json")
    if out:
        results.write(out, {"memory": entries})
    return 0


if __name__ == "__main__":
    sys.exit(main())
