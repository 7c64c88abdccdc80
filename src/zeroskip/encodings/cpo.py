"""CPO, compressed pattern overlap (Amer et al. 2021): each non-zero of the map is stored once.

The **pattern** t of an element is the number of strips that contain it, minus one. Per pattern t there are
a pointer row ``Ptr[t]`` (range of each first strip f), indices ``IN[t]`` and values ``DA[t]``; an element
lies in the list of its pattern under its first strip. Several channels share one set of pointers: within a
range, elements run channel by channel, then column by column, then down the rows, and the index carries the
channel.

With stride 1, elements of pattern 0 exist only in the first and the last strip, so ``npo_pointer="short"``
keeps three entries of ``Ptr[0]`` (as the authors' timed code does); ``"full"`` keeps Ow + 1 (as their size
formulas do).
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings import strips as st
from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, pointers
from zeroskip.errors import InputError


def encode(array: Array, *, kernel: st.Pair, stride: st.Pair = 1, npo_pointer: str = "full") -> Draft:
    """Pointers (pattern by pattern, each from 0), indices and values (pattern by pattern, strip by strip)."""
    strips, stored = sort_by_pattern(array, kernel, stride)
    return draft(strips, stored, st.join_index(strips, stored), npo_pointer)


def sort_by_pattern(array: Array, kernel: st.Pair, stride: st.Pair) -> tuple[st.Strips, st.Elements]:
    """The geometry, and the non-zeros ordered by pattern, first strip, channel, column, row."""
    strips, x = st.strips_of(array.shape, kernel, stride), st.as_map(array)
    channel, column, row = np.nonzero(x.transpose(0, 2, 1))
    pattern, strip = strips.pattern[column], strips.first[column]
    read = np.flatnonzero(pattern >= 0)  # columns between or right of all windows are not stored
    order = read[np.argsort((pattern * strips.Ow + strip)[read], kind="stable")]
    channel, column, row, pattern, strip = (a[order] for a in (channel, column, row, pattern, strip))
    value = x[channel, row, column]
    return strips, st.Elements(strip, pattern, channel, row, column - strip * strips.Sw, value)


def draft(strips: st.Strips, stored: st.Elements, indices: Array, npo_pointer: str) -> Draft:
    """The parts of CPO and of CPS, which differ in their indices only."""
    if npo_pointer not in ("full", "short") or (npo_pointer == "short" and strips.Sw != 1):
        raise InputError(
            f"npo_pointer must be 'full', or 'short' at width stride 1, got {npo_pointer!r} at {strips.Sw}"
        )
    cells = np.bincount(stored.pattern * strips.Ow + stored.strip, minlength=strips.n * strips.Ow)
    ptr = np.array([pointers(per_strip) for per_strip in cells.reshape(strips.n, strips.Ow)])
    return Draft(
        {
            "pointers": ("pointer", _shorten(ptr) if npo_pointer == "short" else ptr.reshape(-1)),
            "indices": ("index", indices),
            "values": ("value", stored.value),
        },
        {"kernel": (strips.Kh, strips.Kw), "stride": (strips.Sh, strips.Sw), "npo_pointer": npo_pointer},
    )


def ranges(strips: st.Strips, encoded: Encoded) -> Array:
    """``Ptr`` as n x (Ow + 1), the short first row written out."""
    ptr = encoded["pointers"]
    missing = strips.n * (strips.Ow + 1) - ptr.size
    if missing:
        ptr = np.concatenate([ptr[:2], np.repeat(ptr[1], missing), ptr[2:]])
    return ptr.reshape(strips.n, strips.Ow + 1)


def locate(encoded: Encoded, indices: Array) -> tuple[st.Strips, st.Elements]:
    """The geometry and the stored elements, given one index per value."""
    strips = st.strips_of(encoded.shape, encoded.options["kernel"], encoded.options["stride"])
    counts = np.diff(ranges(strips, encoded), axis=1).reshape(-1)
    pattern, strip = np.divmod(np.repeat(np.arange(counts.size), counts), strips.Ow)
    return strips, st.Elements(strip, pattern, *st.split_index(strips, indices), encoded["values"])


def decode(encoded: Encoded) -> Array:
    """The map; columns that no window reads are 0."""
    strips, stored = locate(encoded, encoded["indices"])
    return st.restore(strips, stored, encoded.shape, encoded.dtype)


def convolve(encoded: Encoded, weights: Array) -> Array:
    """Convolution by the published loop: see `strips.convolve`."""
    strips, stored = locate(encoded, encoded["indices"])
    return st.convolve(strips, stored, weights)


def _shorten(ptr: Array) -> Array:
    """All pointers in one row; of several rows, ``Ptr[0]`` keeps its first two entries and the last."""
    keep = [0, 1, -1] if len(ptr) > 1 and ptr.shape[1] > 3 else slice(None)
    return np.concatenate([ptr[0, keep], ptr[1:].reshape(-1)])


ENCODING = Encoding(
    name="cpo",
    description="compressed pattern overlap: each non-zero of a map once, by how many strips see it",
    words="n (Ow + 1) + 2 nnz, n = ceil(Kw / Sw)",
    source="Amer et al. 2021, arXiv 2104.08314",
    encode=encode,
    decode=decode,
    convolve=convolve,
)
