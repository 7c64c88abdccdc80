"""Copies between layouts: plain arrays into padded planes and back, other borders, pixels split by phase.

A plane of the output reads one plane of the input, every `step`-th row and column from a shift on:

    y[plane][image][i][j] = x[source][image][i*sy + dy][j*sx + dx], and zero outside of x

with (source, dy, dx) in a table per output plane. That one form is also padding, cropping, gathering channels
and space-to-depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, auto
from math import prod

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Kernel, Operand, Plain, Target
from zeroskip.ops import planes
from zeroskip.ops.planes import In, Row

ASKED_FOR = 4  # cache lines a vector of the output, at most

Source = tuple[int, int, int]
"""Of an output plane: the input plane it reads, and the input's row and column at its pixel (0, 0)."""


class Arg(IntEnum):
    """The row-wise kernel's own slots."""

    TABLE = planes.MORE  # int32[planes][3]: source, dy, dx
    STEP = auto()  # input rows from one output row to the next


def copy(
    x: Operand,
    y: Operand,
    *,
    pads: tuple[int, int] = (0, 0),
    target: Target,
    threads: int = 1,
) -> Call:
    """The call that writes tensor `x` into `y`, whatever their layouts.

    `pads` are rows above and columns left of the image in `y` (negative ones crop). Where `y` is split by
    phase, its plane (c, (a, b)) holds at (i, j) the padded image's ``[i*sy + a][j*sx + b]``; `x` must not be.
    """
    if isinstance(x.layout, Plain) and isinstance(y.layout, Plain) and pads == (0, 0):
        assert prod(x.layout.shape) == prod(y.layout.shape), f"copy of {x.layout.shape} into {y.layout.shape}"
        return _flat(x, y, x.layout.bytes, 0, threads)
    channels = planes.view(x.layout).planes
    if isinstance(y.layout, Plain):
        return gather_planes(x, y, [(c, -pads[0], -pads[1]) for c in range(channels)], threads=threads)
    layout = y.planar
    if pads == (0, 0) and planes.aligned(x.layout, y.layout) and layout.planes == channels:
        return _flat(x, y, layout.planes * layout.plane, layout.lead, threads)
    sources = [(c, a - pads[0], b - pads[1]) for c in range(channels) for a, b in layout.phases]
    return gather_planes(x, y, sources, step=layout.step, threads=threads)


def gather_planes(
    x: Operand,
    y: Operand,
    sources: Sequence[Source],
    *,
    step: tuple[int, int] = (1, 1),
    threads: int = 1,
) -> Call:
    """The call that fills each plane of `y` from the plane, row and column of `x` that `sources` says."""
    out = planes.view(y.layout)
    assert len(sources) == out.planes, f"{len(sources)} sources for {y.layout}"
    assert planes.view(x.layout).images == out.images, f"copy of {x.layout} into {y.layout}"
    own: dict[int, Argument] = {
        **planes.source(x),
        Arg.TABLE: np.array(sources, np.int32).reshape(-1, 3),
        Arg.STEP: step[0],
    }
    arguments, tasks = planes.arguments(y, own, threads)
    stride = step[1]
    return Call(Kernel(f"copy_rows_{stride}", lambda b: _emit_rows(b, stride)), arguments, tasks)


def _emit_rows(b: Builder, stride: int) -> None:
    table, height, width = b.pointer(Arg.TABLE), b.arg(In.HEIGHT), b.arg(In.WIDTH)

    def body(y: Row) -> None:
        source, dy, dx = (b.load_i32(table + y.plane * 12 + 4 * i) for i in range(3))
        row = y.row * b.arg(Arg.STEP) + dy
        pointer = planes.input_image(b, source, y.image) + row * b.arg(In.PITCH)
        # a row outside the image is one without columns
        there = b.select((row >= 0) & (row < height), width, 0)
        coming = pointer + b.arg(Arg.STEP) * b.arg(In.PITCH) * planes.READ_AHEAD
        with planes.columns(b, y) as column:
            for line in range(min(stride, ASKED_FOR)):
                b.prefetch(coming + (column * stride + dx) * 4 + line * b.vector_bytes)
            value = planes.load_columns(b, pointer, column * stride + dx, there, stride)
            planes.store(b, y, column, value)

    planes.for_rows(b, body)


class Flat(IntEnum):
    """The slots of the kernel that copies one run of bytes."""

    INPUT = 0
    OUTPUT = auto()
    SIZE = auto()  # bytes
    SHARE = auto()  # bytes per task
    LEAD = auto()  # bytes to zero before the output


def _flat(x: Operand, y: Operand, size: int, lead: int, threads: int) -> Call:
    tasks = planes.task_count(size, threads)
    share = -(-size // (tasks * 64)) * 64 or 64
    arguments = (x.address, y.address, size, share, lead)
    return Call(Kernel("copy_flat", _emit_flat), arguments, max(1, -(-size // share)))


def _emit_flat(b: Builder) -> None:
    first = b.task * b.arg(Flat.SHARE)
    last = b.minimum(first + b.arg(Flat.SHARE), b.arg(Flat.SIZE))
    x, y, size = b.pointer(Flat.INPUT) + first, b.pointer(Flat.OUTPUT) + first, last - first
    block = 4 * b.vector_bytes
    unrolled = size // block * block
    with b.loop(0, unrolled, block) as i:
        for value, at in [
            (b.load_vector(x + i + k * b.vector_bytes), i + k * b.vector_bytes) for k in range(4)
        ]:
            b.store(value, y + at)
    with b.loop(unrolled, size, b.vector_bytes) as i:
        mask = b.lanes_below((size - i) // 4)
        b.store_masked(b.load_masked(x + i, mask), y + i, mask)
    with b.when(b.task.equals(0)):
        lead = b.arg(Flat.LEAD)
        planes.zero(b, b.pointer(Flat.OUTPUT) + (b.int(0) - lead), lead)
