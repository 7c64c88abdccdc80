"""The computer at hand, as far as the standard library knows it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path


def cpu_name() -> str:
    """The processor's marketing name; its architecture where the system does not tell.

    >>> bool(cpu_name())
    True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [
        line.partition(":")[2].strip()
        for line in lines
        if line.lower().startswith(("model name", "hardware"))
    ]
    return names[0] if names else platform.processor() or platform.machine()


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed.

    >>> list(versions_of(["numpy", "no-such-package"]))
    ['numpy']
    """
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
