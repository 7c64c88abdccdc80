"""Transpositions: every pixel of the output reads the input at a distance that is fixed per axis."""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Kernel, Operand, Target
from zeroskip.codegen.layout import round_up
from zeroskip.ops import planes
from zeroskip.ops.planes import Row

Strides = tuple[int, int, int, int]


class Arg(IntEnum):
    """The kernel's own slots."""

    INPUT = planes.OWN
    IMAGE = auto()  # bytes of the input from one image of the output to the next, as the next two
    PLANE = auto()
    ROW = auto()
    OFFSETS = auto()  # int32[Q filled up]: floats from a row's start to the column's pixel


def permute(x: Operand, y: Operand, strides: Strides, *, target: Target, threads: int = 1) -> Call:
    """The call for ``y[n, c, h, w] = x[n*strides[0] + c*strides[1] + h*strides[2] + w*strides[3]]``.

    `strides` are bytes from the first element of `x`; `y` is planar, or plain with up to four axes (see
    `planes.shape4`).
    """
    out = planes.view(y.layout)
    image, plane, row, column = strides
    columns = np.zeros(round_up(out.width, target.lanes), np.int32)
    columns[: out.width] = np.arange(out.width) * (column // 4)
    own: dict[int, Argument] = {
        Arg.INPUT: x.address,
        Arg.IMAGE: image,
        Arg.PLANE: plane,
        Arg.ROW: row,
        Arg.OFFSETS: columns,
    }
    arguments, tasks = planes.arguments(y, own, threads)
    form = "runs" if column == 4 else "gather"
    return Call(Kernel(f"permute_{form}", lambda b: _emit(b, form)), arguments, tasks)


def _emit(b: Builder, form: str) -> None:
    def body(y: Row) -> None:
        plane, image = y.plane * b.arg(Arg.PLANE), y.image * b.arg(Arg.IMAGE)
        source = b.pointer(Arg.INPUT) + plane + image + y.row * b.arg(Arg.ROW)
        width = b.arg(planes.Out.WIDTH)
        with planes.columns(b, y) as j:
            if form == "runs":
                value = planes.load_columns(b, source, j, width)
            else:
                value = b.gather(source, b.load_indices(b.pointer(Arg.OFFSETS) + j * 4))
            planes.store(b, y, j, value)

    planes.for_rows(b, body)
