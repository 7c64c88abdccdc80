"""How long a session takes to open, in processes of their own: cold, with compiled kernels, with tuning.

    python benchmarks/opening.py MODEL

Prints medians as JSON; must.py uses it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from zeroskip.errors import ZeroskipError

_CHILD = """
import json, sys, time
start = time.perf_counter()
import zeroskip as zs
zs.InferenceSession
imported = time.perf_counter()
zs.InferenceSession(sys.argv[1], options=zs.SessionOptions(tune=sys.argv[2] == "tune"))
print(json.dumps([imported - start, time.perf_counter() - imported]))
"""


def seconds(model: Path, runs: int = 5) -> dict[str, float]:
    """Medians, in seconds, over `runs` processes each.

    ``import``: importing the package with its engine; ``cold``: opening with an empty cache; ``warm``: with
    the kernels that an earlier one compiled; ``tuned``: with the choices of an earlier tuning too;
    ``tuning``: the opening that tuned (once).
    """
    cold, warm, imports = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="zeroskip-open-") as cache:
            cold.append(_open(model, cache)[1])
            imported, again = _open(model, cache)
            imports.append(imported)
            warm.append(again)
    with tempfile.TemporaryDirectory(prefix="zeroskip-open-") as cache:
        tuning = _open(model, cache, "tune")[1]
        tuned = [_open(model, cache)[1] for _ in range(runs)]
    medians = {
        name: statistics.median(times)
        for name, times in (("import", imports), ("cold", cold), ("warm", warm), ("tuned", tuned))
    }
    return medians | {"tuning": tuning}


def _open(model: Path, cache: str, mode: str = "no tuning") -> tuple[float, float]:
    """(seconds to import, seconds to open) of one process."""
    command = [sys.executable, "-c", _CHILD, str(model), mode]
    done = subprocess.run(
        command, env=os.environ | {"ZEROSKIP_CACHE_DIR": cache}, capture_output=True, text=True
    )
    if done.returncode:
        raise ZeroskipError(f"{model}: a session could not be opened: {done.stderr.strip()[-500:]}")
    imported, opened = json.loads(done.stdout)
    return imported, opened


if __name__ == "__main__":
    print(json.dumps(seconds(Path(sys.argv[1])), indent=1))
