"""Fused nodes taken apart again, into operators that the ONNX standard has."""

from __future__ import annotations

from typing import Any

import numpy as np

from zeroskip.errors import ModelError
from zeroskip.graph.ir import Graph, Node, Value
from zeroskip.graph.operator import describe

_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "HardSwish": (),
    "Softplus": (),
    "Mish": (),
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Gelu": ("approximate",),
}
"""Activation to the attributes that its fused numbers stand for; Clip and Silu are built of other things."""


class _Unfuser:
    def __init__(self, graph: Graph) -> None:
        self.values = dict(graph.values)
        self.constants = dict(graph.constants)

    def value(self, base: str, like: Value) -> str:
        """A new value of the type of `like`."""
        name, number = base, 0
        while name in self.values:
            number += 1
            name = f"{base}_{number}"
        self.values[name] = Value(name, like.shape, like.dtype)
        return name

    def scalar(self, base: str, number: float, like: Value) -> str:
        """A new scalar constant of the type of `like`."""
        name = self.value(base, Value(base, (), like.dtype))
        self.constants[name] = np.array(number, like.dtype)
        return name

    def take_apart(self, node: Node) -> list[Node]:
        """The plain nodes that a fused one stands for."""
        activation = node.attr("activation")
        residual = node.input(3) if node.op == "Conv" else ""
        if not activation and not residual:
            return [node.with_(attributes=_plain(node))] if "activation" in node.attributes else [node]
        out = self.values[node.outputs[0]]
        result: list[Node] = []
        last = out.name
        if activation:
            last = self.value(f"{out.name}/linear", out)
            result = self.activation(node, activation, last, out)
        if residual:
            product = self.value(f"{out.name}/product", out)
            result.insert(0, Node("Add", (product, residual), (last,)))
            last = product
        inputs = node.inputs[:3] if node.input(2) else node.inputs[:2]
        return [Node(node.op, inputs, (last,), _plain(node), node.name), *result]

    def activation(self, node: Node, activation: tuple[Any, ...], source: str, out: Value) -> list[Node]:
        """The nodes that apply a fused activation to `source`."""
        name, *numbers = activation
        if name == "Silu":
            gate = self.value(f"{out.name}/gate", out)
            return [Node("Sigmoid", (source,), (gate,)), Node("Mul", (source, gate), (out.name,))]
        if name == "Clip":
            bounds = [
                "" if np.isinf(number) else self.scalar(f"{out.name}/{key}", number, out)
                for key, number in zip(("min", "max"), numbers)
            ]
            while bounds and not bounds[-1]:
                bounds.pop()
            return [Node("Clip", (source, *bounds), (out.name,))]
        if name not in _PARAMETERS or len(numbers) > len(_PARAMETERS[name]):
            raise ModelError(f"{describe(node)}: the fused activation {activation} is unknown")
        return [Node(name, (source,), (out.name,), dict(zip(_PARAMETERS[name], numbers)))]


def _plain(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.attributes.items() if key != "activation"}


def _coerced(node: Node, unfuser: _Unfuser) -> list[Node]:
    """Softmax over flattened axes (its meaning before opset 13) as Flatten, Softmax and Reshape."""
    attributes = {key: value for key, value in node.attributes.items() if key != "coerce_2d"}
    source, out = unfuser.values[node.inputs[0]], unfuser.values[node.outputs[0]]
    axis = node.attr("axis", 1)
    flat_type = Value("", (None, None), out.dtype)
    flat = unfuser.value(f"{out.name}/flat", flat_type)
    soft = unfuser.value(f"{out.name}/soft", flat_type)
    rank = None if source.shape is None else len(source.shape)
    sizes = unfuser.value(f"{out.name}/sizes", Value("", (rank,), np.dtype(np.int64)))
    return [
        Node("Shape", (source.name,), (sizes,)),
        Node("Flatten", (source.name,), (flat,), {"axis": axis}),
        Node(node.op, (flat,), (soft,), {**attributes, "axis": -1}, node.name),
        Node("Reshape", (soft, sizes), (out.name,)),
    ]


def unfuse(graph: Graph) -> Graph:
    """The same network in standard operators only; a graph without fused nodes comes back unchanged.

    Raises:
        ModelError: a fused activation is unknown.
    """
    unfuser = _Unfuser(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.attr("coerce_2d"):
            nodes.extend(_coerced(node, unfuser))
        else:
            nodes.extend(unfuser.take_apart(node))
    return graph.with_(nodes=tuple(nodes), values=unfuser.values, constants=unfuser.constants)
