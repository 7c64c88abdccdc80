"""Compressed sparse columns: per column a range of (row, value) pairs; a zero input skips its column."""

from __future__ import annotations

import numpy as np

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, matrix, pointers


def encode(array: Array) -> Draft:
    """Pointers (columns + 1), rows and values, column by column, rows ascending."""
    view = matrix(array).T
    columns, rows = np.nonzero(view)
    ptr = pointers(np.bincount(columns, minlength=view.shape[0]))
    return Draft(
        {"pointers": ("pointer", ptr), "rows": ("index", rows), "values": ("value", view[columns, rows])}, {}
    )


def decode(encoded: Encoded) -> Array:
    """Each value in its row and column, 0 elsewhere."""
    out = np.zeros(encoded.shape, encoded.dtype)
    columns = np.repeat(np.arange(encoded["pointers"].size - 1), np.diff(encoded["pointers"]))
    matrix(out)[encoded["rows"], columns] = encoded["values"]
    return out


ENCODING = Encoding(
    name="csc",
    description="compressed sparse columns",
    words="2 nnz + columns + 1",
    source="folklore; for networks: Dorrance et al., FPGA 2014; Han et al. (EIE), ISCA 2016",
    encode=encode,
    decode=decode,
)
