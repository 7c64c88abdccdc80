"""Pools over windows, `down` the rows or, if they are large, cell by cell; and over whole planes.

The columns of a row of a window are combined once, for all output rows that the row is a tap of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Plain, Planar, Target
from zeroskip.codegen.expr import Var
from zeroskip.ops import down, planes
from zeroskip.ops.down import Pads, Pair, Walk, Windows, reads_through
from zeroskip.ops.planes import Image, In, Out, Row


@dataclass(frozen=True)
class Window:
    """Where the windows of a pool lie; each pair is (rows, columns)."""

    kernel: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)

    def cells(self, axis: int, size: int, outputs: int, include_pad: bool) -> np.ndarray:
        """How many cells of each of `outputs` windows lie in an axis of `size`, or in it and its padding."""
        before, after = (self.pads[axis], self.pads[axis + 2]) if include_pad else (0, 0)
        starts = np.arange(outputs)[:, None] * self.strides[axis] - self.pads[axis]
        taps = starts + np.arange(self.kernel[axis]) * self.dilations[axis]
        inside = (taps >= -before) & (taps < size + after)
        cells: np.ndarray = np.maximum(inside.sum(axis=1), 1).astype(np.float32)
        return cells


class Arg(IntEnum):
    """The window kernels' own slots."""

    ROW_CELLS = down.MORE  # float32[P]: how many rows of a window count
    COLUMN_CELLS = auto()  # float32[Q rounded up to vectors]
    TAP_ROWS = auto()  # R, of windows that are not unrolled, as the next
    TAP_COLUMNS = auto()  # S
    STRIDE = auto()  # of rows


UNROLLED = 7
"""Windows of up to so many rows and columns are unrolled: larger ones are rare and long enough for a loop."""


def max_pool(x: Operand, y: Operand, window: Window, *, target: Target, threads: int = 1) -> Call:
    """The maximum of each window; padding never wins. `y`'s size says how many windows there are."""
    return _pool(x, y, window, "max", target, threads)


def lp_pool(x: Operand, y: Operand, window: Window, *, p: int = 2, target: Target, threads: int = 1) -> Call:
    """The p-norm of each window, `p` being 1 or 2: the sum of sizes, or the root of the sum of squares."""
    return _pool(x, y, window, f"l{p}", target, threads)


