"""Fixing a network's input shapes, so that every size in it is a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zeroskip.errors import InputError, ModelError
from zeroskip.graph.infer import call_of, evaluate_node, infer_node, operator_of, value_of
from zeroskip.graph.ir import Graph, Node, Value
from zeroskip.graph.operator import Array, describe, show
from zeroskip.graph.operators.convolution import transposed_pads
from zeroskip.graph.operators.window import resolve_pads, window_of


def bind(
    graph: Graph, shapes: Mapping[str, Sequence[int]], numbers: Mapping[str, Array] | None = None
) -> Graph:
    """The graph for inputs of the given shapes: every value static, shape computations folded, pads explicit.

    `shapes` names every input. `numbers` gives the contents of inputs on which shapes depend (see
    `shape_inputs`); they become constants and are no longer inputs.

    Raises:
        InputError: an input is missing or unknown, or a shape contradicts the network's.
        ModelError: a size cannot be inferred, or the shapes do not fit the operators.

    >>> import numpy as np
    >>> from zeroskip.graph.ir import Node, Value
    >>> x = Value("x", ("N", 8), np.dtype(np.float32))
    >>> graph = Graph("g", (Node("Relu", ("x",), ("y",)),), ("x",), ("y",), {"x": x, "y": x}, {})
    >>> bind(graph, {"x": (2, 8)}).values["y"].shape
    (2, 8)
    """
    numbers = numbers or {}
    values = {name: graph.values[name] for name in graph.constants}
    values |= _bound_inputs(graph, shapes, numbers)
    constants = {**graph.constants, **numbers}
    nodes: list[Node] = []
    for node in graph.nodes:
        inferred = infer_node(node, values, constants)
        folded = _folded(node, values, constants)
        if folded is not None:
            for name, array in folded.items():
                constants[name] = array
                values[name] = value_of(name, array)
            continue
        for value in inferred:
            if not value.static:
                raise ModelError(_unknown(node, value, values, constants))
            values[value.name] = value
        nodes.append(explicit(node, values))
    inputs = tuple(name for name in graph.inputs if name not in numbers)
    return graph.with_(nodes=tuple(nodes), inputs=inputs, values=values, constants=constants)


def shape_inputs(graph: Graph) -> tuple[str, ...]:
    """The inputs whose contents decide shapes; `bind` needs their numbers.

    Found backwards: the shape operands of Reshape, Expand, Resize, ... and what they are computed from,
    except through operators that look at shapes only.
    """
    producers = graph.producers()
    wanted = [name for node in graph.nodes for name in _shape_operands(node)]
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if not name or name in seen or name in graph.constants:
            continue
        seen.add(name)
        node = producers.get(name)
        if node is not None and node.op != "Shape":
            wanted.extend(node.inputs)
    return tuple(name for name in graph.inputs if name in seen)


_SHAPE_OPERANDS: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 3),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}
"""Operator to the inputs whose contents decide its output's shape."""


def _shape_operands(node: Node) -> list[str]:
    return [node.input(i) for i in _SHAPE_OPERANDS.get(node.op, ())]


def _bound_inputs(
    graph: Graph, shapes: Mapping[str, Sequence[int]], numbers: Mapping[str, Array]
) -> dict[str, Value]:
    for name in (*shapes, *numbers):
        if name not in graph.inputs:
            raise InputError(f'the network has no input "{name}"; its inputs are {", ".join(graph.inputs)}')
    bound: dict[str, Value] = {}
    symbols: dict[str, tuple[int, str]] = {}
    for name in graph.inputs:
        if name in numbers:
            bound[name] = value_of(name, numbers[name])
        elif name in shapes:
            bound[name] = _bound(graph.values[name], tuple(int(d) for d in shapes[name]), symbols)
        else:
            raise InputError(f'the shape of input "{name}" is missing')
    return bound


def _bound(value: Value, shape: tuple[int, ...], symbols: dict[str, tuple[int, str]]) -> Value:
    declared = value.shape if value.shape is not None else (None,) * len(shape)
    expected = f"expected {show(value.shape)}"
    if len(shape) != len(declared):
        raise InputError(
            f'input "{value.name}" has shape {show(shape)} ({len(shape)} axes), '
            f"{expected} ({len(declared)} axes)"
        )
    for axis, (size, dim) in enumerate(zip(shape, declared)):
        if isinstance(dim, int):
            if size != dim:
                raise InputError(
                    f'input "{value.name}" has shape {show(shape)}, {expected}: axis {axis} is fixed'
                )
        elif size < 1:
            what = "a batch of 0" if axis == 0 else f"size {size} at axis {axis}"
            raise InputError(f'input "{value.name}" has {what} (shape {show(shape)}); give at least one')
        elif isinstance(dim, str):
            known, where = symbols.setdefault(dim, (size, value.name))
            if known != size:
                raise InputError(
                    f'the size "{dim}" is {known} in input "{where}" but {size} in input "{value.name}"; '
                    "they must be equal"
                )
    return Value(value.name, shape, value.dtype)


def _folded(
    node: Node, values: Mapping[str, Value], constants: Mapping[str, Array]
) -> dict[str, Array] | None:
    """The node's outputs where its inputs are constant, or where types alone decide them."""
    row = operator_of(node)
    if row.fold is not None:
        array = row.fold(call_of(node, values, constants))
        return None if array is None else {node.outputs[0]: array}
    if any(name and name not in constants for name in node.inputs):
        return None
    results = evaluate_node(node, [constants[name] if name else None for name in node.inputs])
    return {name: array for name, array in zip(node.outputs, results) if name}


def _unknown(node: Node, value: Value, values: Mapping[str, Value], constants: Mapping[str, Any]) -> str:
    causes = [name for name in _shape_operands(node) if name and name not in constants]
    why = f', because "{causes[0]}" is computed from the contents of the inputs' if causes else ""
    what = f'{describe(node)}: the shape of "{value.name}" ({show(value.shape)}) cannot be inferred{why}'
    return f"{what}; export the network with fixed shapes"


def explicit(node: Node, values: Mapping[str, Value]) -> Node:
    """A convolution, pool or Gemm with every attribute that shapes its work spelled out."""
    if node.op == "Gemm":
        defaults = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
        return node.with_(attributes={**defaults, **node.attributes})
    if node.op not in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"):
        return node
    sizes = values[node.inputs[0]].sizes[2:]
    kernel = values[node.inputs[1]].sizes[2:] if node.op.startswith("Conv") else ()
    window = window_of(node, kernel)
    more: dict[str, Any] = {}
    if node.op == "ConvTranspose":
        window, wanted = transposed_pads(node, window, sizes)
        full = [(n - 1) * s + e for n, s, e in zip(sizes, window.strides, window.extents)]
        ends = window.ends
        extra = tuple(w - f + b + e for w, f, b, e in zip(wanted, full, window.begins, ends))
        more = {"output_padding": extra}
    else:
        window = resolve_pads(window, sizes)
    if node.op.startswith("Conv"):
        more["group"] = node.attr("group", 1)
    kept = {k: v for k, v in node.attributes.items() if k not in ("auto_pad", "output_shape")}
    return node.with_(
        attributes={
            **kept,
            "kernel_shape": window.kernel,
            "strides": window.strides,
            "dilations": window.dilations,
            "pads": (*window.begins, *window.ends),
            **more,
        }
    )
