"""The operators zeroskip understands: one row each, in files by kind."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from zeroskip.graph.operator import Operator
from zeroskip.graph.operators import (
    constant,
    convolution,
    elementwise,
    indexing,
    matrix,
    normalization,
    pooling,
    reduce,
    resize,
    shape,
)

_KINDS = (
    convolution,
    matrix,
    elementwise,
    pooling,
    reduce,
    normalization,
    shape,
    indexing,
    resize,
    constant,
)

OPERATORS: Mapping[str, Operator] = MappingProxyType({row.name: row for kind in _KINDS for row in kind.ROWS})
"""Operator name to its row."""
