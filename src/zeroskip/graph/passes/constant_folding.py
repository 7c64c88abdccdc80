"""Nodes whose inputs are constant are computed once, now."""

from __future__ import annotations

import math

from zeroskip.graph.infer import call_of, evaluate_node, operator_of
from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.operator import Array
from zeroskip.graph.passes.editor import Editor

GROWTH_LIMIT = 1 << 24
"""Elements above which a result larger than its inputs stays computed (an Expand of a scalar, say)."""


def fold_constants(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Replace nodes with constant results by those results."""
    e = Editor(graph)
    for node in e.nodes():
        arrays = _folded(node, e)
        if arrays is not None:
            e.fold(node, arrays)
        elif e.changes and not all(e.values[out].static for out in node.outputs if out):
            e.retype(node)  # a folded shape operand may have made its output known
    return e.finish(), {"folded": e.changes}


def _folded(node: Node, e: Editor) -> dict[str, Array] | None:
    row = operator_of(node)
    if row.fold is not None:
        array = row.fold(call_of(node, e.values, e.constants))
        return None if array is None else {node.outputs[0]: array}
    if any(name and name not in e.constants for name in node.inputs):
        return None
    before = sum(e.constants[name].size for name in node.inputs if name)
    for out in node.outputs:
        value = e.values.get(out)
        if value is not None and value.static and math.prod(value.sizes) > max(GROWTH_LIMIT, before):
            return None
    results = evaluate_node(node, [e.constants[name] if name else None for name in node.inputs])
    return {name: array for name, array in zip(node.outputs, results) if name}
