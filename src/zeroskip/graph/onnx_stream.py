"""An ONNX file read so that its weights are copied once, from the file into aligned arrays.

Protobuf's parser would copy every weight twice more, and memory is what loading a network costs. So the
fields of the message are walked first: the raw data of large initializers goes into arrays, everything else
into a small message that protobuf parses. Field numbers are those of onnx.proto: ModelProto.graph is 7,
GraphProto.initializer 5, TensorProto.raw_data 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from zeroskip.graph.operator import Array

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

LARGE = 4096
"""Bytes from which a tensor's data stays out of the parsed message; smaller ones cost less than the walk."""


class StreamError(ValueError):
    """The bytes are not a protobuf message that can be walked; protobuf itself says what is wrong."""


def split(file: BinaryIO, size: int) -> tuple[bytes, list[Array | None]]:
    """The message without large initializers' data, and their data as bytes, one entry per initializer.

    Raises:
        StreamError: lengths contradict each other or the file ends early.
    """
    out = bytearray()
    payloads: list[Array | None] = []
    for number, kind, length, head in _fields(file, size):
        if number == _GRAPH and kind == _LENGTH:
            out += _field(_GRAPH, _graph(file, file.tell() + length, payloads))
        else:
            out += head + _read(file, length)
    return bytes(out), payloads


def _graph(file: BinaryIO, end: int, payloads: list[Array | None]) -> bytes:
    out = bytearray()
    for number, kind, length, head in _fields(file, end):
        if number != _INITIALIZER or kind != _LENGTH:
            out += head + _read(file, length)
        elif length < LARGE:
            payloads.append(None)
            out += head + _read(file, length)
        else:
            payloads.append(None)
            out += _field(_INITIALIZER, _tensor(file, file.tell() + length, payloads))
    return bytes(out)


def _tensor(file: BinaryIO, end: int, payloads: list[Array | None]) -> bytes:
    out = bytearray()
    for number, kind, length, head in _fields(file, end):
        if number == _RAW_DATA and kind == _LENGTH:
            payloads[-1] = _array(file, length)
        else:
            out += head + _read(file, length)
    return bytes(out)


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Each field's number, wire kind, length of what follows, and the bytes read so far.

    The caller reads what follows before it asks for the next field.
    """
    while (position := file.tell()) < end:
        tag, head = _varint(file)
        kind = tag & 7
        if kind == _LENGTH:
            length, more = _varint(file)
            head += more
        elif kind == _VARINT:
            head += _varint(file)[1]
            length = 0
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise StreamError(f"wire type {kind} at byte {position}")
        if file.tell() + length > end:
            raise StreamError(f"a field of {length} bytes at byte {position} exceeds its message")
        yield tag >> 3, kind, length, head


def _varint(file: BinaryIO) -> tuple[int, bytes]:
    number, seen = 0, b""
    while len(seen) < 10:
        byte = file.read(1)
        if not byte:
            raise StreamError("the file ends within a number")
        number |= (byte[0] & 127) << 7 * len(seen)
        seen += byte
        if byte[0] < 128:
            return number, seen
    raise StreamError("a number of more than 64 bits")


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    head, length = bytearray([number << 3 | _LENGTH]), len(content)
    while length >= 128:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + content


def _read(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) != length:
        raise StreamError("the file ends within a field")
    return content


def _array(file: BinaryIO, length: int) -> Array:
    array = np.empty(length, np.uint8)
    if file.readinto(array) != length:  # type: ignore[attr-defined]
        raise StreamError("the file ends within a tensor")
    array.flags.writeable = False
    return array
