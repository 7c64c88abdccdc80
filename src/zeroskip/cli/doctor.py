"""``zeroskip doctor``: what this installation sees of the machine, and where it keeps things."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zeroskip
from zeroskip.bench.machine import cpu_name, processors
from zeroskip.bench.rivals import RIVALS
from zeroskip.cli.common import Result
from zeroskip.report.tables import facts
from zeroskip.report.units import size

LIBRARIES = ("numpy", "llvmlite", "onnx", "pillow", "typer", "rich", "pydantic", "platformdirs")


def run() -> Result:
    """CPU, vector width, caches, versions, environment."""
    from zeroskip.codegen.cache import llvm_version
    from zeroskip.codegen.target import host_features, resolve

    target = resolve("host")
    vectors = sorted(f for f in host_features() if f.startswith(("avx", "fma", "sse", "neon", "amx", "sve")))
    machine: dict[str, Any] = {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "processors": processors(),
        "llvm_cpu": target.cpu,
        "vector_bits": 32 * target.lanes,
        "vector_registers": target.registers,
        "features": vectors,
    }
    versions = {"zeroskip": zeroskip.__version__, "python": platform.python_version(), "llvm": llvm_version()}
    versions |= _versions(LIBRARIES)
    rivals = _versions(r.package for r in RIVALS)
    stores = [_cache(name, path) for name, path in _caches().items()]
    overrides = {k: v for k, v in sorted(os.environ.items()) if k.startswith("ZEROSKIP_")}
    payload = machine | {
        "versions": versions,
        "rivals": rivals,
        "caches": stores,
        "environment": overrides,
        "environment_known": ENVIRONMENT,
    }
    vector = f"{machine['vector_bits']} bits ({target.lanes} float32), {target.registers} registers"
    views = (
        facts(
            "machine",
            [
                ("cpu", machine["cpu"]),
                ("system", machine["system"]),
                ("processors", f"{machine['processors']} usable"),
                ("vectors", vector),
                ("llvm's name", machine["llvm_cpu"]),
                ("features", " ".join(vectors)),
            ],
        ),
        "",
        facts("versions", versions.items()),
        "",
        facts("rivals for bench", [(r.package, rivals.get(r.package, "not installed")) for r in RIVALS]),
        "",
        facts("caches", [(s["name"], _described(s)) for s in stores]),
        "",
        facts(
            "environment overrides", [(k, overrides.get(k, f"not set: {v}")) for k, v in ENVIRONMENT.items()]
        ),
    )
    return Result(payload, views)


ENVIRONMENT = {"ZEROSKIP_CACHE_DIR": "folder of compiled kernels and tuning results"}
"""Every environment variable that zeroskip reads, and what it overrides."""


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _caches() -> dict[str, Path]:
    from zeroskip.codegen.cache import object_directory
    from zeroskip.engine.store import store_path

    return {"compiled kernels": object_directory(), "tuning results": store_path()}


def _cache(name: str, path: Path) -> dict[str, Any]:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path] if path.is_file() else []
    existing = next(p for p in (path, *path.parents) if p.exists())
    return {
        "name": name,
        "path": str(path),
        "files": len(files),
        "bytes": sum(p.stat().st_size for p in files),
        "writable": os.access(existing, os.W_OK),
    }


def _described(cache: dict[str, Any]) -> str:
    held = f"{size(cache['bytes'])} in {cache['files']} files" if cache["files"] else "empty"
    return f"{cache['path']} ({held}{'' if cache['writable'] else ', NOT WRITABLE'})"
