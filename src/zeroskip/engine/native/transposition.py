"""Transpose: a kernel that reads at fixed distances, between planes and plain arrays in either direction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from zeroskip.codegen import Operand, Plain
from zeroskip.engine.native.row import Row
from zeroskip.engine.network import Network
from zeroskip.graph.ir import Node
from zeroskip.ops import planes
from zeroskip.ops.permute import permute

AXES = 4
"""A kernel walks over this many axes; neighbouring ones join where they are neighbours in the input too."""

_READ_PLANES = ("AveragePool", "Conv", "MaxPool")


@dataclass(frozen=True)
class _Axis:
    """An axis of the output: its size, and the bytes of the input from one index to the next."""

    size: int
    stride: int


def _order(network: Network, node: Node) -> tuple[int, ...]:
    rank = len(network.shape(node.inputs[0]))
    return tuple(node.attr("perm") or reversed(range(rank)))


def _plain_strides(shape: tuple[int, ...]) -> list[int]:
    return list(accumulate(shape[:0:-1], mul, initial=4))[::-1]


def _axes(network: Network, node: Node, strides: list[int]) -> list[_Axis]:
    """The output's axes, given the strides of the input's."""
    shape = network.shape(node.inputs[0])
    return [_Axis(shape[axis], strides[axis]) for axis in _order(network, node)]


def _joined(axes: list[_Axis]) -> list[_Axis]:
    """The same walk over as few axes as can be."""
    joined: list[_Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        if joined and joined[-1].stride == axis.size * axis.stride:
            joined[-1] = _Axis(joined[-1].size * axis.size, axis.stride)
        else:
            joined.append(axis)
    return joined or [_Axis(1, 4)]


def _accepts(network: Network, node: Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    shape = network.shape(x)
    if not network.floats(x, y) or not shape or 0 in shape:
        return False
    # planes join less than plain arrays; where a value will lie in planes, it has at most four axes
    return len(shape) <= AXES or len(_joined(_axes(network, node, _plain_strides(shape)))) <= AXES


def _planar(network: Network, node: Node) -> bool:
    """Planes where a convolution reads the result, unless the input already had to be planes."""
    x, y = node.inputs[0], node.outputs[0]
    readers = network.consumers.get(y, ())
    reads_planes = any(reader.op in _READ_PLANES and reader.inputs[0] == y for reader in readers)
    return reads_planes and x not in network.planar_values and network.images(y)


def _emit(network: Network, node: Node) -> None:
    x, y = network.home(node.inputs[0]), network.output(node.outputs[0])
    shape = network.shape(node.inputs[0])
    view = planes.view(x.layout)
    if isinstance(x.layout, Plain):
        strides = _plain_strides(shape)
    else:
        strides = [view.image, view.plane, view.pitch, 4]
        strides = strides if len(shape) == AXES else [*strides[:2], 4]
    axes = _axes(network, node, strides)
    if isinstance(y.layout, Plain):
        axes = _joined(axes)
        axes = [_Axis(1, 0)] * (AXES - len(axes)) + axes
        y = Operand(y.buffer, Plain(tuple(axis.size for axis in axes)), y.offset)
    elif len(axes) < AXES:
        axes = [*axes[:2], _Axis(1, 0), axes[2]]
    image, plane, row, column = (axis.stride for axis in axes)
    network.emit(permute(x, y, (image, plane, row, column), target=network.target, threads=network.threads))


ROWS = {"Transpose": Row(_accepts, _emit, planar=_planar)}
