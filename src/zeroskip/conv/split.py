"""Splitting an input by strides: a plane per (row, column) residue, so that strided taps are plain offsets.

Where the input's own zero borders are as wide as the padding, the kernel reads straight through them, and
what it leaves in the borders of the split planes is never read: it needs no masks but at each plane's end.
"""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Kernel, Operand, Planar, Target
from zeroskip.codegen.layout import round_up
from zeroskip.ops.copy import copy

BYTES_PER_TASK = 64 * 1024
# Column strides that shuffles do; others are gathered by `ops.copy`.
STRIDES = (1, 2, 4)


class Arg(IntEnum):
    """The kernel's argument slots; distances in bytes."""

    INPUT = 0
    OUTPUT = auto()
    STARTS = (
        auto()
    )  # int32[phases][3]: from an image's first pixel to the phase's first; the phase's rows, columns
    PHASES = auto()
    IMAGES = auto()
    INPUT_PLANE = auto()
    INPUT_IMAGE = auto()
    INPUT_STEP = auto()  # from one row of the phase to its next
    OUTPUT_PLANE = auto()
    OUTPUT_IMAGE = auto()
    OUTPUT_PITCH = auto()
    ROWS = auto()  # of an image, as the next; some phases have one row or column less: zeros
    COLUMNS = auto()
    WHOLE_ROWS = auto()  # rows of an image whose last vector stays inside the plane
    PLANES = auto()  # output planes
    SHARE = auto()  # of them per task


def split(x: Operand, y: Operand, pads: tuple[int, int, int, int], target: Target, threads: int) -> Call:
    """The call that splits `x` into the phases of `y`; `pads` are top, left, bottom, right of the image.

    Pixels and padding are written, not the borders of `y`; a phase's missing last row or column is zero.
    """
    source, out = x.layout, y.planar
    top, left, bottom, right = pads
    step, stride = out.step
    if not isinstance(source, Planar) or not _reads_through(source, pads) or stride not in STRIDES:
        return copy(x, y, pads=(top, left), target=target, threads=threads)
    height, width = source.height + top + bottom, source.width + left + right
    room = out.plane // 4 - (out.images - 1) * out.rows * out.pitch - round_up(out.width, target.lanes)
    starts = [
        (4 * ((a - top) * source.pitch + b - left), -(-(height - a) // step), -(-(width - b) // stride))
        for a, b in out.phases
    ]
    share = out.planes if threads == 1 else max(1, -(-BYTES_PER_TASK // out.plane))
    values: dict[Arg, Argument] = {
        Arg.INPUT: x.address,
        Arg.OUTPUT: y.address,
        Arg.STARTS: np.array(starts, np.int32),
        Arg.PHASES: len(out.phases),
        Arg.IMAGES: out.images,
        Arg.INPUT_PLANE: source.plane,
        Arg.INPUT_IMAGE: source.image,
        Arg.INPUT_STEP: 4 * step * source.pitch,
        Arg.OUTPUT_PLANE: out.plane,
        Arg.OUTPUT_IMAGE: out.image,
        Arg.OUTPUT_PITCH: 4 * out.pitch,
        Arg.ROWS: out.height,
        Arg.COLUMNS: out.width,
        Arg.WHOLE_ROWS: max(0, room // out.pitch + 1),
        Arg.PLANES: out.planes,
        Arg.SHARE: share,
    }
    kernel = Kernel(f"split_columns_{stride}", lambda b: _emit(b, stride))
    return Call(kernel, tuple(values[arg] for arg in Arg), -(-out.planes // share))


def _reads_through(x: Planar, pads: tuple[int, int, int, int]) -> bool:
    """Whether every row and column of the padded image is there in x, as pixels or zero borders."""
    top, left, bottom, right = pads
    rows = x.rows >= x.height + max(top, bottom)
    columns = x.pitch >= x.width + max(left, right)
    return x.step == (1, 1) and rows and columns and x.lead_floats >= top * x.pitch + left


def _emit(b: Builder, stride: int) -> None:
    """A task is some output planes; rows go upwards: the next one overwrites what a last vector spilt."""
    first = b.task * b.arg(Arg.SHARE)
    last = b.minimum(first + b.arg(Arg.SHARE), b.arg(Arg.PLANES))
    phases, columns = b.arg(Arg.PHASES), b.arg(Arg.COLUMNS)
    with b.loop(first, last) as plane, b.loop(0, b.arg(Arg.IMAGES)) as image:
        phase = b.pointer(Arg.STARTS) + plane % phases * 12
        rows = b.load_i32(phase + 4)
        whole = b.minimum(rows, b.arg(Arg.WHOLE_ROWS))
        source = b.pointer(Arg.INPUT) + plane // phases * b.arg(Arg.INPUT_PLANE)
        source = source + image * b.arg(Arg.INPUT_IMAGE) + b.load_i32(phase)
        to = b.pointer(Arg.OUTPUT) + plane * b.arg(Arg.OUTPUT_PLANE) + image * b.arg(Arg.OUTPUT_IMAGE)
        with b.loop(0, whole) as row, b.loop(0, columns, b.lanes) as column:
            pixels = source + row * b.arg(Arg.INPUT_STEP) + column * (4 * stride)
            b.store(b.load_strided(pixels, stride), to + row * b.arg(Arg.OUTPUT_PITCH) + column * 4)
        with b.loop(whole, rows) as row, b.loop(0, columns, b.lanes) as column:
            pixels = source + row * b.arg(Arg.INPUT_STEP) + column * (4 * stride)
            at = to + row * b.arg(Arg.OUTPUT_PITCH) + column * 4
            b.store_masked(b.load_strided(pixels, stride), at, b.lanes_below(columns - column))
        own = b.load_i32(phase + 8)
        with b.when(own < columns), b.loop(0, rows) as row:
            b.store_masked(b.vector(), to + row * b.arg(Arg.OUTPUT_PITCH) + own * 4, b.lanes_below(b.int(1)))
        with b.loop(rows, b.arg(Arg.ROWS)) as row, b.loop(0, columns, b.lanes) as column:
            at = to + row * b.arg(Arg.OUTPUT_PITCH) + column * 4
            b.store_masked(b.vector(), at, b.lanes_below(columns - column))