def average_pool(
    x: Operand,
    y: Operand,
    window: Window,
    *,
    count_include_pad: bool = False,
    target: Target,
    threads: int = 1,
) -> Call:
    """The mean of each window, over its cells in the image, or also over those in the window's `pads`."""
    source, out = planes.view(x.layout), planes.view(y.layout)
    filled = -(-out.width // target.lanes) * target.lanes
    rows = window.cells(0, source.height, out.height, count_include_pad)
    columns = window.cells(1, source.width, filled, count_include_pad)
    return _pool(x, y, window, "average", target, threads, (rows, columns))


def _pool(
    x: Operand,
    y: Operand,
    window: Window,
    kind: str,
    target: Target,
    threads: int,
    cells: tuple[Argument, Argument] = (0, 0),
) -> Call:
    source, out = planes.view(x.layout), planes.view(y.layout)
    windows = Windows(window.kernel, window.strides, window.dilations)
    windows = replace(windows, side=down.side(x, y, windows, target))
    # a maximum may be negative: only sums read through the zeros around the image
    if kind != "max" and isinstance(x.layout, Planar) and isinstance(y.layout, Planar):
        windows = replace(windows, borders=reads_through(x.layout, y.layout, windows, window.pads))
    own: dict[int, Argument] = {
        **down.slots(x, y, windows, window.pads, target.lanes),
        Arg.ROW_CELLS: cells[0],
        Arg.COLUMN_CELLS: cells[1],
        Arg.TAP_ROWS: window.kernel[0],
        Arg.TAP_COLUMNS: window.kernel[1],
        Arg.STRIDE: window.strides[0],
    }
    work = out.planes * out.images * max(out.image, source.image)
    arguments, tasks = planes.arguments(y, own, threads, work)
    return Call(_kernel(windows, kind), arguments, tasks)


def _kernel(windows: Windows, kind: str) -> Kernel:
    if max(windows.taps) <= UNROLLED:
        return Kernel(f"pool_{kind}_{windows.name}", lambda b: _Emitter(windows, _Cells(b, kind)).emit())
    stride, dilations = windows.strides[1], windows.dilations

    def emit(b: Builder) -> None:
        planes.for_rows(b, lambda y: _emit_long(_Cells(b, kind), y, stride, dilations))

    return Kernel(f"pool_{kind}_any_{stride}_{dilations[0]}_{dilations[1]}", emit)


@dataclass(frozen=True)
class _Cells:
    """How the cells of a window become its pool."""

    b: Builder
    kind: str

    @property
    def identity(self) -> float:
        """The pool of no cells, which cells outside of the image count as."""
        return float("-inf") if self.kind == "max" else 0.0

    def combine(self, total: Expr, x: Expr) -> Expr:
        """One step of the sum or the maximum."""
        # in this order a NaN in `x` loses, as in onnxruntime
        return self.b.maximum(x, total) if self.kind == "max" else total + x

    def share(self, x: Expr) -> Expr:
        """What a cell adds to a sum."""
        if self.kind == "l1":
            return self.b.unary("fabs", x)
        return x * x if self.kind == "l2" else x

    def finish(self, value: Expr, row: Expr, column: Expr) -> Expr:
        """The pool of windows that combine to `value`."""
        b = self.b
        if self.kind == "average":
            cells = b.load_vector(b.pointer(Arg.COLUMN_CELLS) + column * 4)
            return value / (cells * b.broadcast(b.pointer(Arg.ROW_CELLS) + row * 4))
        return b.unary("sqrt", value) if self.kind == "l2" else value


class _Emitter(Walk):
    def __init__(self, windows: Windows, cells: _Cells) -> None:
        super().__init__(cells.b, windows)
        self.cells, self.outside = cells, cells.identity

    def absorb(self, users: list[tuple[Var, int]], taps: list[Expr]) -> None:
        """The row's columns together: they are the same for each window."""
        total = self.initial()
        for x in taps:
            total = self.cells.combine(total, self.cells.share(x))
        for var, _ in users:
            var.set(self.cells.combine(var.get(), total))

    def finish(self, part: Image, row: Expr, column: Expr, value: Expr) -> Expr:
        """The pool."""
        return self.cells.finish(value, row, column)


def _emit_long(cells: _Cells, y: Row, stride: int, dilations: Pair) -> None:
    """A row of windows of any size, a cell at a time; the rows of a window in the image are a range."""
    b = cells.b
    height, pitch, dilation = b.arg(In.HEIGHT), b.arg(In.PITCH), dilations[0]
    top = y.row * b.arg(Arg.STRIDE) - b.arg(down.Arg.TOP)
    # the first tap row at or below row 0, and the first one at or below the image's end
    first = b.maximum((b.int(dilation - 1) - top) // dilation, 0)
    last = b.minimum((height - top + (dilation - 1)) // dilation, b.arg(Arg.TAP_ROWS))
    source = planes.input_image(b, y.plane, y.image) + top * pitch
    with planes.columns(b, y) as j:
        column = j * stride - b.arg(down.Arg.LEFT)
        total: Var = b.var(b.vector(cells.identity))
        with b.loop(first, last) as r, b.loop(0, b.arg(Arg.TAP_COLUMNS)) as s:
            row, at = source + r * (pitch * dilation), column + s * dilations[1]
            x = planes.load_columns(b, row, at, b.arg(In.WIDTH), stride, cells.identity)
            total.set(cells.combine(total.get(), cells.share(x)))
        planes.store(b, y, j, cells.finish(total.get(), y.row, j))


def global_average_pool(x: Operand, y: Operand, *, target: Target, threads: int = 1) -> Call:
    """The mean of every image of every plane; `y` is a plain (N, C, 1, 1)."""
    return _global_pool(x, y, "average", _average_of_image, threads)


def global_max_pool(x: Operand, y: Operand, *, target: Target, threads: int = 1) -> Call:
    """The maximum of every image of every plane; `y` is a plain (N, C, 1, 1)."""
    return _global_pool(x, y, "max", _max_of_image, threads)


def _global_pool(
    x: Operand, y: Operand, kind: str, pool: Callable[[Builder, Expr], Expr], threads: int
) -> Call:
    assert isinstance(y.layout, Plain), f"the output is {y.layout}"
    v = planes.view(x.layout)
    arguments, tasks = planes.arguments(y, planes.source(x), threads, v.planes * v.images * v.image)

    def emit(b: Builder) -> None:
        first = b.task * b.arg(Out.PLANES_PER_TASK)
        last = b.minimum(first + b.arg(Out.PLANES_PER_TASK), b.arg(Out.PLANES))
        with b.loop(first, last) as plane, b.loop(0, b.arg(Out.IMAGES)) as image:
            place = b.pointer(Out.ADDRESS) + plane * b.arg(Out.PLANE) + image * b.arg(Out.IMAGE)
            b.store(pool(b, planes.input_image(b, plane, image)), place)

    return Call(Kernel(f"pool_global_{kind}", emit), arguments, tasks)


def _average_of_image(b: Builder, source: Expr) -> Expr:
    """Borders are zero, so an image is one run of floats, from its first pixel to its last."""
    height, width = b.arg(In.HEIGHT), b.arg(In.WIDTH)
    size = (height - 1) * b.arg(In.PITCH) + width * 4
    step = b.vector_bytes
    unrolled, whole = size // (4 * step) * (4 * step), size // step * step
    sums = [b.var(b.vector()) for _ in range(4)]
    with b.loop(0, unrolled, 4 * step) as i:
        for k, var in enumerate(sums):
            var.set(var.get() + b.load_vector(source + i + k * step))
    with b.loop(unrolled, whole, step) as i:
        sums[0].set(sums[0].get() + b.load_vector(source + i))
    tail = b.load_masked(source + whole, b.lanes_below((size - whole) // 4))
    total = (sums[0].get() + sums[1].get()) + (sums[2].get() + sums[3].get()) + tail
    return b.reduce_add(total) / b.float_of(height * width)


def _max_of_image(b: Builder, source: Expr) -> Expr:
    best = b.var(b.vector(float("-inf")))
    width = b.arg(In.WIDTH)
    with b.loop(0, b.arg(In.HEIGHT)) as i, b.loop(0, width, b.lanes) as j:
        x = planes.load_columns(b, source + i * b.arg(In.PITCH), j, width, 1, float("-inf"))
        best.set(b.maximum(x, best.get()))
    return b.reduce_max(best.get())
