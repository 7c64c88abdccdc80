"""What callers pass to a session: arrays for its inputs, names of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zeroskip.engine.plan import Array
from zeroskip.errors import InputError
from zeroskip.graph import Graph, Value


def checked(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays for the graph's inputs, contiguous; `InputError` for a missing, unknown or unfit one."""
    names = graph.inputs
    if not isinstance(inputs, Mapping):
        raise InputError(f"inputs: expected a dict of name to array, got {type(inputs).__name__}")
    unknown = [name for name in inputs if name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        parts = [f"missing {missing}" if missing else "", f"unknown {unknown}" if unknown else ""]
        raise InputError(
            f"inputs: {' and '.join(p for p in parts if p)}; the network's inputs are {list(names)}"
        )
    return {name: _array(graph.values[name], inputs[name]) for name in names}


def _array(value: Value, given: Array) -> Array:
    if not isinstance(given, np.ndarray):
        raise InputError(f"input {value.name!r}: expected a NumPy array, got {type(given).__name__}")
    if given.dtype != value.dtype:
        raise InputError(f"input {value.name!r}: expected {value.dtype}, got {given.dtype}; use .astype")
    shape = value.shape
    if shape is not None:
        fits = len(shape) == given.ndim and all(
            not isinstance(size, int) or size == there for size, there in zip(shape, given.shape, strict=True)
        )
        if not fits:
            wanted = "x".join("?" if size is None else str(size) for size in shape)
            got = "x".join(map(str, given.shape))
            raise InputError(
                f"input {value.name!r}: expected shape {wanted or 'scalar'}, got {got or 'scalar'}"
            )
        if given.ndim and given.shape[0] == 0 and not isinstance(shape[0], int):
            raise InputError(f"input {value.name!r}: the batch is 0; give at least one image")
    return np.ascontiguousarray(given).reshape(given.shape)


def wanted(graph: Graph, output_names: Sequence[str] | None) -> Sequence[str]:
    """The names of the outputs that are asked for; `InputError` for an unknown one."""
    if output_names is None:
        return graph.outputs
    if isinstance(output_names, str):
        raise InputError(f"outputs: expected a list of names or None, got the text {output_names!r}")
    unknown = [name for name in output_names if name not in graph.outputs]
    if unknown:
        raise InputError(f"outputs: unknown {unknown}; the network's outputs are {list(graph.outputs)}")
    return output_names
