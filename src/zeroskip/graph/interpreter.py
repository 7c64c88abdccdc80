"""The reference: a graph computed node by node in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zeroskip.errors import InputError
from zeroskip.graph.infer import evaluate_node
from zeroskip.graph.ir import Graph
from zeroskip.graph.operator import Array, show


def evaluate(graph: Graph, inputs: Mapping[str, Any], outputs: tuple[str, ...] | None = None) -> list[Array]:
    """Compute `outputs` (the graph's own where None; any value's name may be asked for).

    Inputs are arrays by name, of the graph's types; sizes may be anything the network accepts. Inputs are
    never modified. Slow, but every supported operator and type is there.

    Raises:
        InputError: an input is missing, unknown, or of the wrong type or rank.
        ModelError: an operator cannot be computed.

    >>> from zeroskip.graph.ir import Node, Value
    >>> f = np.dtype(np.float32)
    >>> values = {"x": Value("x", (2,), f), "y": Value("y", (2,), f)}
    >>> graph = Graph("g", (Node("Relu", ("x",), ("y",)),), ("x",), ("y",), values, {})
    >>> evaluate(graph, {"x": np.array([-1, 2], np.float32)})
    [array([0., 2.], dtype=float32)]
    """
    wanted = graph.outputs if outputs is None else outputs
    unknown = [name for name in wanted if name not in graph.values]
    if unknown:
        raise InputError(f'the graph has no value "{unknown[0]}"')
    known: dict[str, Any] = {**graph.constants, **check_inputs(graph, inputs)}
    last: dict[str, int] = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    for index, node in enumerate(graph.nodes):
        results = evaluate_node(node, [known[name] if name else None for name in node.inputs])
        known.update((name, array) for name, array in zip(node.outputs, results) if name)
        for name in node.inputs:
            if last.get(name) == index and name not in wanted and name not in graph.constants:
                known.pop(name, None)
    return [np.ascontiguousarray(known[name]).reshape(known[name].shape) for name in wanted]


def check_inputs(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """The inputs as arrays, checked for names, types and ranks.

    Raises:
        InputError: what, where, got and expected.
    """
    for name in inputs:
        if name not in graph.inputs:
            raise InputError(f'the network has no input "{name}"; its inputs are {_names(graph)}')
    arrays: dict[str, Array] = {}
    for name in graph.inputs:
        if name not in inputs:
            raise InputError(f'input "{name}" is missing; the network\'s inputs are {_names(graph)}')
        array, value = np.asarray(inputs[name]), graph.values[name]
        if array.dtype != value.dtype:
            raise InputError(
                f'input "{name}" has type {array.dtype}, expected {value.dtype}; '
                f"convert it with .astype(np.{value.dtype})"
            )
        if value.shape is not None and len(value.shape) != array.ndim:
            raise InputError(
                f'input "{name}" has shape {show(array.shape)} ({array.ndim} axes), '
                f"expected {show(value.shape)} ({len(value.shape)} axes)"
            )
        arrays[name] = array
    return arrays


def _names(graph: Graph) -> str:
    return ", ".join(f'"{name}" ({show(graph.values[name].shape)})' for name in graph.inputs) or "none"
