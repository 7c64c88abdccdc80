"""Pools: windows over planes, and whole planes to one number."""

from __future__ import annotations

from collections.abc import Callable

from zeroskip.codegen import Operand, Plain
from zeroskip.engine.native.row import Row
from zeroskip.engine.network import Network
from zeroskip.graph.ir import Node
from zeroskip.ops import pool


def _pairs(node: Node, rank: int) -> dict[str, tuple[int, ...]]:
    """kernel, strides, pads and dilations of a 1-D or 2-D window as 2-D ones."""
    kernel, strides, pads, dilations = (
        tuple(node.attr(key)) for key in ("kernel_shape", "strides", "pads", "dilations")
    )
    if rank == 3:
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
        pads = (0, pads[0], 0, pads[1])
    return {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}


def _pool_accepts(network: Network, node: Node) -> bool:
    return len([name for name in node.outputs if name]) == 1 and network.images(node.inputs[0])


def _emit_max_pool(network: Network, node: Node) -> None:
    x = network.planar(node.inputs[0])
    window = _pairs(node, len(network.shape(node.inputs[0])))
    y = network.output(node.outputs[0])
    network.emit(pool.max_pool(x, y, **window, target=network.target, threads=network.threads))  # type: ignore[arg-type]


def _emit_average_pool(network: Network, node: Node) -> None:
    x = network.planar(node.inputs[0])
    window = _pairs(node, len(network.shape(node.inputs[0])))
    y = network.output(node.outputs[0])
    include = bool(node.attr("count_include_pad", 0))
    network.emit(
        pool.average_pool(
            x, y, **window, count_include_pad=include, target=network.target, threads=network.threads  # type: ignore[arg-type]
        )
    )  # fmt: skip


def _emit_global(kernel: Callable[..., object]) -> Callable[[Network, Node], None]:
    def emit(network: Network, node: Node) -> None:
        x = network.planar(node.inputs[0])
        y = network.output(node.outputs[0])
        assert isinstance(y.layout, Plain)
        n, c = network.image_shape(node.inputs[0])[:2]
        flat = Operand(y.buffer, Plain((n, c, 1, 1)), y.offset)
        network.emit(kernel(x, flat, target=network.target, threads=network.threads))  # type: ignore[arg-type]

    return emit


ROWS = {
    "MaxPool": Row(_pool_accepts, _emit_max_pool, planar=True),
    "AveragePool": Row(_pool_accepts, _emit_average_pool, planar=True),
    "GlobalAveragePool": Row(_pool_accepts, _emit_global(pool.global_average_pool)),
    "GlobalMaxPool": Row(_pool_accepts, _emit_global(pool.global_max_pool)),
}
