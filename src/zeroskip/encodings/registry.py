"""The table of encodings: every module of this folder that has an ``ENCODING`` row is one."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import zeroskip.encodings as room
from zeroskip.encodings.base import Array, Encoded, Encoding, build
from zeroskip.errors import InputError


@cache
def rows() -> dict[str, Encoding]:
    """Every encoding by its name, in alphabetical order."""
    modules = (
        importlib.import_module(f"{room.__name__}.{m.name}") for m in pkgutil.iter_modules(room.__path__)
    )
    found = [module.ENCODING for module in modules if hasattr(module, "ENCODING")]
    return {row.name: row for row in sorted(found, key=lambda row: row.name)}


def encodings() -> dict[str, str]:
    """Names and one-line descriptions of all encodings.

    >>> encodings()["bitmask"]
    'one bit per element, then the non-zero values'
    """
    return {row.name: row.description for row in rows().values()}


def find(name: str) -> Encoding:
    """The row with this name or alias; `InputError` names the nearest one otherwise."""
    for row in rows().values():
        if name == row.name or name in row.aliases:
            return row
    raise InputError(f"no encoding named {name!r}; {nearest(name, rows())}")


def nearest(name: str, known: Any) -> str:
    """The end of an error message: the nearest known name, and all of them."""
    close = difflib.get_close_matches(str(name), list(known), 1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {', '.join(known)}"


def encode(
    array: ArrayLike,
    encoding: str,
    *,
    value_bits: int | None = None,
    index_bits: int = 32,
    pointer_bits: int = 32,
    **options: Any,
) -> Encoded:
    """Encode an array of any shape in the format of that name; `options` are the format's own.

    Matrix formats read a tensor as its first axis by all the others (filters by taps). Formats of
    activation maps (`cscc`, `cpo`, `cps`) take a padded map C x H x W and need ``kernel`` (and ``stride``)
    of the convolution. `value_bits`, `index_bits`, `pointer_bits` are the widths to count with: by default
    the array's own, 32 and 32. Raises `InputError` for an unknown format or option, an unsuitable array, or
    entries wider than their width.

    >>> weights = np.array([[0, 0, 3], [5, 0, 0]], np.float32)
    >>> encoded = encode(weights, "csr")
    >>> encoded["columns"].tolist(), encoded.words, bool((encoded.decode() == weights).all())
    ([2, 0], 7, True)
    """
    row = find(encoding)
    accepted = [
        name for name, p in inspect.signature(row.encode).parameters.items() if p.kind is p.KEYWORD_ONLY
    ]
    for name in options:
        if name not in accepted:
            common = ["value_bits", "index_bits", "pointer_bits"]
            raise InputError(
                f"encoding {row.name!r} has no option {name!r}; {nearest(name, accepted + common)}"
            )
    for width, bits in (
        ("value_bits", value_bits),
        ("index_bits", index_bits),
        ("pointer_bits", pointer_bits),
    ):
        if bits is not None and (not isinstance(bits, int | np.integer) or not 1 <= bits <= 64):
            raise InputError(f"{width} must be a number from 1 to 64, got {bits!r}")
    data = numeric(array)
    try:
        draft = row.encode(data, **options)
    except TypeError as error:
        if "required keyword-only" not in str(error):
            raise
        raise InputError(f"encoding {row.name!r}: {error}; give it to encode(...) by name") from error
    return build(row, data, draft, value_bits=value_bits, index_bits=index_bits, pointer_bits=pointer_bits)


def numeric(array: ArrayLike) -> Array:
    """The argument as an array of booleans, integers or real floats of native byte order, or `InputError`."""
    data = np.asarray(array)
    if data.dtype.kind not in "biuf" or data.dtype.itemsize > 8:
        raise InputError(
            f"cannot encode an array of {data.dtype}; wanted booleans, integers or floats of at most 64 bits "
            "(convert it first, e.g. array.astype('float32'))"
        )
    return data.astype(data.dtype.newbyteorder("="), copy=False)
