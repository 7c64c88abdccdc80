"""Residual additions and activations join the convolution or Gemm that produces their input."""

from __future__ import annotations

from typing import Any

import numpy as np

from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.operators.elementwise import activation_of
from zeroskip.graph.passes.cleanup import equal_shapes
from zeroskip.graph.passes.editor import Editor

FUSIBLE = (
    "Relu",
    "LeakyRelu",
    "Clip",
    "Elu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Gelu",
    "Mish",
    "Softplus",
)
"""Activations that a Conv or Gemm may carry; ``Silu`` too, found as x·sigmoid(x)."""

_FLOAT_MAX = float(np.finfo(np.float32).max)


def fuse_residuals(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """``Add(Conv(x), r)`` of equal shapes becomes a Conv with a fourth input.

    Where both summands are convolutions, the later one takes the other's result.
    """
    e = Editor(graph)
    fused = 0
    order = {node.outputs[0]: index for index, node in enumerate(graph.nodes)}
    for node in e.nodes():
        if node.op != "Add" or not _addable(node, e):
            continue
        candidates = [name for name in node.inputs if _takes_residual(name, e)]
        if not candidates:
            continue
        chosen = max(candidates, key=lambda name: order.get(name, -1))
        residual = node.inputs[1] if node.inputs[0] == chosen else node.inputs[0]
        conv = e.producer(chosen)
        assert conv is not None
        inputs = (conv.inputs[0], conv.inputs[1], conv.input(2), residual)
        e.replace(node, conv.with_(inputs=inputs, outputs=node.outputs))
        fused += 1
    return e.finish(), {"fused": fused}


def _addable(node: Node, e: Editor) -> bool:
    a, b = (e.values[name] for name in node.inputs)
    variable = not any(name in e.constants for name in node.inputs)
    return variable and a.dtype.kind == "f" and equal_shapes(a.shape, b.shape)


def _takes_residual(name: str, e: Editor) -> bool:
    conv = e.producer(name)
    if conv is None or conv.op != "Conv" or not e.private(name):
        return False
    return not conv.attr("activation") and not conv.input(3)


def fuse_activations(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """``Relu(Conv(x))`` becomes a Conv with the attribute ``activation``; so do the others of `FUSIBLE`."""
    e = Editor(graph)
    fused = 0
    for node in e.nodes():
        if node.op in FUSIBLE:
            fused += _fuse(node, node.inputs[0], _activation(node, e), e)
        elif node.op == "Mul":
            fused += _fuse_silu(node, e)
    return e.finish(), {"fused": fused}


def _activation(node: Node, e: Editor) -> tuple[Any, ...] | None:
    """The activation as a tuple; None where its bounds are not constant."""
    if node.op != "Clip":
        return activation_of(node)
    bounds = [-np.inf, np.inf]
    for index, name in enumerate(node.inputs[1:]):
        if name:
            number = e.scalar(name)
            if number is None:
                return None
            bounds[index] = number
    low = -np.inf if bounds[0] <= -_FLOAT_MAX else bounds[0]
    high = np.inf if bounds[1] >= _FLOAT_MAX else bounds[1]
    if low > high or np.isnan(low + high):
        return None
    return ("Relu",) if (low, high) == (0, np.inf) else ("Clip", float(low), float(high))


def _target(name: str, e: Editor) -> Node | None:
    """The producer of `name`, if it may take an activation."""
    layer = e.producer(name)
    if layer is None or layer.op not in ("Conv", "ConvTranspose", "Gemm") or layer.attr("activation"):
        return None
    return layer if e.values[name].dtype.kind == "f" else None


def _fuse(node: Node, source: str, activation: tuple[Any, ...] | None, e: Editor) -> bool:
    layer = _target(source, e)
    if layer is None or activation is None or not e.private(source):
        return False
    attributes = {**layer.attributes, "activation": activation}
    e.replace(node, layer.with_(outputs=node.outputs, attributes=attributes))
    return True


def _fuse_silu(node: Node, e: Editor) -> bool:
    """x·sigmoid(x), where the layer's result x is read by these two nodes only."""
    for x, gate in (node.inputs, node.inputs[::-1]):
        sigmoid, layer = e.producer(gate), _target(x, e)
        if sigmoid is None or layer is None or sigmoid.op != "Sigmoid" or sigmoid.inputs[0] != x:
            continue
        if not e.private(gate) or e.is_output(x) or len(e.readers(x)) != 2 or x == gate:
            continue
        attributes = {**layer.attributes, "activation": ("Silu",)}
        e.replace(node, layer.with_(outputs=node.outputs, attributes=attributes))
        return True
    return False
