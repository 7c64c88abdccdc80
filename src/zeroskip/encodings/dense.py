"""Every element, zeros too: what the others are measured against."""

from __future__ import annotations

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding


def encode(array: Array) -> Draft:
    """A copy of the elements, in C order."""
    return Draft({"values": ("value", array.flatten())}, {})


def decode(encoded: Encoded) -> Array:
    """The elements in their shape, ``-0.0`` included."""
    return encoded["values"].reshape(encoded.shape).copy()


ENCODING = Encoding(
    name="dense",
    description="every element, zeros too",
    words="n",
    source="-",
    encode=encode,
    decode=decode,
)
