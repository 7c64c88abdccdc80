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
    from zeroskip.compress import PruneReport as PruneReport
    from zeroskip.compress import criteria as criteria
    from zeroskip.compress import prune as prune
    from zeroskip.conv import algorithms as algorithms
    from zeroskip.conv.roofline import SparseMachine as SparseMachine
    from zeroskip.conv.roofline import sparse_roofline as sparse_roofline
    from zeroskip.encodings import Encoded as Encoded
    from zeroskip.encodings import encode as encode
    from zeroskip.encodings import encodings as encodings
    from zeroskip.engine import InferenceSession as InferenceSession
    from zeroskip.engine import SessionOptions as SessionOptions
    from zeroskip.engine import conv2d as conv2d
    from zeroskip.engine import conv_memory as conv_memory
    from zeroskip.errors import AlgorithmError as AlgorithmError
    from zeroskip.errors import CacheWarning as CacheWarning
    from zeroskip.errors import InputError as InputError
    from zeroskip.errors import ModelError as ModelError
    from zeroskip.errors import ZeroskipError as ZeroskipError
    from zeroskip.evaluation import Evaluation as Evaluation
    from zeroskip.evaluation import evaluate as evaluate
    from zeroskip.graph import Graph as Graph
    from zeroskip.graph import Node as Node
    from zeroskip.graph import Value as Value
    from zeroskip.graph import bind as bind
    from zeroskip.graph import load as load
    from zeroskip.graph import simplify as simplify
    from zeroskip.images import ImageSet as ImageSet
    from zeroskip.images import open_images as open_images
    from zeroskip.preprocess import Preprocess as Preprocess
    from zeroskip.preprocess import preprocess_for as preprocess_for

__version__ = "0.1.0"

_EXPORTS = {
    "AlgorithmError": "zeroskip.errors",
    "CacheWarning": "zeroskip.errors",
    "Encoded": "zeroskip.encodings",
    "Evaluation": "zeroskip.evaluation",
    "Graph": "zeroskip.graph",
    "ImageSet": "zeroskip.images",
    "InferenceSession": "zeroskip.engine",
    "InputError": "zeroskip.errors",
    "ModelError": "zeroskip.errors",
    "Node": "zeroskip.graph",
    "Preprocess": "zeroskip.preprocess",
    "PruneReport": "zeroskip.compress",
    "SessionOptions": "zeroskip.engine",
    "SparseMachine": "zeroskip.conv.roofline",
    "Value": "zeroskip.graph",
    "ZeroskipError": "zeroskip.errors",
    "algorithms": "zeroskip.conv",
    "bind": "zeroskip.graph",
    "conv2d": "zeroskip.engine",
    "conv_memory": "zeroskip.engine",
    "criteria": "zeroskip.compress",
    "encode": "zeroskip.encodings",
    "encodings": "zeroskip.encodings",
    "evaluate": "zeroskip.evaluation",
    "load": "zeroskip.graph",
    "open_images": "zeroskip.images",
    "preprocess_for": "zeroskip.preprocess",
    "prune": "zeroskip.compress",
    "simplify": "zeroskip.graph",
    "sparse_roofline": "zeroskip.conv.roofline",
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
