"""EIE's format: compressed sparse columns, 4-bit relative row indices, rows interleaved over PEs.

PE k owns the rows i with ``i mod pes = k``. Per PE and column: values ``v`` and, for each, the number ``z``
of zeros before it *within this PE's rows*; more than 15 zeros store a padding zero. Pointers give each
column's start. EIE itself stores ``v`` as a 4-bit codebook index and pointers of 16 bits: ``value_bits=4,
pointer_bits=16``.
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, matrix
from zeroskip.encodings.relative import to_positions, to_runs
from zeroskip.errors import InputError


def encode(array: Array, *, run_bits: int = 4, pes: int = 1) -> Draft:
    """Pointers (pes x (columns + 1)), relative indices and values: by PE, then column, then row."""
    if not isinstance(pes, int | np.integer) or pes < 1:
        raise InputError(f"encoding 'csc_relative': pes must be a positive number, got {pes!r}")
    view = matrix(array)
    width = view.shape[1]
    column, row = np.nonzero(view.T)
    segment = (row % pes) * width + column
    order = np.argsort(segment, kind="stable")
    runs, values, counts = to_runs(
        view[row, column][order], segment[order], row[order] // pes, int(pes) * width, run_bits
    )
    starts = np.zeros((pes, width + 1), np.int64)
    starts[:, 1:] = np.cumsum(counts.reshape(pes, width), axis=1)
    return Draft(
        {"pointers": ("pointer", starts), "relative": (int(run_bits), runs), "values": ("value", values)},
        {"run_bits": run_bits, "pes": int(pes)},
    )


def decode(encoded: Encoded) -> Array:
    """Each value in the row that the zeros counted before it lead to."""
    out = np.zeros(encoded.shape, encoded.dtype)
    view, pes = matrix(out), encoded.options["pes"]
    segment, position = to_positions(encoded["relative"], np.diff(encoded["pointers"], axis=1).reshape(-1))
    pe, column = np.divmod(segment, max(1, view.shape[1]))
    view[position * pes + pe, column] = encoded["values"]
    return out


ENCODING = Encoding(
    name="csc_relative",
    description="compressed sparse columns with 4-bit relative indices and padding zeros",
    words="nnz + padding zeros + pes (columns + 1), and as many indices of k bits",
    source="Han et al. (EIE), ISCA 2016",
    encode=encode,
    decode=decode,
)
