"""Zero-aware storage formats, one file each: encode, decode, exact size. Needs NumPy only."""

from zeroskip.encodings.base import Encoded, Encoding, Part
from zeroskip.encodings.lowering import conv_memory
from zeroskip.encodings.registry import encode, encodings, find

__all__ = ["Encoded", "Encoding", "Part", "conv_memory", "encode", "encodings", "find"]
