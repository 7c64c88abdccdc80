"""Resizing of planes: every output row and column is a weighted sum of a few input rows and columns.

Where there are fewer rows to come, rows first: the weighted sum of input rows goes into scratch memory, from
which columns are then gathered. Where there are more, columns first: each input row is gathered once, and the
latest few wait for all output rows that are their weighted sums (sixteen times 16x16: a fifth of the time).
Where each output pixel copies one input pixel (nearest) there is no sum, and doubled columns are a shuffle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Scratch, Target
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.ops import planes
from zeroskip.ops.planes import Image, In, Row

# Input rows that may wait for output rows; as many as a cubic sums.
WIDEST = 4


@dataclass(frozen=True, eq=False)
class Taps:
    """Along one axis: which inputs each output sums, and with what weights; both are (outputs, taps)."""

    index: np.ndarray
    weight: np.ndarray

    @property
    def window(self) -> int:
        """How many neighbouring inputs hold those of any output, a power of two; 0 where outputs go back."""
        if np.any(np.diff(self.index, axis=0) < 0) or np.any(np.diff(self.index, axis=1) < 0):
            return 0
        span = int((self.index[:, -1] - self.index[:, 0]).max()) + 1
        return 1 << (span - 1).bit_length()

    @property
    def copies(self) -> bool:
        """Whether each output is one input."""
        return self.index.shape[1] == 1 and bool(np.all(self.weight == 1))


class Arg(IntEnum):
    """The kernels' own slots."""

    ROW_TAPS = planes.MORE
    ROWS = auto()  # int32[P][taps]: input rows
    ROW_WEIGHTS = auto()  # float32[P][taps]
    COLUMN_TAPS = auto()
    COLUMNS = auto()  # int32[taps][Q filled up]: input columns
    COLUMN_WEIGHTS = auto()  # float32[taps][Q filled up]
    COLUMN_STRIDE = auto()  # bytes from one tap's columns to the next's
    WAITING = auto()  # int32[P][taps]: bytes in scratch memory to gathered input rows
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


