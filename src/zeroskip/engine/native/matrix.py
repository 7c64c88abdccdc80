"""Fully connected layers, softmax and local response normalisation."""

from __future__ import annotations

from math import prod

import numpy as np

from zeroskip.codegen import Operand, Plain
from zeroskip.codegen.activations import ACTIVATIONS
from zeroskip.engine import convolutions
from zeroskip.engine.native.row import Row
from zeroskip.engine.network import Network
from zeroskip.engine.plan import Array
from zeroskip.graph.ir import Node
from zeroskip.ops.gemm import gemm
from zeroskip.ops.lrn import lrn
from zeroskip.ops.softmax import softmax


def _gemm_accepts(network: Network, node: Node) -> bool:
    weights, bias = network.constant(node.inputs[1]), node.input(2)
    data = (node.inputs[0], node.outputs[0])
    if weights is None or weights.ndim != 2 or weights.size == 0 or not network.floats(*data):
        return False
    if node.attr("transA", 0) or weights.dtype != np.float32 or 0 in network.shape(data[0]):
        return False
    constant = network.constant(bias) if bias else None
    if bias and (
        constant is None
        or constant.size not in (1, network.shape(data[1])[-1])
        or constant.shape[:-1] not in ((), (1,))
    ):
        return False
    activation = node.attr("activation")
    return not activation or activation[0] in ACTIVATIONS


def _emit_gemm(network: Network, node: Node) -> None:
    weights = network.constant(node.inputs[1])
    assert weights is not None
    weights = weights if node.attr("transB", 0) else weights.T
    weights = weights * np.float32(node.attr("alpha", 1.0))
    bias = network.constant(node.input(2)) if node.input(2) else None
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1) * np.float32(node.attr("beta", 1.0)), weights.shape[:1])
    _emit_product(network, node, weights, bias)


def _emit_product(network: Network, node: Node, weights: Array, bias: Array | None) -> None:
    """The node's output as ``activation(input weights^T + bias)``; weights are (K, C)."""
    weights = np.ascontiguousarray(weights, np.float32)
    bias = None if bias is None else np.ascontiguousarray(bias, np.float32)
    x, y = network.plain(node.inputs[0]), network.output(node.outputs[0])
    network.emit(
        gemm(
            x,
            y,
            weights,
            bias,
            node.attr("activation"),
            target=network.target,
            threads=network.threads,
        )
    )


def _matmul_accepts(network: Network, node: Node) -> bool:
    x, y, weights = node.inputs[0], node.outputs[0], network.constant(node.inputs[1])
    if weights is None or weights.ndim != 2 or weights.size == 0 or weights.dtype != np.float32:
        return False
    return network.floats(x, y) and 0 not in network.shape(x) and len(network.shape(x)) > 1


def _emit_matmul(network: Network, node: Node) -> None:
    weights = network.constant(node.inputs[1])
    assert weights is not None
    _emit_product(network, node, weights.T, None)


def _product_conv_accepts(network: Network, node: Node) -> bool:
    """Whether every kernel of the Conv covers its whole image, once."""
    if not convolutions.accepts(network, node) or node.input(3):
        return False
    p = convolutions.problem_of(network, node)
    return p.groups == 1 and (p.R, p.S) == (p.H, p.W) and not any(p.pads) and max(p.dilations) == 1


def _emit_product_conv(network: Network, node: Node) -> None:
    p = convolutions.problem_of(network, node)
    _emit_product(network, node, p.w.reshape(p.K, -1), p.bias)


PRODUCT_CONV = Row(_product_conv_accepts, _emit_product_conv, label="gemm")
"""Convolutions that are fully connected layers: those after a global pool, or of a whole image."""


def _distributions(network: Network, node: Node) -> tuple[int, int] | None:
    """A softmax of neighbouring numbers as (how many, of how many each); None where it is none."""
    shape = network.shape(node.inputs[0])
    axis = int(node.attr("axis", -1)) % len(shape)
    if node.attr("coerce_2d", 0):
        return prod(shape[:axis]), prod(shape[axis:])
    return (prod(shape[:axis]), shape[axis]) if prod(shape[axis + 1 :]) == 1 else None


def _over_channels(network: Network, node: Node) -> bool:
    """Whether it is a softmax of each pixel over the channels of images."""
    x, y = node.inputs[0], node.outputs[0]
    axes = (1, 1 - len(network.shape(x)))
    return _distributions(network, node) is None and network.images(x, y) and node.attr("axis", -1) in axes


def _softmax_accepts(network: Network, node: Node) -> bool:
    x = node.inputs[0]
    shape = network.shape(x)
    if not shape or not network.floats(x) or 0 in shape:
        return False
    return _distributions(network, node) is not None or _over_channels(network, node)


def _softmax_geometry(network: Network, node: Node) -> None:
    if _over_channels(network, node):
        network.geometry.join(node.inputs[0], node.outputs[0])


def _emit_softmax(network: Network, node: Node) -> None:
    rows = _distributions(network, node)
    x = network.planar(node.inputs[0]) if rows is None else network.plain(node.inputs[0])
    y = network.output(node.outputs[0])
    if rows is not None:
        x, y = (Operand(array.buffer, Plain(rows), array.offset) for array in (x, y))
    logarithm = node.op == "LogSoftmax"
    call = softmax(x, y, axis=1, logarithm=logarithm, target=network.target, threads=network.threads)
    assert call is not None
    network.emit(call)


def _lrn_accepts(network: Network, node: Node) -> bool:
    return network.images(node.inputs[0], node.outputs[0])


def _lrn_geometry(network: Network, node: Node) -> None:
    network.geometry.join(node.inputs[0], node.outputs[0])


def _emit_lrn(network: Network, node: Node) -> None:
    x, y = network.planar(node.inputs[0]), network.output(node.outputs[0])
    network.emit(
        lrn(
            x, y,
            size=int(node.attr("size")),
            alpha=float(node.attr("alpha", 1e-4)),
            beta=float(node.attr("beta", 0.75)),
            bias=float(node.attr("bias", 1.0)),
            target=network.target,
            threads=network.threads,
        )
    )  # fmt: skip


_softmax = Row(_softmax_accepts, _emit_softmax, _softmax_geometry, _over_channels)

ROWS = {
    "Gemm": Row(_gemm_accepts, _emit_gemm, label="gemm"),
    "LRN": Row(_lrn_accepts, _emit_lrn, _lrn_geometry, planar=True),
    "LogSoftmax": _softmax,
    "MatMul": Row(_matmul_accepts, _emit_matmul, label="gemm"),
    "Softmax": _softmax,
}
