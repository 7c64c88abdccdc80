"""Element by element: activations, and arithmetic of two operands with broadcasting.

Tensors of equal geometry are *runs*: whole planes, borders included, as one sequence of vectors under the
layout's mask. Everything else goes row by row, each operand with its own distances, of which any may be zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from math import prod

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Plain, Planar, Target
from zeroskip.codegen.activations import Activation, activate, tag
from zeroskip.errors import InputError
from zeroskip.ops import planes, runs
from zeroskip.ops.planes import Row

Shape = tuple[int, ...]
Source = Operand | np.ndarray | float
"""What a kernel reads: a tensor of the plan, a constant array that broadcasts, or a number."""


def _larger(b: Builder, x: Expr, y: Expr) -> Expr:
    return b.select((x > y) | b.is_nan(x), x, y)


def _smaller(b: Builder, x: Expr, y: Expr) -> Expr:
    return b.select((x < y) | b.is_nan(x), x, y)


BINARY: dict[str, Callable[[Builder, Expr, Expr], Expr]] = {
    "Add": lambda b, x, y: x + y,
    "Sub": lambda b, x, y: x - y,
    "Mul": lambda b, x, y: x * y,
    "Div": lambda b, x, y: x / y,
    "Min": _smaller,
    "Max": _larger,
    "PRelu": lambda b, x, y: b.select(x < 0.0, x * y, x),
}
"""ONNX operator to its meaning on two vectors."""

_MEANINGS: dict[str, Callable[..., Expr]] = {
    **BINARY,
    "": lambda b, x: x,
    "MulAdd": lambda b, x, factor, offset: b.fma(x, factor, offset),
}


def unary(x: Operand, y: Operand, activation: Activation, *, target: Target, threads: int = 1) -> Call:
    """The call for ``y = activation(x)``; in place only where both have one geometry."""
    return _call("", (x,), y, activation, target, threads)


def binary(
    op: str,
    a: Source,
    b: Source,
    y: Operand,
    *,
    activation: Activation | None = None,
    target: Target,
    threads: int = 1,
) -> Call:
    """The call for ``y = activation(a op b)``, `op` of `BINARY`, with NumPy's broadcasting to `y`'s shape.

    A planar tensor has shape (N, C, H, W); beside one, write the others with those four axes. In place only
    where both have one geometry. Raises `InputError` where more than four axes remain after joining.
    """
    return _call(op, (a, b), y, activation, target, threads)


def multiply_add(
    x: Source, factor: Source, offset: Source, y: Operand, *, target: Target, threads: int = 1
) -> Call:
    """The call for ``y = x * factor + offset``, rounded once; broadcasting is as in `binary`."""
    return _call("MulAdd", (x, factor, offset), y, None, target, threads)


@dataclass(frozen=True)
class _Body:
    """What a kernel's code depends on; `kinds` has ``v`` for an operand of vectors, ``s`` for a number."""

    op: str
    kinds: str
    activation: Activation | None

    def name(self, form: str) -> str:
        return f"{form}_{self.op.lower() or 'map'}_{self.kinds}{tag(self.activation)}"

    def apply(self, b: Builder, values: Sequence[Expr]) -> Expr:
        """The result for a vector of each operand."""
        return activate(b, _MEANINGS[self.op](b, *values), self.activation)


def _call(
    op: str,
    sources: Sequence[Source],
    y: Operand,
    activation: Activation | None,
    target: Target,
    threads: int,
) -> Call:
    inputs = [s if isinstance(s, Operand) else np.ascontiguousarray(s, np.float32) for s in sources]
    found = [_run(source, y) for source in inputs]
    if all(found):
        return _run_call(_Body(op, "", activation), [run for run in found if run], y, target, threads)
    return _row_call(_Body(op, "", activation), inputs, y, threads)


# -- runs of vectors ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    """An operand whose position in a plane is the output's (`vectors`), or one number per plane."""

    start: Argument
    plane: int  # bytes from plane to plane
    vectors: bool


def _run(source: Operand | np.ndarray, y: Operand) -> _Run | None:
    """`source` as a run beside `y`, if it can be one."""
    shape = source.shape if isinstance(source, np.ndarray) else _shape(source)
    start: Argument = source if isinstance(source, np.ndarray) else source.address
    if prod(shape) == 1 and not (isinstance(source, Operand) and isinstance(source.layout, Planar)):
        return _Run(start, 0, False)
    if isinstance(source, Operand) and isinstance(source.layout, Planar):
        if source.layout.same_geometry(y.layout) and source.layout.channels == y.planar.channels:
            return _Run(start, source.layout.plane, True)
        return None
    if isinstance(y.layout, Plain):
        return _Run(start, 0, True) if shape == y.layout.shape else None
    per_channel = len(shape) in (3, 4) and shape[-3:] == (y.planar.channels, 1, 1) and prod(shape[:-3]) == 1
    return _Run(start, 4, False) if per_channel and len(y.planar.phases) == 1 else None


def _shape(x: Operand) -> Shape:
    """The tensor's shape; a planar one has four axes."""
    if isinstance(x.layout, Plain):
        return x.layout.shape
    return x.layout.images, x.layout.planes, x.layout.height, x.layout.width


