"""Pools over windows, row by row, and over whole planes.

Windows that lie in the image are unrolled; of the others the columns are masked, and the rows a loop clipped
to the image. Rows are combined first, on plain vectors of input columns, and only the combined ones are
shifted or separated into even and odd columns: a vector of outputs of a 3x3 window costs 6 loads at stride 1,
and 12 at stride 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import SLACK, Argument, Builder, Call, Expr, Kernel, Layout, Operand, Plain, Target
from zeroskip.codegen.expr import Var
from zeroskip.ops import planes
from zeroskip.ops.planes import In, Row

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
"""Top, left, bottom, right, as in ONNX."""


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

    TAP_ROWS = planes.MORE  # R, where it is not static, as the next
    TAP_COLUMNS = auto()  # S
    STRIDE = auto()  # of rows
    TOP = auto()  # rows of padding
    LEFT = auto()  # columns of padding
    ROW_CELLS = auto()  # float32[P]: how many rows of a window count
    COLUMN_CELLS = auto()  # float32[Q rounded up to vectors]
    WHOLE = auto()  # vectors of outputs that begin up to this column need no masks on the right


@dataclass(frozen=True)
class _Shape:
    """What a window kernel's code depends on; `rows` and `columns` 0 mean that R and S are arguments."""

    kind: str
    rows: int
    columns: int
    stride: int
    dilation: int
    row_dilation: int

    @property
    def reach(self) -> int:
        """Columns from a window's first to behind its last."""
        return (self.columns - 1) * self.dilation + 1

    def shares(self, lanes: int) -> bool:
        """Whether two loads per row serve all columns, at stride 1, or two columns, at stride 2."""
        return self.stride == 2 or (self.stride == 1 and self.columns > 2 and self.reach <= lanes)

    def loaded(self, lanes: int) -> int:
        """Floats of a row that are read for a vector of outputs."""
        if self.shares(lanes) and self.stride == 1:
            return 2 * lanes
        return self.reach - 1 + lanes * self.stride

    @property
    def name(self) -> str:
        size = f"{self.rows}x{self.columns}" if self.rows else "any"
        return f"pool_{self.kind}_{size}_{self.stride}_{self.dilation}_{self.row_dilation}"


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
    size = window.kernel if max(window.kernel) <= UNROLLED else (0, 0)
    shape = _Shape(kind, *size, window.strides[1], *window.dilations[::-1])
    own: dict[int, Argument] = {
        **planes.source(x),
        Arg.TAP_ROWS: window.kernel[0],
        Arg.TAP_COLUMNS: window.kernel[1],
        Arg.STRIDE: window.strides[0],
        Arg.TOP: window.pads[0],
        Arg.LEFT: window.pads[1],
        Arg.ROW_CELLS: cells[0],
        Arg.COLUMN_CELLS: cells[1],
        Arg.WHOLE: _whole(shape, window, x.layout, out.width, target.lanes),
    }
    work = out.planes * out.images * max(out.image, source.image)
    arguments, tasks = planes.arguments(y, own, threads, work)
    return Call(Kernel(shape.name, lambda b: _Emitter(b, shape).emit()), arguments, tasks)


def _whole(shape: _Shape, window: Window, x: Layout, outputs: int, lanes: int) -> int:
    """The last column at which a vector of outputs may begin and need no masks: see `Arg.WHOLE`.

    What planes have right of their pixels may be read where no output wants it.
    """
    width, left, loaded = planes.view(x).width, window.pads[1], shape.loaded(lanes)
    inside = (width + left - shape.reach) // shape.stride + 1
    if inside >= outputs and 4 * loaded <= SLACK and not isinstance(x, Plain):
        return outputs
    return (width + left - loaded) // shape.stride


