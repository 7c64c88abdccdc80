"""Compressed sparse rows: per row a range of (column, value) pairs. Weights: one row per output channel."""

from __future__ import annotations

import numpy as np

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, matrix, pointers


def encode(array: Array) -> Draft:
    """Pointers (rows + 1), columns and values, row by row, columns ascending."""
    view = matrix(array)
    rows, columns = np.nonzero(view)
    ptr = pointers(np.bincount(rows, minlength=view.shape[0]))
    return Draft(
        {
            "pointers": ("pointer", ptr),
            "columns": ("index", columns),
            "values": ("value", view[rows, columns]),
        },
        {},
    )


def decode(encoded: Encoded) -> Array:
    """Each value in its row and column, 0 elsewhere."""
    out = np.zeros(encoded.shape, encoded.dtype)
    rows = np.repeat(np.arange(encoded["pointers"].size - 1), np.diff(encoded["pointers"]))
    matrix(out)[rows, encoded["columns"]] = encoded["values"]
    return out


ENCODING = Encoding(
    name="csr",
    description="compressed sparse rows",
    words="2 nnz + rows + 1",
    source="folklore (Yale sparse matrix package, 1970s); weights so in Park et al. 2017",
    encode=encode,
    decode=decode,
)