def _run_call(body: _Body, sources: Sequence[_Run], y: Operand, target: Target, threads: int) -> Call:
    body = _Body(body.op, "".join("v" if source.vectors else "s" for source in sources), body.activation)
    planar = isinstance(y.layout, Planar)
    own: list[Argument] = []
    for source in sources:
        own += [source.start, source.plane]
    arguments, tasks = runs.arguments(y, own, target, threads)
    kernel = Kernel(body.name("planes" if planar else "run"), lambda b: _emit_runs(b, body, planar))
    return Call(kernel, arguments, tasks)


def _emit_runs(b: Builder, body: _Body, planar: bool) -> None:
    slots = [runs.OWN + 2 * i for i in range(len(body.kinds))]

    def on_plane(plane: Expr) -> runs.Values:
        starts = [b.pointer(slot) + plane * b.arg(slot + 1) for slot in slots]
        numbers = [b.broadcast(start) if kind == "s" else None for kind, start in zip(body.kinds, starts)]

        def values(i: Expr, tail: Expr | None) -> Expr:
            return body.apply(
                b,
                [
                    number
                    or (b.load_vector(start + i * 4) if tail is None else b.load_masked(start + i * 4, tail))
                    for start, number in zip(starts, numbers, strict=True)
                ],
            )

        return values

    runs.for_vectors(b, planar, on_plane)


# -- rows --------------------------------------------------------------------------------------------------


class RowArg(IntEnum):
    """The slots of one operand of the row-wise kernels; they repeat per operand."""

    START = 0
    PLANE = auto()  # bytes, as the next two; zero where the operand broadcasts
    IMAGE = auto()
    ROW = auto()


def _row_call(body: _Body, sources: Sequence[Operand | np.ndarray], y: Operand, threads: int) -> Call:
    tensors = [s for s in (*sources, y) if isinstance(s, Operand)]
    shapes = [s.shape if isinstance(s, np.ndarray) else _shape(s) for s in sources]
    if any(isinstance(t.layout, Planar) for t in tensors):
        out = _shape(y) if isinstance(y.layout, Planar) else planes.shape4(y.layout.shape)
        shapes = [(1,) * (4 - len(shape)) + shape for shape in shapes]
    else:
        out, *shapes = joined_axes(_shape(y), shapes)
        y = Operand(y.buffer, Plain(out), y.offset)
    kinds = ""
    own: dict[int, Argument] = {}
    for i, (source, shape) in enumerate(zip(sources, shapes, strict=True)):
        mismatch = any(size not in (1, full) for size, full in zip(shape, out, strict=True))
        if mismatch:
            raise InputError(f"operand of shape {shape} does not broadcast to {out}; reshape it")
        kinds += "s" if shape[3] == 1 else "v"
        own |= _row_slots(planes.OWN + i * len(RowArg), source, shape)
    body = _Body(body.op, kinds, body.activation)
    arguments, tasks = planes.arguments(y, own, threads)
    return Call(Kernel(body.name("rows"), lambda b: _emit_rows(b, body)), arguments, tasks)


def _row_slots(first: int, source: Operand | np.ndarray, shape: Shape) -> dict[int, Argument]:
    layout = (
        source.layout if isinstance(source, Operand) and isinstance(source.layout, Planar) else Plain(shape)
    )
    v = planes.view(layout)
    n, c, h, _ = shape
    return {
        first + RowArg.START: source if isinstance(source, np.ndarray) else source.address,
        first + RowArg.PLANE: v.plane if c > 1 else 0,
        first + RowArg.IMAGE: v.image if n > 1 else 0,
        first + RowArg.ROW: v.pitch if h > 1 else 0,
    }


def joined_axes(out: Shape, shapes: Sequence[Shape]) -> list[Shape]:
    """`out` and `shapes` with axes joined, wherever all operands allow, until they are four.

    Raises `InputError` where more remain.
    """
    full = [tuple(out)] + [(1,) * (len(out) - len(shape)) + tuple(shape) for shape in shapes]
    columns = list(zip(*full, strict=True))  # per axis: its size in the output and in each operand
    axis = len(columns) - 1
    while axis > 0 and len(columns) > 4:
        inner, outer = columns[axis], columns[axis - 1]
        # axes join where each operand has both whole or broadcasts over both
        if all(
            (i == inner[0]) == (o == outer[0]) or (i, o) == (1, 1) for i, o in zip(inner, outer, strict=True)
        ):
            columns[axis - 1 : axis + 1] = [tuple(i * o for i, o in zip(inner, outer, strict=True))]
        axis -= 1
    if len(columns) > 4:
        raise InputError(
            f"broadcasting {list(shapes)} to {out} takes more than four axes; reshape or join some"
        )
    columns = [(1,) * len(full)] * (4 - len(columns)) + columns
    return [tuple(column[i] for column in columns) for i in range(len(full))]


def _emit_rows(b: Builder, body: _Body) -> None:
    width = b.arg(planes.Out.WIDTH)

    def rows(y: Row) -> None:
        starts = []
        for i in range(len(body.kinds)):
            slot = planes.OWN + i * len(RowArg)
            plane, image, row = (b.arg(slot + a) for a in (RowArg.PLANE, RowArg.IMAGE, RowArg.ROW))
            starts.append(b.pointer(slot) + y.plane * plane + y.image * image + y.row * row)
        numbers = [b.broadcast(start) if kind == "s" else None for kind, start in zip(body.kinds, starts)]
        with planes.columns(b, y) as j:
            values = [
                number or planes.load_columns(b, start, j, width)
                for start, number in zip(starts, numbers, strict=True)
            ]
            planes.store(b, y, j, body.apply(b, values))

    planes.for_rows(b, rows)