class _Emitter:
    def __init__(self, b: Builder, shape: _Shape) -> None:
        self.b, self.shape = b, shape
        self.identity = float("-inf") if shape.kind == "max" else 0.0
        self.width, self.pitch = b.arg(In.WIDTH), b.arg(In.PITCH)
        self.stride = b.arg(Arg.STRIDE)

    def combine(self, a: Expr, x: Expr) -> Expr:
        """One step of the sum or the maximum."""
        # in this order a NaN in `x` loses, as in onnxruntime
        return self.b.maximum(x, a) if self.shape.kind == "max" else a + x

    def share(self, x: Expr) -> Expr:
        """What a cell adds to a sum."""
        if self.shape.kind == "l1":
            return self.b.unary("fabs", x)
        return x * x if self.shape.kind == "l2" else x

    def finish(self, value: Expr, y: Row, column: Expr) -> Expr:
        """The pool of windows that combine to `value`."""
        b = self.b
        if self.shape.kind == "average":
            cells = b.load_vector(b.pointer(Arg.COLUMN_CELLS) + column * 4)
            return value / (cells * b.broadcast(b.pointer(Arg.ROW_CELLS) + y.row * 4))
        return b.unary("sqrt", value) if self.shape.kind == "l2" else value

    def emit(self) -> None:
        """Rows of a window that lie in the image are a range; each output vector combines them."""
        planes.for_rows(self.b, self.row)

    def row(self, y: Row) -> None:
        """One row of the output."""
        b = self.b
        top = y.row * self.stride - b.arg(Arg.TOP)
        height = b.arg(In.HEIGHT)
        # the first tap row at or below row 0, and the first one at or below the image's end
        dilation = self.shape.row_dilation
        first = b.maximum((b.int(dilation - 1) - top) // dilation, 0)
        last = b.minimum((height - top + (dilation - 1)) // dilation, b.arg(Arg.TAP_ROWS))
        source = planes.input_image(b, y.plane, y.image)
        step = self.pitch * dilation
        start = source + top * self.pitch + first * step
        with planes.columns(b, y) as j:
            column = j * self.shape.stride - b.arg(Arg.LEFT)
            value = self.window(start + column * 4, step, last - first, column, j)
            planes.store(b, y, j, self.finish(value, y, j))

    def window(self, start: Expr, step: Expr, count: Expr, column: Expr, j: Expr) -> Expr:
        """The windows of the vector of outputs at `j`, of which the first begins at `start`, in `column`."""
        b, shape = self.b, self.shape
        if not shape.columns:
            return self.long_window(start, step, count, column)
        offsets = [s * shape.dilation for s in range(shape.columns)]
        taps = self.shared_taps if shape.shares(b.lanes) else self.single_taps
        result = b.var(b.vector(self.identity))
        inside = (column >= 0) & (j <= b.arg(Arg.WHOLE)) & count.equals(shape.rows)
        with b.choose(inside) as (whole, edge):
            with whole:
                result.set(taps(start, step, None, offsets, None))
            with edge:
                result.set(taps(start, step, count, offsets, column))
        return result.get()

    def rows(self, start: Expr, step: Expr, count: Expr | None, row: Callable[[Expr], None]) -> None:
        """Emit `row` for the first `count` rows from `start`; for all of the window's where it is None."""
        if count is None:
            for number in range(self.shape.rows):
                row(start + step * number)
            return
        with self.b.loop(0, count) as r:
            row(start + r * step)

    def single_taps(
        self, start: Expr, step: Expr, count: Expr | None, offsets: Sequence[int], column: Expr | None
    ) -> Expr:
        """A load for each tap; with `column` given, taps outside the row count as the identity."""
        b, shape = self.b, self.shape
        masks = [
            None
            if column is None
            else b.lanes_between(b.int(0) - column - o, self.width - column - o, shape.stride)
            for o in offsets
        ]
        total = b.var(b.vector(self.identity))

        def one(row: Expr) -> None:
            values = [
                self.share(b.load_strided(row + 4 * o, shape.stride, mask, self.identity))
                for o, mask in zip(offsets, masks, strict=True)
            ]
            total.set(self.combine(total.get(), self.fold(values)))

        self.rows(start, step, count, one)
        return total.get()

    def shared_taps(
        self, start: Expr, step: Expr, count: Expr | None, offsets: Sequence[int], column: Expr | None
    ) -> Expr:
        """Combine vectors of input columns over the rows; then pick each tap's columns from pairs of them."""
        b, lanes, stride = self.b, self.b.lanes, self.shape.stride
        base = {o: 0 if stride == 1 else o - o % 2 for o in offsets}
        vectors = {
            first + i * lanes: b.var(b.vector(self.identity)) for first in base.values() for i in (0, 1)
        }
        masks = (
            {o: planes.inside_row(b, column + o, self.width) for o in vectors} if column is not None else {}
        )

        def one(row: Expr) -> None:
            for o, var in vectors.items():
                x = (
                    b.load_masked(row + 4 * o, masks[o], self.identity)
                    if masks
                    else b.load_vector(row + 4 * o)
                )
                var.set(self.combine(var.get(), self.share(x)))

        self.rows(start, step, count, one)
        parts = []
        for o, first in base.items():
            low, high = vectors[first].get(), vectors[first + lanes].get()
            parts.append(b.shuffle(low, high, range(o - first, o - first + stride * lanes, stride)))
        return self.fold(parts)

    def long_window(self, start: Expr, step: Expr, count: Expr, column: Expr) -> Expr:
        """A window of any number of columns, one tap at a time."""
        b, shape = self.b, self.shape
        total: Var = b.var(b.vector(self.identity))
        with b.loop(0, count) as r, b.loop(0, b.arg(Arg.TAP_COLUMNS)) as s:
            at = column + s * shape.dilation
            # load_columns wants the address of the row's column 0
            row = start + r * step + column * -4
            x = planes.load_columns(b, row, at, self.width, shape.stride, self.identity)
            total.set(self.combine(total.get(), self.share(x)))
        return total.get()

    def fold(self, values: Sequence[Expr]) -> Expr:
        """All of them combined."""
        total = values[0]
        for value in values[1:]:
            total = self.combine(total, value)
        return total


def global_average_pool(x: Operand, y: Operand, *, target: Target, threads: int = 1) -> Call:
    """The mean of every image of every plane; `y` is (N, C, 1, 1), plain or planar."""
    return _global_pool(x, y, "average", threads)


def global_max_pool(x: Operand, y: Operand, *, target: Target, threads: int = 1) -> Call:
    """The maximum of every image of every plane; `y` is (N, C, 1, 1), plain or planar."""
    return _global_pool(x, y, "max", threads)


def _global_pool(x: Operand, y: Operand, kind: str, threads: int) -> Call:
    v = planes.view(x.layout)
    arguments, tasks = planes.arguments(y, planes.source(x), threads, v.planes * v.images * v.image)
    emit = _GLOBAL[kind]
    kernel = Kernel(f"pool_global_{kind}", lambda b: planes.for_rows(b, lambda y: emit(b, y)))
    return Call(kernel, arguments, tasks)


def _emit_global_average(b: Builder, y: Row) -> None:
    """Borders are zero, so an image is one run of floats, from its first pixel to its last."""
    source = planes.input_image(b, y.plane, y.image)
    height, width = b.arg(In.HEIGHT), b.arg(In.WIDTH)
    size = (height - 1) * b.arg(In.PITCH) + width * 4
    block = 4 * b.vector_bytes
    sums = [b.var(b.vector()) for _ in range(4)]
    unrolled = size // block * block
    with b.loop(0, unrolled, block) as i:
        for k, var in enumerate(sums):
            var.set(var.get() + b.load_vector(source + i + k * b.vector_bytes))
    with b.loop(unrolled, size, b.vector_bytes) as i:
        sums[0].set(sums[0].get() + b.load_masked(source + i, b.lanes_below((size - i) // 4)))
    total = (sums[0].get() + sums[1].get()) + (sums[2].get() + sums[3].get())
    mean = b.reduce_add(total) / b.float_of(height * width)
    with planes.columns(b, y) as j:
        planes.store(b, y, j, b.splat(mean))


def _emit_global_max(b: Builder, y: Row) -> None:
    source = planes.input_image(b, y.plane, y.image)
    best = b.var(b.vector(float("-inf")))
    width = b.arg(In.WIDTH)
    with b.loop(0, b.arg(In.HEIGHT)) as i, b.loop(0, width, b.lanes) as j:
        x = planes.load_columns(b, source + i * b.arg(In.PITCH), j, width, 1, float("-inf"))
        best.set(b.maximum(x, best.get()))
    with planes.columns(b, y) as j:
        planes.store(b, y, j, b.splat(b.reduce_max(best.get())))


_GLOBAL: dict[str, Callable[[Builder, Row], None]] = {
    "average": _emit_global_average,
    "max": _emit_global_max,
}
