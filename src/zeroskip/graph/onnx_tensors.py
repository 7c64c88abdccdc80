"""ONNX tensors to arrays and back: raw, typed, external and sparse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from onnx import SparseTensorProto, TensorProto, numpy_helper

from zeroskip.errors import ModelError
from zeroskip.graph.dtypes import code_of, dtype_of
from zeroskip.graph.operator import Array, show

_PACKED = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1, TensorProto.INT2, TensorProto.UINT2)


def read_tensor(tensor: TensorProto, folder: Path | None, where: str, payload: Array | None = None) -> Array:
    """A tensor as an array; `payload` holds its raw bytes where they were kept out of the message.

    Raises:
        ModelError: type unsupported, data missing, or of the wrong length.
    """
    where = f'{where} "{tensor.name}"' if tensor.name else where
    dtype = dtype_of(tensor.data_type, where)
    shape = tuple(tensor.dims)
    if any(d < 0 for d in shape):
        raise ModelError(f"{where} has a negative size in its shape {show(shape)}")
    external = tensor.data_location == TensorProto.EXTERNAL
    if payload is not None and tensor.data_type in _PACKED:
        tensor.raw_data = payload.tobytes()
        payload = None
    if payload is None and not external and (not tensor.HasField("raw_data") or tensor.data_type in _PACKED):
        return _typed(tensor, shape, where)
    expected = math.prod(shape) * dtype.itemsize
    data: Any = payload
    if payload is None:
        data = _external(tensor, folder, where) if external else tensor.raw_data
    if len(data) != expected:
        raise ModelError(
            f"{where} holds {len(data)} bytes, expected {expected} for {dtype} {show(shape)}; "
            "the file is damaged"
        )
    array = np.frombuffer(data, dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype)
    return array.astype(dtype, copy=False).reshape(shape)


def _typed(tensor: TensorProto, shape: tuple[int, ...], where: str) -> Array:
    try:
        return np.asarray(numpy_helper.to_array(tensor)).reshape(shape)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{where} does not hold the numbers of its shape {show(shape)}: {error}") from error


def _external(tensor: TensorProto, folder: Path | None, where: str) -> Any:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(
            f'{where} is stored in the file "{location}"; load the model from a path, not from bytes'
        )
    path = (folder / location).resolve()
    if not location or folder.resolve() not in path.parents:
        raise ModelError(f'{where} is stored at "{location}", which is not a file beside the model; refused')
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else None
        with path.open("rb") as file:
            file.seek(offset)
            return file.read() if length is None else file.read(length)
    except FileNotFoundError:
        raise ModelError(
            f'{where} needs the file "{path}", which is missing; put it beside the model'
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f'{where}: cannot read the file "{path}": {error}') from error


def read_sparse(sparse: SparseTensorProto, folder: Path | None) -> tuple[str, Array]:
    """A sparse tensor's name and dense array; indices may be linear (1-D) or coordinates (2-D).

    Raises:
        ModelError: indices that are out of range, repeated, or do not match the values.
    """
    name = sparse.values.name
    where = f'sparse initializer "{name}"'
    values = read_tensor(sparse.values, folder, "the values of sparse initializer")
    indices = read_tensor(sparse.indices, folder, "the indices of sparse initializer").astype(
        np.int64, copy=False
    )
    shape = tuple(sparse.dims)
    if indices.ndim == 2 and indices.shape == (values.size, len(shape)):
        if indices.size and ((indices < 0) | (indices >= np.array(shape))).any():
            raise ModelError(f"{where} has an index outside its shape {show(shape)}")
        indices = np.ravel_multi_index(tuple(indices.T), shape) if indices.size else indices.reshape(-1)
    if indices.shape != (values.size,) or values.ndim != 1:
        raise ModelError(f"{where} has {values.size} values but indices of shape {show(indices.shape)}")
    total = math.prod(shape)
    if indices.size and (indices.min() < 0 or indices.max() >= total):
        raise ModelError(f"{where} has an index outside its shape {show(shape)}")
    if np.unique(indices).size != indices.size:
        raise ModelError(f"{where} has an index twice")
    dense = np.zeros(total, values.dtype)
    dense[indices] = values
    return name, dense.reshape(shape)


def write_tensor(name: str, array: Array) -> TensorProto:
    """An array as a tensor with raw data."""
    if array.dtype.kind not in "fiub" or array.dtype.byteorder == ">":
        return numpy_helper.from_array(array, name)
    return TensorProto(
        name=name,
        data_type=code_of(array.dtype),
        dims=array.shape,
        raw_data=np.ascontiguousarray(array).tobytes(),
    )


def write_sparse(name: str, array: Array) -> SparseTensorProto:
    """An array as a sparse tensor with linear indices."""
    flat = np.ascontiguousarray(array).reshape(-1)
    indices = np.flatnonzero(flat)
    return SparseTensorProto(
        values=write_tensor(name, flat[indices]),
        indices=write_tensor(f"{name}_indices", indices.astype(np.int64)),
        dims=array.shape,
    )


def worth_sparse(array: Array) -> bool:
    """Whether the sparse form is smaller; negative zeros would be lost, so they keep an array dense."""
    if array.dtype.kind != "f" or array.size < 64:
        return False
    count = int(np.count_nonzero(array))
    share = array.dtype.itemsize / (array.dtype.itemsize + 8)
    if count >= share * array.size:
        return False
    return not bool(np.any(np.signbit(array) & (array == 0)))
