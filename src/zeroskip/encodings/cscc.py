"""CSCC: the CSR form of the MEC-lowered map, written straight from the map (Fan et al. 2019).

One row per strip, columns ordered (channel, row, column in strip); an element is stored once per strip it
is part of.
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings import strips as st
from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, pointers


def encode(array: Array, *, kernel: st.Pair, stride: st.Pair = 1) -> Draft:
    """Pointers (Ow + 1), columns and values of the lowered matrix, strip by strip."""
    strips = st.strips_of(array.shape, kernel, stride)
    windows = np.lib.stride_tricks.sliding_window_view(st.as_map(array), strips.Kw, axis=2)[
        :, :, :: strips.Sw
    ]
    lowered = windows.transpose(2, 0, 1, 3)  # strip, channel, row, column in strip
    strip, channel, row, col = np.nonzero(lowered)
    return Draft(
        {
            "pointers": ("pointer", pointers(np.bincount(strip, minlength=strips.Ow))),
            "columns": ("index", (channel * strips.Ih + row) * strips.Kw + col),
            "values": ("value", lowered[strip, channel, row, col]),
        },
        {"kernel": (strips.Kh, strips.Kw), "stride": (strips.Sh, strips.Sw)},
    )


def elements(encoded: Encoded) -> tuple[st.Strips, st.Elements]:
    """The geometry and the stored elements; each takes part in its own strip only, so every pattern is 0."""
    strips = st.strips_of(encoded.shape, encoded.options["kernel"], encoded.options["stride"])
    strip = np.repeat(np.arange(strips.Ow), np.diff(encoded["pointers"]))
    place = st.split_index(strips, encoded["columns"])
    return strips, st.Elements(strip, np.zeros_like(strip), *place, encoded["values"])


def decode(encoded: Encoded) -> Array:
    """The map; columns that no window reads are 0."""
    strips, stored = elements(encoded)
    return st.restore(strips, stored, encoded.shape, encoded.dtype)


def convolve(encoded: Encoded, weights: Array) -> Array:
    """Convolution as a product of the sparse lowered rows and the kernel, shifted for each output row."""
    strips, stored = elements(encoded)
    return st.convolve(strips, stored, weights)


ENCODING = Encoding(
    name="cscc",
    description="CSR of the MEC-lowered activation map",
    words="Ow + 1 + 2 nnz of the lowered map",
    source="Fan et al., IEEE Access 2019",
    encode=encode,
    decode=decode,
    convolve=convolve,
)
