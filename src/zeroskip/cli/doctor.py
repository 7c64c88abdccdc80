"""``zeroskip doctor``: what this installation sees of the machine, and where it keeps things."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

import zeroskip
from zeroskip.bench.machine import cpu_name, processors, versions_of
from zeroskip.bench.rivals import RIVALS
from zeroskip.cli.common import Result, progress
from zeroskip.report.tables import facts, table
from zeroskip.report.units import percent, size

if TYPE_CHECKING:
    from zeroskip.conv.roofline import Calibration

LIBRARIES = ("numpy", "llvmlite", "onnx", "pillow", "typer", "rich", "pydantic", "platformdirs")


def run(
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure this machine for zs.sparse_roofline, and remember it."),
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0.001, metavar="S", help="With --calibrate: time for each measurement.")
    ] = 0.1,
) -> Result:
    """CPU, vector width, caches, versions, environment.

    With --calibrate it also times direct sparse convolution against dense at several densities, in about
    ten seconds, and fits the roofline model of Park et al. 2017, whose numbers are then shown.
    """
    from zeroskip.codegen.cache import llvm_version
    from zeroskip.codegen.target import host_features, resolve
    from zeroskip.conv.roofline import calibration

    found = _calibrated(seconds) if calibrate else calibration()
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
    versions |= versions_of(LIBRARIES)
    rivals = versions_of(r.package for r in RIVALS)
    stores = [_cache(name, path) for name, path in _caches().items()]
    overrides = {k: v for k, v in sorted(os.environ.items()) if k.startswith("ZEROSKIP_")}
    payload = machine | {
        "versions": versions,
        "rivals": rivals,
        "caches": stores,
        "environment": overrides,
        "environment_known": ENVIRONMENT,
        "sparse_roofline": asdict(found) if found else None,
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
        "",
        *_roofline_views(found, calibrate),
    )
    return Result(payload, views)


def _calibrated(seconds: float) -> Calibration:
    """Measured now, and kept."""
    from zeroskip.bench.calibration import calibrate
    from zeroskip.conv.roofline import keep

    with progress("calibrating") as bar:
        found = calibrate(seconds, bar)
    keep(found)
    return found


def _roofline_views(found: Calibration | None, with_layers: bool) -> Iterator[RenderableType]:
    """The parameters of the sparse roofline; with the layers they were fitted to where they are new."""
    title = "sparse roofline (Park et al. 2017), one core"
    if found is None:
        yield facts(title, [("not measured", "run zeroskip doctor --calibrate")])
        return
    machine = found.machine
    rows = [
        ("dense, F", f"{machine.flops / 1e9:.0f} GFLOP/s"),
        ("memory, B", f"{machine.bandwidth / 1e9:.1f} GB/s"),
        ("alpha", f"{machine.alpha:.2f}: faster than dense below {percent(1 / machine.alpha)} non-zeros"),
        ("beta", f"{machine.beta:.2f}: {4 * machine.beta:.1f} bytes for each non-zero weight"),
        ("measured", found.date),
    ]
    yield facts(title, rows)
    if not with_layers:
        return
    densities = [point["density"] for point in found.layers[0]["points"]]
    columns = ("speed-up / model's", *(f"{density:g}" for density in densities), "knee")
    body = [
        (layer["layer"], *map(_speedups, layer["points"]), percent(layer["knee"])) for layer in found.layers
    ]
    yield ""
    yield table(columns, body)


def _speedups(point: Mapping[str, float]) -> str:
    return f"{point['measured_speedup']:.1f} / {point['predicted_speedup']:.1f}"


ENVIRONMENT = {"ZEROSKIP_CACHE_DIR": "folder of compiled kernels and tuning results"}
"""Every environment variable that zeroskip reads, and what it overrides."""


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
