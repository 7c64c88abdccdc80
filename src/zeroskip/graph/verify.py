"""The invariants of a graph; checked after every pass."""

from __future__ import annotations

from collections import Counter

from zeroskip.errors import ModelError
from zeroskip.graph.infer import infer_node
from zeroskip.graph.ir import Graph, Node, Value
from zeroskip.graph.operator import describe, show


def verify(graph: Graph, since: Graph | None = None) -> None:
    """Check that names are defined once and before use, and that types and shapes are what operators give.

    With `since` (an already verified graph), inference is repeated only for nodes that are new or whose
    inputs changed type.

    Raises:
        ModelError: the graph is inconsistent; the message names the node or the value.
    """
    _check_tables(graph)
    trusted = set() if since is None else {id(node) for node in since.nodes}
    defined = {*graph.inputs, *graph.constants}
    for node in graph.nodes:
        for name in node.inputs:
            if name and name not in defined:
                raise ModelError(f'{describe(node)} reads "{name}" before it is defined')
        for name in node.outputs:
            if name and name in defined:
                raise ModelError(f'{describe(node)} defines "{name}" a second time')
            if name and name not in graph.values:
                raise ModelError(f'{describe(node)} computes "{name}", which has no type')
        if not (id(node) in trusted and since is not None and _same_types(node, graph, since)):
            for value in infer_node(node, graph.values, graph.constants):
                _check_value(node, graph.values[value.name], value)
        defined.update(node.outputs)
    for name in graph.outputs:
        if name not in defined:
            raise ModelError(f'nothing computes the output "{name}"')


def _check_tables(graph: Graph) -> None:
    for kind, names in (("input", graph.inputs), ("output", graph.outputs)):
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated and kind == "input":
            raise ModelError(f'the {kind} "{repeated[0]}" is listed twice')
        for name in names:
            if name not in graph.values:
                raise ModelError(f'the {kind} "{name}" has no type')
    for name, array in graph.constants.items():
        if name in graph.inputs:
            raise ModelError(f'"{name}" is both an input and a constant')
        value = graph.values.get(name)
        if value is None:
            raise ModelError(f'the constant "{name}" has no type')
        if value.shape != array.shape or value.dtype != array.dtype:
            raise ModelError(
                f'the constant "{name}" is {array.dtype} {show(array.shape)}, '
                f"its type says {value.dtype} {show(value.shape)}"
            )


def _same_types(node: Node, graph: Graph, since: Graph) -> bool:
    names = [name for name in (*node.inputs, *node.outputs) if name]
    return all(
        graph.values[name] == since.values.get(name)
        and (name in graph.constants) == (name in since.constants)
        for name in names
    )


def _check_value(node: Node, stated: Value, inferred: Value) -> None:
    if stated.dtype != inferred.dtype:
        raise ModelError(
            f'{describe(node)} computes {inferred.dtype}, but "{stated.name}" is said to be {stated.dtype}'
        )
    if stated.shape is None or inferred.shape is None:
        return
    clash = len(stated.shape) != len(inferred.shape) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(stated.shape, inferred.shape)
    )
    if clash:
        raise ModelError(
            f"{describe(node)} computes {show(inferred.shape)}, "
            f'but "{stated.name}" is said to be {show(stated.shape)}'
        )
