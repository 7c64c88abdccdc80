"""Splitting an input by strides: one plane per (row, column) residue, so that strided taps become plain offsets.

Where the input's own zero borders are as wide as the padding, the kernel reads straight through them, and what it
leaves in the borders of the split planes is never read: it needs no masks but one, at each plane's end.
"""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Builder, Call, Kernel, Operand, Planar, Target
from zeroskip.ops.copy import copy

BYTES_PER_TASK = 64 * 1024


class Arg(IntEnum):
    """The kernel's argument slots; distances in bytes."""

    INPUT = 0
    OUTPUT = auto()
    STARTS = auto()  # int32[phases]: from an image's first pixel to the phase's first
    PHASES = auto()
    IMAGES = auto()
    INPUT_PLANE = auto()
    INPUT_IMAGE = auto()
    INPUT_STEP = auto()  # from one row of the phase to its next
    OUTPUT_PLANE = auto()
    OUTPUT_IMAGE = auto()
    OUTPUT_PITCH = auto()
    ROWS = auto()
    COLUMNS = auto()
    PLANES = auto()  # output planes
    SHARE = auto()  # of them per task


def split(x: Operand, y: Operand, pads: tuple[int, int], target: Target, threads: int) -> Call:
    """The call that splits `x` into the phases of `y`; `pads` are rows above and columns left of the image.

    Only what taps can read is written: pixels and padding, not the borders of `y`.
    """
    source, out = x.layout, y.planar
    if not isinstance(source, Planar) or not _reads_through(source, out, pads) or out.step[1] != 2:
        return copy(x, y, pads=pads, target=target, threads=threads)
    top, left = pads
    starts = [4 * ((a - top) * source.pitch + b - left) for a, b in out.phases]
    share = out.planes if threads == 1 else max(1, -(-BYTES_PER_TASK // out.plane))
    values = {
        Arg.INPUT: x.address,
        Arg.OUTPUT: y.address,
        Arg.STARTS: np.array(starts, np.int32),
        Arg.PHASES: len(out.phases),
        Arg.IMAGES: out.images,
        Arg.INPUT_PLANE: source.plane,
        Arg.INPUT_IMAGE: source.image,
        Arg.INPUT_STEP: 4 * out.step[0] * source.pitch,
        Arg.OUTPUT_PLANE: out.plane,
        Arg.OUTPUT_IMAGE: out.image,
        Arg.OUTPUT_PITCH: 4 * out.pitch,
        Arg.ROWS: out.height,
        Arg.COLUMNS: out.width,
        Arg.PLANES: out.planes,
        Arg.SHARE: share,
    }
    return Call(Kernel("split_columns_2", _emit), tuple(values[arg] for arg in Arg), -(-out.planes // share))


def _reads_through(x: Planar, y: Planar, pads: tuple[int, int]) -> bool:
    """Whether every row and column of the padded image is there in x, as pixels or zero borders."""
    (top, left), (sy, sx) = pads, y.step
    below, right = y.height * sy - top - x.height, y.width * sx - left - x.width
    # one row or column beyond the padding may be split off without any tap reading it
    rows = x.rows >= x.height + max(top, below - sy + 1)
    columns = x.pitch >= x.width + max(left, right - sx + 1)
    return x.step == (1, 1) and rows and columns and x.lead_floats >= top * x.pitch + left


def _emit(b: Builder) -> None:
    """A task is some output planes; rows go upwards, so that a row's last vector is overwritten by the next row."""
    first = b.task * b.arg(Arg.SHARE)
    last = b.minimum(first + b.arg(Arg.SHARE), b.arg(Arg.PLANES))
    phases, rows, columns = b.arg(Arg.PHASES), b.arg(Arg.ROWS), b.arg(Arg.COLUMNS)
    images, lanes = b.arg(Arg.IMAGES), b.lanes
    with b.loop(first, last) as plane, b.loop(0, images) as image:
        source = b.pointer(Arg.INPUT) + plane // phases * b.arg(Arg.INPUT_PLANE) + image * b.arg(Arg.INPUT_IMAGE)
        source = source + b.load_i32(b.pointer(Arg.STARTS) + plane % phases * 4)
        to = b.pointer(Arg.OUTPUT) + plane * b.arg(Arg.OUTPUT_PLANE) + image * b.arg(Arg.OUTPUT_IMAGE)
        with b.loop(0, rows - 1) as row, b.loop(0, columns, lanes) as column:
            pixels = source + row * b.arg(Arg.INPUT_STEP) + column * 8
            b.store(b.load_strided(pixels, 2), to + row * b.arg(Arg.OUTPUT_PITCH) + column * 4)
        with b.loop(0, columns, lanes) as column:
            pixels = source + (rows - 1) * b.arg(Arg.INPUT_STEP) + column * 8
            at = to + (rows - 1) * b.arg(Arg.OUTPUT_PITCH) + column * 4
            b.store_masked(b.load_strided(pixels, 2), at, b.lanes_below(columns - column))
