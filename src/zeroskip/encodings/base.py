"""What an encoding is, what it returns, and how its size is counted.

An encoding is one file of this folder with one `Encoding` row named ``ENCODING``. Its encoder turns an
array into named parts; everything else (widths, range checks, sizes, the listing) is derived here from the
row and the parts.

**Zero** means *compares equal to zero*: ``-0.0`` is a zero, is not stored, and decodes to ``0.0``. Every
other element, among them subnormals, infinities and NaNs with their payload, comes back bit for bit.
(`dense` stores every element and so keeps ``-0.0`` too.)

**Bits** are the sum over the parts of entries x width. **Words** follow the literature on sparse convolution,
in which each value, index and pointer occupies one word of equal size; fields narrower than a word by design
(a bitmask, 4-bit runs) are packed into 32-bit words, each part rounded up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zeroskip.errors import InputError

Array = NDArray[Any]

Kind = Literal["value", "index", "pointer"] | int
"""What a part's entries are; a number is a packed field of that many bits."""

WORD_BITS = 32


@dataclass(frozen=True, eq=False)
class Part:
    """One named array of an encoded tensor.

    `data` holds one entry per element (a bitmask is a boolean array, a 4-bit run an integer below 16);
    `bits` is the width of one entry in the encoded form; `packed` entries share words.
    """

    data: Array
    bits: int
    packed: bool = False

    @property
    def total_bits(self) -> int:
        """Bits of the whole part: entries x width."""
        return self.data.size * self.bits

    @property
    def words(self) -> int:
        """Words of the whole part: one per entry, or as many 32-bit words as the packed entries fill."""
        return -(-self.total_bits // WORD_BITS) if self.packed else self.data.size

    def pack(self) -> NDArray[np.uint8]:
        """The entries as a bit stream of ``ceil(total_bits / 8)`` bytes, first entry and lowest bit first.

        Raises `InputError` where the width is not that of the stored numbers (a float32 array counted with
        ``value_bits=4``): such a width is a statement about another machine's numbers.
        """
        flat = np.ascontiguousarray(self.data).reshape(-1)
        if flat.dtype.kind == "f":
            if self.bits != 8 * flat.itemsize:
                raise InputError(
                    f"cannot pack {flat.dtype} entries into {self.bits} bits each; encode without "
                    "value_bits, or encode the integers that those bits stand for"
                )
            flat = flat.view(f"u{flat.itemsize}")
        elif flat.dtype.kind in "bu":
            flat = flat.astype("u8")
        else:
            flat = flat.astype("i8").view("u8")
        octets = flat.astype("<u8").view(np.uint8).reshape(flat.size, 8)
        entries = np.unpackbits(octets, axis=1, bitorder="little")[:, : self.bits]
        return np.packbits(entries.reshape(-1), bitorder="little")


@dataclass(frozen=True)
class Draft:
    """What an encoder hands back: per part its kind and entries, and the options as they were resolved."""

    parts: Mapping[str, tuple[Kind, Array]]
    options: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tensor in a zero-aware format; `parts` are its arrays by name, ``encoded["values"]`` one of them."""

    encoding: Encoding
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: Mapping[str, Part]
    options: Mapping[str, Any]

    def __getitem__(self, part: str) -> Array:
        return self.parts[part].data

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {part.data.size} x {part.bits} bit" for name, part in self.parts.items())
        what = f"{self.encoding.name} of {self.dtype} {self.shape}"
        return f"{what}: {self.bits} bits ({parts}), {self.ratio:.2f}x smaller"

    @property
    def bits(self) -> int:
        """Exact size in bits, over all parts."""
        return sum(part.total_bits for part in self.parts.values())

    @property
    def words(self) -> int:
        """Exact size in words; see this module's first lines for what counts as one."""
        return sum(part.words for part in self.parts.values())

    @property
    def ratio(self) -> float:
        """Bits of the dense array over bits of the encoding (infinite where nothing at all is stored)."""
        dense = prod(self.shape) * self.dtype.itemsize * 8
        return dense / self.bits if self.bits else float("inf") if dense else 1.0

    def decode(self) -> Array:
        """The array, of the original shape and dtype.

        Equal everywhere, and bit for bit except that ``-0.0`` comes back as ``0.0``. The encodings made for a
        convolution (`cscc`, `cpo`, `cps`) keep only the columns that some window reads; the rest decode to 0.
        """
        return self.encoding.decode(self)


@dataclass(frozen=True)
class Encoding:
    """A row of the registry: one published storage format.

    `encode` takes the array and the format's own keyword options; `decode` inverts it; `convolve`, on
    formats of activation maps, takes an `Encoded` map and weights (K, C, Kh, Kw) and returns the
    convolution (K, Oh, Ow). `words` is the size formula for reading, `source` where the format was
    published.
    """

    name: str
    description: str
    words: str
    source: str
    encode: Callable[..., Draft]
    decode: Callable[[Encoded], Array]
    convolve: Callable[[Encoded, Array], Array] | None = None
    aliases: tuple[str, ...] = ()

    @property
    def of_maps(self) -> bool:
        """Whether it encodes an activation map for one convolution (options ``kernel``, ``stride``)."""
        return self.convolve is not None


def matrix(array: Array) -> Array:
    """The array as rows x columns: the first axis by all others (filters by taps); 1-D is one row."""
    if array.ndim < 2:
        return array.reshape(1, array.size)
    return array.reshape(array.shape[0], prod(array.shape[1:]))


def pointers(counts: Array) -> Array:
    """Start of each of the consecutive ranges that hold `counts` entries, and the end of the last one."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def build(
    row: Encoding, array: Array, draft: Draft, *, value_bits: int | None, index_bits: int, pointer_bits: int
) -> Encoded:
    """Give each drafted part its width, and check that its entries fit."""
    widths = {"value": value_bits or array.dtype.itemsize * 8, "index": index_bits, "pointer": pointer_bits}
    parts = {}
    for name, (kind, data) in draft.parts.items():
        bits = kind if isinstance(kind, int) else widths[kind]
        if kind != "value" and data.dtype.kind != "b":
            data = _as_indices(row.name, name, data, bits)
        parts[name] = Part(data, bits, packed=isinstance(kind, int))
    return Encoded(row, array.shape, array.dtype, parts, draft.options)


def _as_indices(encoding: str, part: str, data: Array, bits: int) -> Array:
    low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
    needed = max(high.bit_length(), (low + 1).bit_length()) + 1 if low < 0 else high.bit_length()
    if needed > bits:
        raise InputError(
            f"encoding {encoding!r}: {part} run from {low} to {high}, which needs {needed} bits, got {bits}; "
            "give a larger index_bits or pointer_bits"
        )
    return data.astype(np.int32 if low >= -(2**31) and high < 2**31 else np.int64)
