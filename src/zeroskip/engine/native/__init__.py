"""Operators that run as native kernels, besides Conv: one row each. What has no row runs in NumPy."""

from zeroskip.engine.native import arrangement, elementwise, matrix, pooling
from zeroskip.engine.native.row import Row

NATIVE: dict[str, Row] = arrangement.ROWS | elementwise.ROWS | matrix.ROWS | pooling.ROWS

__all__ = ["NATIVE", "Row"]
