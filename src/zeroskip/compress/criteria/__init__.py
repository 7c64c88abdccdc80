"""Pruning criteria: how much each weight matters. One file each; this registry finds the files itself.

A criterion's module defines ``CRITERION = Criterion(...)``; dropping the file into this folder is all it
takes.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from zeroskip.compress.criteria.criterion import Criterion
from zeroskip.compress.layers import nearest
from zeroskip.errors import InputError

__all__ = ["Criterion", "criteria", "find_criterion"]


@cache
def _registry() -> dict[str, Criterion]:
    modules = (import_module(f"{__name__}.{entry.name}") for entry in iter_modules(__path__))
    rows = [module.CRITERION for module in modules if hasattr(module, "CRITERION")]
    return {row.name: row for row in sorted(rows, key=lambda row: row.name)}


def criteria() -> dict[str, str]:
    """Every pruning criterion's name with one line that says what it does.

    >>> "magnitude" in criteria()
    True
    """
    return {name: row.description for name, row in _registry().items()}


def find_criterion(name: str) -> Criterion:
    """The criterion of that name; `InputError` with the nearest name where there is none."""
    rows = _registry()
    if name not in rows:
        raise InputError(f"unknown pruning criterion '{name}'; {nearest(name, rows)}")
    return rows[name]
