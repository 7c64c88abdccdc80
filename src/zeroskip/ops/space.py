"""Moving pixels between space and channels: space-to-depth, depth-to-space, channel shuffles."""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Kernel, Operand, Target
from zeroskip.codegen.layout import round_up
from zeroskip.ops import planes
from zeroskip.ops.copy import gather_planes
from zeroskip.ops.planes import In, Row


class Arg(IntEnum):
    """Depth-to-space's own slots."""

    BLOCK = planes.MORE
    CHANNEL = auto()  # planes from one output channel's first plane to the next's
    ROW = auto()  # planes from one row of a block to the next
    COLUMN = auto()  # and from one column of a block to the next
    OFFSETS = auto()  # int32[Q filled up]: floats from an input row's start to the column's pixel


def space_to_depth(
    x: Operand, y: Operand, *, block: int, mode: str = "DCR", target: Target, threads: int = 1
) -> Call:
    """The call that makes the pixels of each b x b square channels: (N, C, H, W) to (N, C*b*b, H/b, W/b).

    `mode` says what runs fastest among the new channels: the old ones (``"DCR"``) or the pixels (``"CRD"``).
    """
    channels, pixels = range(planes.view(x.layout).planes), range(block)
    sources = [(c, r, s) for c in channels for r in pixels for s in pixels]
    if mode == "DCR":
        sources.sort(key=lambda source: source[1:])
    return gather_planes(x, y, sources, step=(block, block), threads=threads)


def shuffle_channels(x: Operand, y: Operand, *, groups: int, target: Target, threads: int = 1) -> Call:
    """The call that deals out channels (Zhang et al. 2018): channel k*groups + g is the k-th of group g."""
    order = np.arange(planes.view(x.layout).planes).reshape(groups, -1).T.ravel()
    return gather_planes(x, y, [(int(c), 0, 0) for c in order], threads=threads)


def depth_to_space(
    x: Operand, y: Operand, *, block: int, mode: str = "DCR", target: Target, threads: int = 1
) -> Call:
    """The inverse of `space_to_depth` (``"DCR"``), or with a square's channels side by side (``"CRD"``)."""
    source, out = planes.view(x.layout), planes.view(y.layout)
    assert source.planes == out.planes * block * block, f"{x} to {y} in blocks of {block}"
    column = out.planes if mode == "DCR" else 1
    width = np.arange(round_up(out.width, target.lanes))
    clipped = np.minimum(width, out.width - 1)
    own: dict[int, Argument] = {
        **planes.source(x),
        Arg.BLOCK: block,
        Arg.CHANNEL: 1 if mode == "DCR" else block * block,
        Arg.ROW: column * block,
        Arg.COLUMN: column,
        Arg.OFFSETS: (clipped % block * (column * source.plane // 4) + clipped // block).astype(np.int32),
    }
    arguments, tasks = planes.arguments(y, own, threads)
    name, emit = ("pairs", _emit_pairs) if block == 2 else ("any", _emit_any)
    kernel = Kernel(f"depth_to_space_{name}", lambda b: planes.for_rows(b, lambda y: emit(b, y)))
    return Call(kernel, arguments, tasks)


def _emit_any(b: Builder, y: Row) -> None:
    block = b.arg(Arg.BLOCK)
    plane = y.plane * b.arg(Arg.CHANNEL) + y.row % block * b.arg(Arg.ROW)
    source = planes.input_image(b, plane, y.image) + y.row // block * b.arg(In.PITCH)
    with planes.columns(b, y) as j:
        planes.store(b, y, j, b.gather(source, b.load_indices(b.pointer(Arg.OFFSETS) + j * 4)))


def _emit_pairs(b: Builder, y: Row) -> None:
    """Two by two: a row interleaves the rows of two planes."""
    plane = y.plane * b.arg(Arg.CHANNEL) + y.row % 2 * b.arg(Arg.ROW)
    even = planes.input_image(b, plane, y.image) + y.row // 2 * b.arg(In.PITCH)
    odd = even + b.arg(Arg.COLUMN) * b.arg(In.PLANE)
    ahead = b.arg(In.PITCH) * planes.READ_AHEAD
    with planes.columns(b, y) as j:
        for source in (even, odd):
            b.prefetch(source + ahead + j * 2)
        x, z = (planes.load_columns(b, source, j // 2, b.arg(In.WIDTH)) for source in (even, odd))
        lanes = [lane // 2 + (lane % 2) * b.lanes for lane in range(b.lanes)]
        planes.store(b, y, j, b.shuffle(x, z, lanes))
