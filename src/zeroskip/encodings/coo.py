"""Coordinates: row, column and value of each non-zero of the matrix view (3 words each).

It is the plain "SparseTensor" that the trial code of Amer et al. 2021 counts as ``3 nnz`` words.
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, matrix


def encode(array: Array) -> Draft:
    """Rows, columns and values, row by row."""
    view = matrix(array)
    rows, columns = np.nonzero(view)
    return Draft(
        {"rows": ("index", rows), "columns": ("index", columns), "values": ("value", view[rows, columns])}, {}
    )


def decode(encoded: Encoded) -> Array:
    """Each value at its coordinates, 0 elsewhere."""
    out = np.zeros(encoded.shape, encoded.dtype)
    matrix(out)[encoded["rows"], encoded["columns"]] = encoded["values"]
    return out


ENCODING = Encoding(
    name="coo",
    description="row, column and value of each non-zero (SparseTensor)",
    words="3 nnz",
    source="folklore; counted so by Amer et al. 2021",
    encode=encode,
    decode=decode,
    aliases=("sparse_tensor",),
)
