"""Operators that pick, repeat or interpolate channels and pixels: no arithmetic, or that of resizing."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from zeroskip.codegen import Call, Operand
from zeroskip.engine.native.row import Row
from zeroskip.engine.network import Network
from zeroskip.graph.ir import Node
from zeroskip.graph.operators.indexing import pad_amounts, slices_of, split_sizes
from zeroskip.graph.operators.resize import axis_taps
from zeroskip.ops import space
from zeroskip.ops.copy import gather_planes
from zeroskip.ops.resize import Taps, resize


def _integers(network: Network, node: Node, index: int) -> tuple[int, ...] | None:
    """A constant list of integers; None where the input is absent."""
    array = network.constant(node.input(index)) if node.input(index) else None
    return None if array is None else tuple(int(i) for i in array.reshape(-1))


def _known(network: Network, node: Node, *inputs: int) -> bool:
    """Whether these inputs are constants, or absent."""
    return all(not node.input(i) or network.constant(node.input(i)) is not None for i in inputs)


# -- channels ------------------------------------------------------------------------------------------------


def _split_accepts(network: Network, node: Node) -> bool:
    rank = len(network.shape(node.inputs[0]))
    names = (node.inputs[0], *(name for name in node.outputs if name))
    return network.images(*names) and node.attr("axis", 0) in (1, 1 - rank) and _known(network, node, 1)


def _share_geometry(network: Network, node: Node) -> None:
    network.geometry.join(node.inputs[0], *(name for name in node.outputs if name))


def _take_channels(network: Network, source: str, output: str, first: int) -> None:
    """`output` is the channels of `source` from the `first` on, where they lie."""
    x, layout = network.planar(source), network.planar_layout(output)
    network.alias(output, Operand(x.buffer, layout, x.offset + first * layout.plane))


def _emit_split(network: Network, node: Node) -> None:
    channels = network.image_shape(node.inputs[0])[1]
    sizes = _integers(network, node, 1) or split_sizes(channels, len(node.outputs))
    for name, first in zip(node.outputs, accumulate((0, *sizes)), strict=False):
        if name:
            _take_channels(network, node.inputs[0], name, first)


def _gather_accepts(network: Network, node: Node) -> bool:
    x, indices = node.inputs[0], network.constant(node.inputs[1])
    if indices is None or indices.ndim != 1 or not network.images(x, node.outputs[0]):
        return False
    axis, channels = node.attr("axis", 0), network.image_shape(x)[1]
    inside = -channels <= indices.min() and indices.max() < channels
    return bool(inside) and axis in (1, 1 - len(network.shape(x)))


def _emit_gather(network: Network, node: Node) -> None:
    x, y = network.image(node.inputs[0]), network.output(node.outputs[0])
    channels = network.image_shape(node.inputs[0])[1]
    indices = _integers(network, node, 1) or ()
    network.emit(gather_planes(x, y, [(i % channels, 0, 0) for i in indices], threads=network.threads))


# -- pixels --------------------------------------------------------------------------------------------------


def _ranges(network: Network, node: Node) -> list[range] | None:
    """Which indices a Slice takes along (N, C, H, W); None where it goes backwards, or they are not known."""
    shape = network.shape(node.inputs[0])
    rank = len(shape)
    starts, ends, axes, steps = (_integers(network, node, i) for i in range(1, 5))
    if not _known(network, node, 1, 2, 3, 4) or starts is None or ends is None:
        return None
    taken = [range(size) for size in shape]
    for axis, start, end, step in slices_of(rank, starts, ends, axes, steps):
        taken[axis] = range(shape[axis])[start:end:step] if step > 0 else range(0)
    if not all(taken) or len(taken[0]) != shape[0]:
        return None
    return taken if rank == 4 else [*taken[:2], range(1), taken[2]]


def _slice_accepts(network: Network, node: Node) -> bool:
    return network.images(node.inputs[0], node.outputs[0]) and _ranges(network, node) is not None


def _channels_only(network: Network, node: Node) -> bool:
    """Whether a Slice takes neighbouring channels, whole."""
    ranges = _ranges(network, node)
    assert ranges is not None
    _, channels, rows, columns = ranges
    *_, height, width = network.image_shape(node.inputs[0])
    return channels.step == 1 and rows == range(height) and columns == range(width)


def _slice_geometry(network: Network, node: Node) -> None:
    if _channels_only(network, node):
        _share_geometry(network, node)


def _emit_slice(network: Network, node: Node) -> None:
    ranges = _ranges(network, node)
    assert ranges is not None
    _, channels, rows, columns = ranges
    if _channels_only(network, node):
        _take_channels(network, node.inputs[0], node.outputs[0], channels.start)
        return
    x, y = network.image(node.inputs[0]), network.output(node.outputs[0])
    sources = [(c, rows.start, columns.start) for c in channels]
    step = (rows.step, columns.step)
    network.emit(gather_planes(x, y, sources, step=step, threads=network.threads))


def _amounts(network: Network, node: Node) -> list[tuple[int, int]] | None:
    """What a Pad adds around (H, W); None where it pads other axes, or by what is not known."""
    rank = len(network.shape(node.inputs[0]))
    pads, axes = _integers(network, node, 1), _integers(network, node, 3)
    if not _known(network, node, 1, 2, 3) or pads is None:
        return None
    amounts = pad_amounts(rank, pads, axes)
    if amounts[:2] != [(0, 0), (0, 0)]:
        return None
    return amounts[2:] if rank == 4 else [(0, 0), amounts[2]]


def _pad_accepts(network: Network, node: Node) -> bool:
    if not network.images(node.inputs[0], node.outputs[0]):
        return False
    amounts = _amounts(network, node)
    if amounts is None:
        return False
    if node.attr("mode", "constant") != "constant":
        return min(min(pair) for pair in amounts) >= 0
    value = network.constant(node.input(2)) if node.input(2) else None
    return value is None or float(value.reshape(())) == 0


def _emit_pad(network: Network, node: Node) -> None:
    amounts = _amounts(network, node)
    assert amounts is not None
    x, y = network.image(node.inputs[0]), network.output(node.outputs[0])
    _, channels, height, width = network.image_shape(node.inputs[0])
    (top, bottom), (left, right) = amounts
    mode = node.attr("mode", "constant")
    if mode == "constant":
        sources = [(c, -top, -left) for c in range(channels)]
        network.emit(gather_planes(x, y, sources, threads=network.threads))
        return
    rows, columns = (
        np.pad(np.arange(size), amount, mode=mode)
        for size, amount in ((height, (top, bottom)), (width, (left, right)))
    )
    network.emit(_resized(network, x, y, _copies(rows), _copies(columns)))


def _copies(index: np.ndarray[Any, Any]) -> Taps:
    return Taps(index[:, None], np.ones((len(index), 1)))


def _resized(network: Network, x: Operand, y: Operand, rows: Taps, columns: Taps) -> Call:
    return resize(x, y, rows=rows, columns=columns, target=network.target, threads=network.threads)


# -- sizes ---------------------------------------------------------------------------------------------------


def _tables(network: Network, node: Node) -> list[Taps]:
    """Of every axis, what each output pixel sums."""
    scales = network.constant(node.input(2)) if node.input(2) else None
    numbers = None if scales is None or not scales.size else [float(s) for s in scales.reshape(-1)]
    sizes = None if numbers is not None else _integers(network, node, 3)
    shape = network.shape(node.inputs[0])
    return [Taps(index, weight) for index, weight in axis_taps(node, shape, numbers, sizes)]


def _same(taps: Taps) -> bool:
    return taps.copies and np.array_equal(taps.index[:, 0], np.arange(len(taps.index)))


def _resize_accepts(network: Network, node: Node) -> bool:
    if not network.images(node.inputs[0], node.outputs[0]) or not _known(network, node, 2, 3):
        return False
    if node.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return False
    images, channels, *_ = _tables(network, node)
    return _same(images) and _same(channels)


def _emit_resize(network: Network, node: Node) -> None:
    *size, columns = _tables(network, node)[2:]
    rows = size[0] if size else _copies(np.arange(1))
    x, out = network.image(node.inputs[0]), node.outputs[0]
    y = network.result(out) if network.written_in_place(out) else network.output(out)
    network.emit(_resized(network, x, y, rows, columns))


def _space_accepts(network: Network, node: Node) -> bool:
    return network.images(node.inputs[0], node.outputs[0])


def _emit_space(network: Network, node: Node) -> None:
    x, y = network.image(node.inputs[0]), network.output(node.outputs[0])
    block, mode = int(node.attr("blocksize")), str(node.attr("mode", "DCR"))
    kernel = space.space_to_depth if node.op == "SpaceToDepth" else space.depth_to_space
    network.emit(kernel(x, y, block=block, mode=mode, target=network.target, threads=network.threads))


_space = Row(_space_accepts, _emit_space, planar=True)

ROWS = {
    "DepthToSpace": _space,
    "Gather": Row(_gather_accepts, _emit_gather, planar=True),
    "Pad": Row(_pad_accepts, _emit_pad, planar=True),
    "Resize": Row(_resize_accepts, _emit_resize, planar=True),
    "Slice": Row(_slice_accepts, _emit_slice, _slice_geometry, planar=True, is_view=_channels_only),
    "SpaceToDepth": _space,
    "Split": Row(
        _split_accepts,
        _emit_split,
        _share_geometry,
        planar=True,
        label="in place",
        is_view=lambda network, node: True,
    ),
}
