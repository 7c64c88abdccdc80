"""What every result file holds besides its numbers: machine, versions, date, command."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zeroskip import __version__
from zeroskip.bench import RIVALS
from zeroskip.bench.machine import cpu_name, processors, versions_of
from zeroskip.codegen import resolve
from zeroskip.codegen.cache import llvm_version
from zeroskip.files import write_bytes

FOLDER = Path(__file__).with_name("results")
LIBRARIES = ("numpy", "llvmlite", *(rival.package for rival in RIVALS))


def write(path: Path, body: Mapping[str, Any]) -> None:
    """Write a result file; numbers keep six digits.

    Raises:
        InputError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command(sys.argv),
        "machine": machine(),
        "versions": versions(),
        **body,
    }
    text = json.dumps(_rounded(content), indent=1, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read(name: str) -> dict[str, Any] | None:
    """A committed result, or None where there is none of that name."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def command(arguments: list[str]) -> str:
    """The command line, with the last part of each path: where things lie on one machine helps nobody.

    >>> command(["/home/me/zeroskip/benchmarks/must.py", "--models", "/data/nets", "--seconds", "5"])
    'python benchmarks/must.py --models nets --seconds 5'
    >>> command(["rivals.py", "--python", "deepsparse=/home/me/environment/bin/python"])
    'python benchmarks/rivals.py --python deepsparse=python'
    """
    script, *rest = arguments
    return " ".join(["python", f"benchmarks/{Path(script).name}", *map(_short, rest)])


def _short(argument: str) -> str:
    name, equals, path = argument.rpartition("=")
    return f"{name}{equals}{Path(path).name}" if os.sep in path else argument


def machine() -> dict[str, Any]:
    """The processor, its caches and vectors."""
    target = resolve()
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "llvm_cpu": target.cpu,
        "processors": processors(),
        "vector_bits": 32 * target.lanes,
        "caches": caches(),
        "system": platform.system(),
    }


def caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, str]:
    """Sizes of the first processor's caches as the system tells them, e.g. ``{"L1 data": "32K"}``."""
    found = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = ((index / key).read_text().strip() for key in ("level", "type", "size"))
        found[f"L{level}" + ("" if kind == "Unified" else f" {kind.lower()}")] = size
    return found


def versions() -> dict[str, str]:
    """Of the package, Python, LLVM and the rivals that are installed."""
    found = {"zeroskip": __version__, "python": platform.python_version(), "llvm": llvm_version()}
    return found | versions_of(LIBRARIES)


@contextmanager
def own_cache() -> Iterator[Path]:
    """A cache of compiled kernels and tuning results that begins empty, so that no old choice is measured."""
    before = os.environ.get("ZEROSKIP_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="zeroskip-bench-") as folder:
        os.environ["ZEROSKIP_CACHE_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["ZEROSKIP_CACHE_DIR"]
            else:
                os.environ["ZEROSKIP_CACHE_DIR"] = before


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
