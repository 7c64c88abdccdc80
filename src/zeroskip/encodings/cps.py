"""CPS, compressed pattern sets (Amer et al. 2021): CPO with the indices of vertical neighbours folded.

Within a column, rows are taken in aligned groups of 4. A group with one or two non-zeros keeps their plain
indices; one with three or four is two words: a *prefix*, the index of the group's first row, and a *set*, a
4-bit mask of its rows (first row in the least significant bit). A last group of only three rows, all
non-zero, is folded too. Values and pointers are CPO's.

**Marking (ours).** How the authors tell a prefix from a plain index is not known to us. Here a prefix p is
stored as its one's complement ``-1 - p``: the sign bit marks it, the word count is unchanged, and the next
word is its set. Indices are CPO's, counted inside the strip, where the authors' trial code counts whole
columns.
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings import cpo
from zeroskip.encodings import strips as st
from zeroskip.encodings.base import Array, Draft, Encoded, Encoding

WIDTH = 4
"""Rows of a group."""


def encode(array: Array, *, kernel: st.Pair, stride: st.Pair = 1, npo_pointer: str = "full") -> Draft:
    """CPO's pointers and values; indices with full groups folded to (prefix, set)."""
    strips, stored = cpo.sort_by_pattern(array, kernel, stride)
    return cpo.draft(strips, stored, fold(strips, stored), npo_pointer)


def fold(strips: st.Strips, stored: st.Elements) -> Array:
    """Index words of elements in CPO's order, each group of three or four rewritten as prefix and set."""
    indices = st.join_index(strips, stored)
    if not indices.size:
        return indices
    member = stored.row % WIDTH
    prefix = indices - member * strips.Kw
    # Members of a group are neighbours in the list; strip and prefix together are unique to a group.
    start = np.flatnonzero(np.append(True, (np.diff(prefix) != 0) | (np.diff(stored.strip) != 0)))
    count = np.diff(np.append(start, indices.size))
    folded = count > 2
    words = np.where(folded, 2, count)
    offset = np.cumsum(words) - words
    out = np.empty(int(words.sum()), np.int64)
    out[offset[folded]] = -1 - prefix[start[folded]]
    out[offset[folded] + 1] = np.add.reduceat(1 << member, start)[folded]
    group = np.repeat(np.arange(count.size), count)
    plain = np.flatnonzero(~folded[group])
    out[offset[group[plain]] + plain - start[group[plain]]] = indices[plain]
    return out


def unfold(strips: st.Strips, words: Array) -> Array:
    """One index per value again: the inverse of `fold`."""
    prefix = words < 0
    is_set = np.append(False, prefix[:-1])[: words.size]
    unit = np.flatnonzero(~is_set)
    mask = np.ones(unit.size, words.dtype)
    mask[prefix[unit]] = words[is_set]
    base = np.where(prefix[unit], -1 - words[unit], words[unit])
    which, member = np.nonzero((mask[:, None] >> np.arange(WIDTH)) & 1)
    return base[which] + member * strips.Kw


def decode(encoded: Encoded) -> Array:
    """The map; columns that no window reads are 0."""
    strips, stored = _elements(encoded)
    return st.restore(strips, stored, encoded.shape, encoded.dtype)


def convolve(encoded: Encoded, weights: Array) -> Array:
    """Convolution by CPO's loop on the unfolded indices (the authors' loop for CPS is not known to us)."""
    strips, stored = _elements(encoded)
    return st.convolve(strips, stored, weights)


def _elements(encoded: Encoded) -> tuple[st.Strips, st.Elements]:
    strips = st.strips_of(encoded.shape, encoded.options["kernel"], encoded.options["stride"])
    return cpo.locate(encoded, unfold(strips, encoded["indices"]))


ENCODING = Encoding(
    name="cps",
    description="compressed pattern sets: CPO, indices of vertical neighbours folded to prefix and mask",
    words="n (Ow + 1) + nnz + N1 + 2 (N2 + N3 + N4), Nq = groups of 4 rows with q non-zeros",
    source="Amer et al. 2021, arXiv 2104.08314; marking of prefixes ours",
    encode=encode,
    decode=decode,
    convolve=convolve,
)
