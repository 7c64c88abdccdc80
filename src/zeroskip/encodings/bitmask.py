"""One bit per element that says whether it is non-zero, then the non-zero values in the same order.

The same bits, interleaved as one flag before each element, are the variable-length code of Moons and
Verhelst 2016.
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding


def encode(array: Array) -> Draft:
    """Mask (one bit each, C order) and values."""
    flat = array.reshape(-1)
    mask = flat != 0
    return Draft({"mask": (1, mask), "values": ("value", flat[mask])}, {})


def decode(encoded: Encoded) -> Array:
    """The values where the mask is set, 0 elsewhere."""
    out = np.zeros(encoded["mask"].shape, encoded.dtype)
    out[encoded["mask"]] = encoded["values"]
    return out.reshape(encoded.shape)


ENCODING = Encoding(
    name="bitmask",
    description="one bit per element, then the non-zero values",
    words="ceil(n / 32) + nnz",
    source="folklore; as a bit stream: Moons and Verhelst, VLSI 2016",
    encode=encode,
    decode=decode,
)
