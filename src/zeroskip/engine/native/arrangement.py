"""Concatenation by place, and views: operators that move nothing, or little."""

from __future__ import annotations

from math import prod

from zeroskip.codegen import Operand, Plain
from zeroskip.engine.native.row import Row
from zeroskip.engine.network import Network
from zeroskip.graph.ir import Node


def _joins_runs(network: Network, node: Node) -> bool:
    """Whether a row-major result is the row-major inputs, one after the other."""
    shape = network.shape(node.outputs[0])
    return prod(shape[: int(node.attr("axis")) % len(shape)]) == 1


def _concat_accepts(network: Network, node: Node) -> bool:
    names = (*node.inputs, node.outputs[0])
    if not network.floats(*names) or any(0 in network.shape(name) for name in names):
        return False
    return _joins_channels(network, node) or _joins_runs(network, node)


def _joins_channels(network: Network, node: Node) -> bool:
    rank = len(network.shape(node.outputs[0]))
    return network.images(*node.inputs, node.outputs[0]) and node.attr("axis") in (1, 1 - rank)


def _concat_planar(network: Network, node: Node) -> bool:
    """Planes, but for arrays of rank 3 that need not be: those are seldom images."""
    if not _joins_channels(network, node):
        return False
    images = len(network.shape(node.outputs[0])) == 4
    needed = any(name in network.planar_values for name in node.inputs) or not _joins_runs(network, node)
    return images or needed


def _concat_geometry(network: Network, node: Node) -> None:
    if node.outputs[0] in network.planar_values:
        network.geometry.join(node.outputs[0], *node.inputs)


def _emit_concat(network: Network, node: Node) -> None:
    if node.outputs[0] in network.planar_values:
        _emit_channels(network, node)
        return
    out, offset = network.output(node.outputs[0]), 0
    for name in node.inputs:
        part = Operand(out.buffer, Plain(network.shape(name)), out.offset + offset)
        network.copy_value(name, part)
        offset += part.layout.bytes


def _emit_channels(network: Network, node: Node) -> None:
    """Inputs that were not written in place are copied to their channels."""
    out = node.outputs[0]
    whole = network.homes.get(out) or network.output(out)
    network.touch(whole)
    channel = 0
    for name in node.inputs:
        layout = network.planar_layout(name)
        part = Operand(whole.buffer, layout, whole.offset + channel * layout.plane)
        if network.homes.get(name) != part:
            network.copy_value(name, part)
        channel += network.image_shape(name)[1]


def _reshape_accepts(network: Network, node: Node) -> bool:
    return network.floats(node.inputs[0], node.outputs[0]) and 0 not in network.shape(node.inputs[0])


def _emit_reshape(network: Network, node: Node) -> None:
    x = network.plain(node.inputs[0])
    network.alias(node.outputs[0], Operand(x.buffer, Plain(network.shape(node.outputs[0])), x.offset))


_view = Row(_reshape_accepts, _emit_reshape, label="view")

ROWS = {
    "Concat": Row(_concat_accepts, _emit_concat, _concat_geometry, _concat_planar, label="in place"),
    "Flatten": _view,
    "Identity": _view,
    "Reshape": _view,
    "Squeeze": _view,
    "Unsqueeze": _view,
}
