"""Canonical Huffman code: frequent symbols get short codes; only the code lengths are stored with the stream.

Symbols are the distinct elements. Codes of one length are consecutive numbers in the order of their
symbols, and shorter codes come first, so that lengths determine codes. An only symbol has a code of one
bit.
"""

from __future__ import annotations

import heapq
from math import prod

import numpy as np

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding

LENGTH_BITS = 6
"""Width of a stored code length: a code of 64 bits takes more than 2^43 elements (Fibonacci-like counts)."""


def encode(array: Array) -> Draft:
    """Distinct elements, their code lengths, and the bits of all codes one after another (C order)."""
    flat = array.reshape(-1)
    flat = np.where(flat == 0, flat.dtype.type(0), flat)  # -0.0 is a zero like any other
    patterns, symbols, counts = np.unique(_pattern(flat), return_inverse=True, return_counts=True)
    lengths = code_lengths(counts)
    return Draft(
        {
            "symbols": ("value", patterns.view(flat.dtype)),
            "lengths": (LENGTH_BITS, lengths),
            "stream": (1, write(symbols.reshape(-1), lengths)),
        },
        {},
    )


def decode(encoded: Encoded) -> Array:
    """The symbols that the stream spells."""
    symbols = read(encoded["stream"], encoded["lengths"], prod(encoded.shape))
    return _pattern(encoded["symbols"])[symbols].view(encoded.dtype).reshape(encoded.shape)


def code_lengths(counts: Array) -> Array:
    """Length in bits of each symbol's code, by Huffman's algorithm; 0 for symbols that do not occur.

    >>> code_lengths(np.array([5, 9, 12, 13, 16, 45])).tolist()
    [4, 4, 3, 3, 3, 1]
    """
    heap: list[tuple[int, int]] = [(int(c), i) for i, c in enumerate(counts) if c]
    heapq.heapify(heap)
    parent: dict[int, int] = {}
    node = len(counts)
    while len(heap) > 1:
        (a, i), (b, j) = heapq.heappop(heap), heapq.heappop(heap)
        parent[i] = parent[j] = node
        heapq.heappush(heap, (a + b, node))
        node += 1
    depth = np.zeros(node, np.int64)
    for i in sorted(parent, reverse=True):  # a parent's number is larger than its children's
        depth[i] = depth[parent[i]] + 1
    if len(heap) == 1 and not parent:
        depth[heap[0][1]] = 1
    return depth[: len(counts)]


def codes(lengths: Array) -> Array:
    """The canonical code of each symbol, a number of `lengths` bits."""
    out = np.zeros(lengths.size, np.uint64)
    code = previous = 0
    for symbol in _by_length(lengths).tolist():
        code <<= int(lengths[symbol]) - previous
        previous = int(lengths[symbol])
        out[symbol] = code
        code += 1
    return out


def write(symbols: Array, lengths: Array) -> Array:
    """The bits of the symbols' codes, most significant bit of each code first."""
    widths = lengths[symbols]
    ends = np.cumsum(widths)
    within = np.arange(int(widths.sum())) - np.repeat(ends - widths, widths)
    shift = (np.repeat(widths, widths) - 1 - within).astype(np.uint64)
    bits: Array = (np.repeat(codes(lengths)[symbols], widths) >> shift) & np.uint64(1)
    return bits.astype(bool)


def read(stream: Array, lengths: Array, count: int) -> Array:
    """The `count` symbols whose codes the stream spells: the inverse of `write`."""
    order = _by_length(lengths)
    if not order.size:
        return np.zeros(0, np.int64)
    longest = int(lengths.max())
    window = np.zeros(stream.size, np.uint64)  # the next `longest` bits from every position
    padded = np.append(stream, np.zeros(longest, bool)).astype(np.uint64)
    for i in range(longest):
        window = window << np.uint64(1) | padded[i : i + stream.size]
    aligned = codes(lengths)[order] << (longest - lengths[order]).astype(np.uint64)
    symbol = order[np.searchsorted(aligned, window, side="right") - 1]
    following = (np.arange(stream.size) + lengths[symbol]).tolist()
    at, starts = 0, []
    for _ in range(count):
        starts.append(at)
        at = following[at]
    return symbol[starts]


def _by_length(lengths: Array) -> Array:
    used = np.flatnonzero(lengths)
    return used[np.argsort(lengths[used], kind="stable")]


def _pattern(array: Array) -> Array:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


ENCODING = Encoding(
    name="huffman",
    description="canonical Huffman code of the elements",
    words="symbols + ceil(6 symbols / 32) + ceil(bits of the codes / 32)",
    source="Huffman 1952; on shared weights: Han et al. (Deep Compression) 2016",
    encode=encode,
    decode=decode,
)
