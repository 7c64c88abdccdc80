"""Normalisations by the data's own statistics; those by stored statistics are part of convolutions."""

from __future__ import annotations

from math import prod

import numpy as np

from zeroskip.codegen import Operand, Plain
from zeroskip.engine.native.row import Row
from zeroskip.engine.network import Network
from zeroskip.engine.plan import Array
from zeroskip.graph.ir import Node
from zeroskip.ops.elementwise import multiply_add
from zeroskip.ops.normalize import moments, normalize_rows


def _constant(network: Network, name: str, count: int) -> bool:
    """Whether the value is so many constant numbers."""
    array = network.constant(name)
    return array is not None and array.size == count and array.dtype == np.float32


def _instance_accepts(network: Network, node: Node) -> bool:
    if not network.images(node.inputs[0], node.outputs[0]):
        return False
    channels = network.image_shape(node.inputs[0])[1]
    return all(_constant(network, name, channels) for name in node.inputs[1:3])


def _instance_geometry(network: Network, node: Node) -> None:
    network.geometry.join(node.inputs[0], node.outputs[0])


def _emit_instance(network: Network, node: Node) -> None:
    x, y = network.planar(node.inputs[0]), network.output(node.outputs[0])
    layout = Plain((*network.image_shape(node.inputs[0])[:2], 1, 1))
    factor, offset = (Operand(network.workspace(layout.bytes), layout) for _ in range(2))
    scale, shift = (network.constant(name) for name in node.inputs[1:3])
    assert scale is not None and shift is not None
    epsilon, threads = float(node.attr("epsilon", 1e-5)), network.threads
    network.emit(
        moments(x, factor, offset, scale=scale, shift=shift, epsilon=epsilon, threads=threads),
        multiply_add(x, factor, offset, y, target=network.target, threads=threads),
    )


def _length(network: Network, node: Node) -> int:
    shape = network.shape(node.inputs[0])
    return prod(shape[int(node.attr("axis", -1)) % len(shape) :])


def _layer_accepts(network: Network, node: Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if not network.floats(x, y) or 0 in network.shape(x) or any(node.outputs[1:]):
        return False
    length = _length(network, node)
    return all(_constant(network, name, length) for name in node.inputs[1:3] if name)


def _emit_layer(network: Network, node: Node) -> None:
    x, y, length = network.plain(node.inputs[0]), network.output(node.outputs[0]), _length(network, node)
    scale = network.constant(node.inputs[1])
    shift = network.constant(node.input(2)) if node.input(2) else np.zeros(length, np.float32)
    assert scale is not None and shift is not None
    network.emit(
        normalize_rows(
            x,
            y,
            length=length,
            scale=_flat(scale),
            shift=_flat(shift),
            epsilon=float(node.attr("epsilon", 1e-5)),
            target=network.target,
            threads=network.threads,
        )
    )


def _flat(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1)


ROWS = {
    "InstanceNormalization": Row(_instance_accepts, _emit_instance, _instance_geometry, planar=True),
    "LayerNormalization": Row(_layer_accepts, _emit_layer),
}
