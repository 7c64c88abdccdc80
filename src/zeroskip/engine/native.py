"""Operators that run as native kernels, besides Conv: one row each. What has no row runs in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zeroskip.codegen import Operand, Plain
from zeroskip.engine.network import Network
from zeroskip.graph.ir import Node
from zeroskip.ops import pool


def _nothing(network: Network, node: Node) -> None:
    """No demands on the geometry."""


@dataclass(frozen=True)
class Row:
    """How one operator is lowered: when it can be, what it does, what geometry it wants, what it writes."""

    accepts: Callable[[Network, Node], bool]
    emit: Callable[[Network, Node], None]
    shape_geometry: Callable[[Network, Node], None] = _nothing
    planar: bool | Callable[[Network, Node], bool] = False
    label: str = "native"

    def is_planar(self, network: Network, node: Node) -> bool:
        """Whether the outputs are planes."""
        return self.planar if isinstance(self.planar, bool) else self.planar(network, node)


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


def _concat_accepts(network: Network, node: Node) -> bool:
    rank = len(network.shape(node.outputs[0]))
    return network.images(*node.inputs, node.outputs[0]) and node.attr("axis") in (1, 1 - rank)


def _concat_geometry(network: Network, node: Node) -> None:
    network.geometry.join(node.outputs[0], *node.inputs)


def _emit_concat(network: Network, node: Node) -> None:
    """Inputs that were not written in place are copied to their channels."""
    out = node.outputs[0]
    whole = network.homes.get(out) or network.output(out)
    network.touch(whole)
    channel = 0
    for name in node.inputs:
        if network.places.get(name) != (out, channel):
            layout = network.planar_layout(name)
            part = Operand(whole.buffer, layout, whole.offset + channel * layout.plane)
            network.copy_value(name, part)
        channel += network.image_shape(name)[1]


def _reshape_accepts(network: Network, node: Node) -> bool:
    return network.floats(node.inputs[0], node.outputs[0]) and 0 not in network.shape(node.inputs[0])


def _emit_reshape(network: Network, node: Node) -> None:
    x = network.plain(node.inputs[0])
    network.alias(node.outputs[0], Operand(x.buffer, Plain(network.shape(node.outputs[0])), x.offset))


_reshape = Row(_reshape_accepts, _emit_reshape, label="view")

NATIVE: dict[str, Row] = {
    "MaxPool": Row(_pool_accepts, _emit_max_pool, planar=True),
    "AveragePool": Row(_pool_accepts, _emit_average_pool, planar=True),
    "GlobalAveragePool": Row(_pool_accepts, _emit_global(pool.global_average_pool)),
    "GlobalMaxPool": Row(_pool_accepts, _emit_global(pool.global_max_pool)),
    "Concat": Row(_concat_accepts, _emit_concat, _concat_geometry, planar=True, label="in place"),
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
}
