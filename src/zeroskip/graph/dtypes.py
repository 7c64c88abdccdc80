"""ONNX element types and NumPy's."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from zeroskip.errors import ModelError

_REFUSED = (TensorProto.UNDEFINED, TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)


@cache
def dtype_of(code: int | None, where: str) -> np.dtype[Any]:
    """NumPy's type for an ONNX element type; `where` names the place for the error."""
    if code is None or code in _REFUSED or code not in TensorProto.DataType.values():
        name = "none" if code is None else TensorProto.DataType.keys()[code] if 0 <= code < 27 else str(code)
        raise ModelError(f"{where}: element type {name} is not supported; use a float, integer or bool type")
    return helper.tensor_dtype_to_np_dtype(code)


def code_of(dtype: np.dtype[Any]) -> int:
    """The ONNX element type of a NumPy type."""
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def is_narrow_float(dtype: np.dtype[Any]) -> bool:
    """Whether this is an 8-bit or narrower float, which casts saturate to."""
    return dtype.itemsize == 1 and "float" in dtype.name
