"""The networks that benchmarks run on: files as given, and named ones that `../shared` knows how to build.

A named network such as ``resnet50.s90`` is an exact topology with random weights, 90 % of each layer's pruned
by magnitude. Nothing of `../shared` is kept here: its builder is run, its models are read where they lie.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from zeroskip.codegen.cache import cache_directory
from zeroskip.errors import InputError

SHARED = Path(__file__).resolve().parents[1] / "../shared"
BUILT = cache_directory() / "benchmark-networks"
"""Where built networks stay; taken here, before a benchmark sets a cache of its own."""
DENSE_MODELS = (
    "mobilenet_v1_1.0_224",
    "mobilenet_v2_1.0_224_qat",
    "squeezenet1.1",
    "cifar10-resnet20",
    "mnist-lenet",
)


def files(given: Sequence[Path]) -> list[Path]:
    """The ONNX files among paths to files and folders, in order.

    Raises:
        InputError: a path is not there, or a folder holds no ONNX file.
    """
    found: list[Path] = []
    for path in given:
        inside = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
        if not inside or not inside[0].is_file():
            raise InputError(f"{path}: no ONNX file is there")
        found += inside
    return found


def find(name: str, built: Path | None = None) -> Path:
    """The file of the network `name`: from `built`, from `../shared`, or built into the cache.

    Raises:
        InputError: it is in neither place and cannot be built here.
    """
    places = [folder for folder in (built, SHARED / "models", SHARED / "backbones") if folder]
    for folder in places:
        if (folder / f"{name}.onnx").is_file():
            return folder / f"{name}.onnx"
    return _build(name)


def _build(name: str) -> Path:
    builder = SHARED / "bench" / "build_models.py"
    if not builder.is_file():
        raise InputError(
            f"network {name!r} is not here, nor is {SHARED.name}/bench/{builder.name}, which builds it; "
            "name a folder that has it with --models"
        )
    digest = hashlib.sha256(builder.read_bytes()).hexdigest()[:12]
    folder = BUILT / digest
    target = folder / f"{name}.onnx"
    if target.is_file():
        return target
    net, _, variant = name.partition(".")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, str(builder), temporary, "--nets", net, "--variants", variant]
        done = subprocess.run(command, capture_output=True, text=True)
        made = Path(temporary) / target.name
        if done.returncode or not made.is_file():
            raise InputError(f"network {name!r} could not be built: {done.stderr.strip() or done.stdout}")
        shutil.move(made, target)
    return target
