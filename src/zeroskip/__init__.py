"""zeroskip: CNN inference that skips the zeros.

>>> import zeroskip as zs
>>> issubclass(zs.ModelError, zs.ZeroskipError)
True

Names are imported when first used, so that ``import zeroskip`` is fast and the rooms that need no LLVM
(`graph`, `encodings`, ...) work without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroskip.encodings import Encoded as Encoded
    from zeroskip.encodings import conv_memory as conv_memory
    from zeroskip.encodings import encode as encode
    from zeroskip.encodings import encodings as encodings
    from zeroskip.errors import AlgorithmError as AlgorithmError
    from zeroskip.errors import CacheWarning as CacheWarning
    from zeroskip.errors import InputError as InputError
    from zeroskip.errors import ModelError as ModelError
    from zeroskip.errors import ZeroskipError as ZeroskipError
    from zeroskip.images import ImageSet as ImageSet
    from zeroskip.preprocess import Preprocess as Preprocess
    from zeroskip.preprocess import preprocess_for as preprocess_for

__version__ = "0.1.0"

_EXPORTS = {
    "AlgorithmError": "zeroskip.errors",
    "CacheWarning": "zeroskip.errors",
    "Encoded": "zeroskip.encodings",
    "ImageSet": "zeroskip.images",
    "InputError": "zeroskip.errors",
    "ModelError": "zeroskip.errors",
    "Preprocess": "zeroskip.preprocess",
    "ZeroskipError": "zeroskip.errors",
    "conv_memory": "zeroskip.encodings",
    "encode": "zeroskip.encodings",
    "encodings": "zeroskip.encodings",
    "preprocess_for": "zeroskip.preprocess",
}
"""Public name to its module; the imports above repeat it for type checkers, and a test compares the two."""

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'zeroskip' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
