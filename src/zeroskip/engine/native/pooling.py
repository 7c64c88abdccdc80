"""Pools: windows over planes, whole planes to one number, and the channels of a pixel to one."""

from __future__ import annotations

from collections.abc import Callable

from zeroskip.codegen import Call, Operand, Plain
from zeroskip.engine.native.row import Row
from zeroskip.engine.network import Network
from zeroskip.graph.ir import Node
from zeroskip.ops import pool
from zeroskip.ops.reduce import reduce_channels

Kernel = Callable[..., Call]


def _window(node: Node, rank: int) -> pool.Window:
    """The window of a pool; a 1-D one has one row."""
    kernel, strides, pads, dilations = (
        tuple(node.attr(key)) for key in ("kernel_shape", "strides", "pads", "dilations")
    )
    if rank == 3:
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
        pads = (0, pads[0], 0, pads[1])
    return pool.Window(kernel, strides, pads, dilations)


def _pool_accepts(network: Network, node: Node) -> bool:
    return len([name for name in node.outputs if name]) == 1 and network.images(node.inputs[0])


def _lp_accepts(network: Network, node: Node) -> bool:
    return _pool_accepts(network, node) and node.attr("p", 2) in (1, 2)


def _emit_window(kernel: Kernel, **options: tuple[str, int]) -> Callable[[Network, Node], None]:
    """How a pool over windows is emitted; `options` are the kernel's, each an attribute and its default."""

    def emit(network: Network, node: Node) -> None:
        x = network.planar(node.inputs[0])
        window = _window(node, len(network.shape(node.inputs[0])))
        y = network.output(node.outputs[0])
        own = {name: node.attr(*attribute) for name, attribute in options.items()}
        network.emit(kernel(x, y, window, **own, target=network.target, threads=network.threads))

    return emit


def _emit_global(kernel: Kernel) -> Callable[[Network, Node], None]:
    def emit(network: Network, node: Node) -> None:
        x = network.planar(node.inputs[0])
        y = network.output(node.outputs[0])
        assert isinstance(y.layout, Plain)
        n, c = network.image_shape(node.inputs[0])[:2]
        flat = Operand(y.buffer, Plain((n, c, 1, 1)), y.offset)
        network.emit(kernel(x, flat, target=network.target, threads=network.threads))

    return emit


def _reduce_accepts(network: Network, node: Node) -> bool:
    """Whether the node reduces the channels of images, and keeps the axis."""
    axes = network.constant(node.input(1)) if node.input(1) else None
    if axes is None or axes.size != 1 or not node.attr("keepdims", 1):
        return False
    rank = len(network.shape(node.inputs[0]))
    return int(axes.reshape(())) % rank == 1 and network.images(node.inputs[0], node.outputs[0])


def _reduce_geometry(network: Network, node: Node) -> None:
    network.geometry.join(node.inputs[0], node.outputs[0])


def _emit_reduce(kind: str) -> Callable[[Network, Node], None]:
    def emit(network: Network, node: Node) -> None:
        x, y = network.planar(node.inputs[0]), network.output(node.outputs[0])
        network.emit(reduce_channels(x, y, kind, target=network.target, threads=network.threads))

    return emit


def _reduction(kind: str) -> Row:
    return Row(_reduce_accepts, _emit_reduce(kind), _reduce_geometry, planar=True)


ROWS = {
    "MaxPool": Row(_pool_accepts, _emit_window(pool.max_pool), planar=True),
    "AveragePool": Row(
        _pool_accepts,
        _emit_window(pool.average_pool, count_include_pad=("count_include_pad", 0)),
        planar=True,
    ),
    "LpPool": Row(_lp_accepts, _emit_window(pool.lp_pool, p=("p", 2)), planar=True),
    "GlobalAveragePool": Row(_pool_accepts, _emit_global(pool.global_average_pool)),
    "GlobalMaxPool": Row(_pool_accepts, _emit_global(pool.global_max_pool)),
    "ReduceMax": _reduction("max"),
    "ReduceMean": _reduction("mean"),
    "ReduceSum": _reduction("sum"),
}
