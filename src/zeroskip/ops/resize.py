"""Resizing of planes: every output row and column is a weighted sum of a few input rows and columns.

Rows first: the weighted sum of input rows goes into scratch memory; columns are then gathered from there.
Where each output pixel copies one input pixel (nearest) there is no sum, and doubled columns are a shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Scratch, Target
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.ops import planes
from zeroskip.ops.planes import In, Row


@dataclass(frozen=True, eq=False)
class Taps:
    """Along one axis: which inputs each output sums, and with what weights; both are (outputs, taps)."""

    index: np.ndarray
    weight: np.ndarray

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
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


def resize(x: Operand, y: Operand, *, rows: Taps, columns: Taps, target: Target, threads: int = 1) -> Call:
    """The call for ``y[i, j] = sum of rows.weight[i, s] * columns.weight[j, t] * x[row s, column t]``."""
    source, out = planes.view(x.layout), planes.view(y.layout)
    assert (len(rows.index), len(columns.index)) == (out.height, out.width), f"taps for another size than {y}"
    copies = rows.copies and columns.copies
    doubles = copies and np.array_equal(columns.index[:, 0], np.arange(out.width) // 2)
    form = "double" if doubles else "nearest" if copies else "weighted"
    filled = round_up(out.width, target.lanes)
    scratch = 0 if copies else round_up(4 * (source.width + target.lanes), LINE)
    own: dict[int, Argument] = {
        **planes.source(x),
        Arg.ROW_TAPS: rows.index.shape[1],
        Arg.ROWS: np.ascontiguousarray(rows.index, np.int32),
        Arg.ROW_WEIGHTS: np.ascontiguousarray(rows.weight, np.float32),
        Arg.COLUMN_TAPS: columns.index.shape[1],
        Arg.COLUMNS: _filled(columns.index.T, filled, np.int32),
        Arg.COLUMN_WEIGHTS: _filled(columns.weight.T, filled, np.float32),
        Arg.COLUMN_STRIDE: 4 * filled,
        Arg.SCRATCH: 0 if copies else Scratch(),
        Arg.SCRATCH_STRIDE: scratch,
    }
    arguments, tasks = planes.arguments(y, own, threads)
    emit = {"double": _emit_double, "nearest": _emit_nearest, "weighted": _emit_weighted}[form]
    kernel = Kernel(f"resize_{form}", lambda b: planes.for_rows(b, lambda y: emit(b, y)))
    return Call(kernel, arguments, tasks, scratch)


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
        total = b.var(b.vector())
        with b.loop(0, b.arg(Arg.COLUMN_TAPS)) as t:
            at = t * b.arg(Arg.COLUMN_STRIDE) + j * 4
            x = b.gather(scratch, b.load_indices(b.pointer(Arg.COLUMNS) + at))
            total.set(b.fma(b.load_vector(b.pointer(Arg.COLUMN_WEIGHTS) + at), x, total.get()))
        planes.store(b, y, j, total.get())