def resize(x: Operand, y: Operand, *, rows: Taps, columns: Taps, target: Target, threads: int = 1) -> Call:
    """The call for ``y[i, j] = sum of rows.weight[i, s] * columns.weight[j, t] * x[row s, column t]``."""
    source, out = planes.view(x.layout), planes.view(y.layout)
    assert (len(rows.index), len(columns.index)) == (out.height, out.width), f"taps for another size than {y}"
    copies = rows.copies and columns.copies
    doubles = copies and np.array_equal(columns.index[:, 0], np.arange(out.width) // 2)
    window = rows.window
    grows = out.height > source.height and 0 < window <= WIDEST
    form = "double" if doubles else "nearest" if copies else "grown" if grows else "weighted"
    filled = round_up(out.width, target.lanes)
    row = filled * window if grows else source.width + target.lanes
    scratch = 0 if copies else round_up(4 * row, LINE)
    own: dict[int, Argument] = {
        **planes.source(x),
        Arg.ROW_TAPS: rows.index.shape[1],
        Arg.ROWS: np.ascontiguousarray(rows.index, np.int32),
        Arg.ROW_WEIGHTS: np.ascontiguousarray(rows.weight, np.float32),
        Arg.COLUMN_TAPS: columns.index.shape[1],
        Arg.COLUMNS: _filled(columns.index.T, filled, np.int32),
        Arg.COLUMN_WEIGHTS: _filled(columns.weight.T, filled, np.float32),
        Arg.COLUMN_STRIDE: 4 * filled,
        Arg.WAITING: (rows.index % max(1, window) * 4 * filled).astype(np.int32),
        Arg.SCRATCH: 0 if copies else Scratch(),
        Arg.SCRATCH_STRIDE: scratch,
    }
    arguments, tasks = planes.arguments(y, own, threads)
    return Call(Kernel(f"resize_{form}", _FORMS[form]), arguments, tasks, scratch)


def _filled(array: np.ndarray, width: int, kind: type) -> np.ndarray:
    filled: np.ndarray = np.zeros((array.shape[0], width), kind)
    filled[:, : array.shape[1]] = array
    return filled


def _copied_row(b: Builder, y: Row) -> Expr:
    """The input row that output row `y` copies."""
    row = b.load_i32(b.pointer(Arg.ROWS) + y.row * 4)
    return planes.input_image(b, y.plane, y.image) + row * b.arg(In.PITCH)


def _emit_double(b: Builder, y: Row) -> None:
    source, half = _copied_row(b, y), b.lanes // 2
    with planes.columns(b, y) as j:
        x = planes.load_columns(b, source, j // 2, b.arg(In.WIDTH))
        planes.store(b, y, j, b.shuffle(x, x, [lane // 2 for lane in range(2 * half)]))


def _emit_nearest(b: Builder, y: Row) -> None:
    source = _copied_row(b, y)
    with planes.columns(b, y) as j:
        planes.store(b, y, j, b.gather(source, b.load_indices(b.pointer(Arg.COLUMNS) + j * 4)))


def _emit_weighted(b: Builder, y: Row) -> None:
    image, row_taps = planes.input_image(b, y.plane, y.image), b.arg(Arg.ROW_TAPS)
    entry = y.row * row_taps * 4
    scratch = b.pointer(Arg.SCRATCH) + b.thread * b.arg(Arg.SCRATCH_STRIDE)
    width = b.arg(In.WIDTH)
    with b.loop(0, width, b.lanes) as i:
        total = b.var(b.vector())
        with b.loop(0, row_taps) as t:
            at = entry + t * 4
            source = image + b.load_i32(b.pointer(Arg.ROWS) + at) * b.arg(In.PITCH)
            weight = b.broadcast(b.pointer(Arg.ROW_WEIGHTS) + at)
            total.set(b.fma(weight, planes.load_columns(b, source, i, width), total.get()))
        b.store(total.get(), scratch + i * 4)
    with planes.columns(b, y) as j:
        planes.store(b, y, j, _gathered(b, scratch, j))


def _gathered(b: Builder, row: Expr, j: Expr) -> Expr:
    """The weighted sum of columns of an input row, for a vector of output columns from `j` on."""
    total = b.var(b.vector())
    with b.loop(0, b.arg(Arg.COLUMN_TAPS)) as t:
        at = t * b.arg(Arg.COLUMN_STRIDE) + j * 4
        x = b.gather(row, b.load_indices(b.pointer(Arg.COLUMNS) + at))
        total.set(b.fma(b.load_vector(b.pointer(Arg.COLUMN_WEIGHTS) + at), x, total.get()))
    return total.get()


def _emit_grown(b: Builder) -> None:
    """Output rows need input rows in ascending order: each is gathered when it is needed first."""
    scratch = b.pointer(Arg.SCRATCH) + b.thread * b.arg(Arg.SCRATCH_STRIDE)
    row_taps, stride = b.arg(Arg.ROW_TAPS), b.arg(Arg.COLUMN_STRIDE)
    next_row = b.var(b.int(0))

    def on_image(part: Image) -> None:
        source = planes.input_image(b, part.plane, part.image)
        next_row.set(b.int(0))

        def on_row(y: Row) -> None:
            entry = y.row * row_taps * 4
            rows, weights, waiting = (
                b.pointer(slot) + entry for slot in (Arg.ROWS, Arg.ROW_WEIGHTS, Arg.WAITING)
            )
            with b.loop(0, row_taps) as t:
                row, to = b.load_i32(rows + t * 4), scratch + b.load_i32(waiting + t * 4)
                with b.when(row >= next_row.get()), b.loop(0, stride, b.vector_bytes) as j:
                    b.store(_gathered(b, source + row * b.arg(In.PITCH), j // 4), to + j)
                next_row.set(b.maximum(next_row.get(), row + 1))
            with planes.columns(b, y) as j:
                total = b.var(b.vector())
                with b.loop(0, row_taps) as t:
                    x = b.load_vector(scratch + b.load_i32(waiting + t * 4) + j * 4)
                    total.set(b.fma(b.broadcast(weights + t * 4), x, total.get()))
                planes.store(b, y, j, total.get())

        planes.for_rows_of(b, part, on_row)

    planes.for_images(b, on_image)


def _by_row(emit: Callable[[Builder, Row], None]) -> Callable[[Builder], None]:
    return lambda b: planes.for_rows(b, lambda y: emit(b, y))


_FORMS: dict[str, Callable[[Builder], None]] = {
    "double": _by_row(_emit_double),
    "nearest": _by_row(_emit_nearest),
    "weighted": _by_row(_emit_weighted),
    "grown": _emit_grown,
}
