"""Operators that run as native kernels, besides Conv: one row each. What has no row runs in NumPy."""

from zeroskip.engine.native import (
    arrangement,
    elementwise,
    matrix,
    normalization,
    picking,
    pooling,
    transposition,
)
from zeroskip.engine.native.matrix import PRODUCT_CONV
from zeroskip.engine.native.row import Row

NATIVE: dict[str, Row] = {
    **arrangement.ROWS,
    **elementwise.ROWS,
    **matrix.ROWS,
    **normalization.ROWS,
    **picking.ROWS,
    **pooling.ROWS,
    **transposition.ROWS,
}

__all__ = ["NATIVE", "PRODUCT_CONV", "Row"]
