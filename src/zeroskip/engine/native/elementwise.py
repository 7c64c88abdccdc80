"""Activations on their own, and arithmetic with broadcasting."""

from __future__ import annotations

from math import inf, isfinite

import numpy as np

from zeroskip.codegen import Operand, Plain
from zeroskip.codegen.activations import ACTIVATIONS, Activation
from zeroskip.engine.native.row import Row
from zeroskip.engine.network import Network
from zeroskip.graph.ir import Node
from zeroskip.graph.operators.elementwise import activation_of
from zeroskip.ops import elementwise
from zeroskip.ops.elementwise import BINARY, Source

_UNARY = tuple(name for name in ACTIVATIONS if name != "Silu")


def _activation(network: Network, node: Node) -> Activation | None:
    """The node as an activation; None where its numbers are not constant."""
    if node.op == "Pow":
        exponent = network.constant(node.inputs[1])
        known = exponent is not None and exponent.size == 1 and isfinite(exponent.reshape(()))
        return ("Pow", float(exponent.reshape(()))) if exponent is not None and known else None
    if node.op != "Clip":
        return activation_of(node)
    bounds = [-inf, inf]
    for index, name in enumerate(node.inputs[1:3]):
        number = network.constant(name) if name else None
        if name and (number is None or number.size != 1):
            return None
        if number is not None:
            bounds[index] = float(number.reshape(()))
    return ("Clip", *bounds)


def _unary_accepts(network: Network, node: Node) -> bool:
    x = node.inputs[0]
    plain_numbers = node.op != "Gelu" or node.attr("approximate", "none") == "none"
    return (
        network.floats(x, node.outputs[0])
        and 0 not in network.shape(x)
        and network.shape(x) == network.shape(node.outputs[0])
        and plain_numbers
        and _activation(network, node) is not None
    )


def _unary_planar(network: Network, node: Node) -> bool:
    return node.inputs[0] in network.planar_values


def _unary_geometry(network: Network, node: Node) -> None:
    if _unary_planar(network, node):
        network.geometry.join(node.inputs[0], node.outputs[0])


def _emit_unary(network: Network, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    source = network.planar(x) if y in network.planar_values else network.plain(x)
    activation = _activation(network, node)
    assert activation is not None
    if activation[0] == "Gelu":
        activation = ("Gelu",)
    network.emit(
        elementwise.unary(
            source, network.output(y), activation, target=network.target, threads=network.threads
        )
    )


def _binary_accepts(network: Network, node: Node) -> bool:
    names = (*node.inputs, node.outputs[0])
    if len(node.inputs) != 2 or not network.floats(*names) or any(0 in network.shape(n) for n in names):
        return False
    if all(name in network.graph.constants for name in node.inputs):
        return False
    shapes = [network.shape(name) for name in node.inputs]
    return len(shapes[0]) <= 4 and len(shapes[1]) <= 4


def _full(network: Network, node: Node) -> list[str]:
    """The inputs that have the output's shape and live in planes."""
    out = network.shape(node.outputs[0])
    return [name for name in node.inputs if name in network.planar_values and network.shape(name) == out]


def _binary_planar(network: Network, node: Node) -> bool:
    return bool(_full(network, node))


def _binary_geometry(network: Network, node: Node) -> None:
    if _binary_planar(network, node):
        network.geometry.join(node.outputs[0], *_full(network, node))


def _four_axes(shape: tuple[int, ...], rank: int) -> tuple[int, int, int, int]:
    """A shape that broadcasts to (N, C, H, W), or to (N, C, W) when the output's `rank` is 3."""
    full = (1,) * (rank - len(shape)) + shape
    if rank == 3:
        full = (full[0], full[1], 1, full[2])
    return full  # type: ignore[return-value]


def _emit_binary(network: Network, node: Node) -> None:
    y = node.outputs[0]
    planes = y in network.planar_values
    rank = len(network.shape(y))

    def source(name: str) -> Source:
        constant = network.constant(name)
        shape = _four_axes(network.shape(name), rank) if planes else network.shape(name)
        if constant is not None:
            return np.ascontiguousarray(constant.reshape(shape))
        if planes and name in _full(network, node):
            return network.planar(name)
        plain = network.plain(name)
        return Operand(plain.buffer, Plain(shape), plain.offset)

    a, b = (source(name) for name in node.inputs)
    out = network.output(y)
    network.emit(elementwise.binary(node.op, a, b, out, target=network.target, threads=network.threads))


_unary = Row(_unary_accepts, _emit_unary, _unary_geometry, _unary_planar)
_binary = Row(_binary_accepts, _emit_binary, _binary_geometry, _binary_planar)

ROWS = dict.fromkeys(_UNARY, _unary) | dict.fromkeys(BINARY, _binary)
