"""Softmax and its logarithm, along the last axis of an array or across it.

Along the last axis (`_emit_along`) vectors hold neighbours of one distribution; across it (`_emit_across`),
as over the channels of planes, each lane is a distribution of its own.
"""

from __future__ import annotations

from enum import IntEnum, auto
from math import prod

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Plain, Planar, Target
from zeroskip.codegen.mathematics import exp, log
from zeroskip.ops import planes, runs
from zeroskip.ops.runs import Run


class Along(IntEnum):
    """The slots of the kernel along the last axis."""

    INPUT = 0
    OUTPUT = auto()
    ROWS = auto()
    LENGTH = auto()
    ROWS_PER_TASK = auto()


class Across(IntEnum):
    """The own slots of the kernel across planes."""

    INPUT = runs.OWN
    INPUT_PLANE = auto()  # bytes
    LENGTH = auto()  # planes of one distribution


def softmax(
    x: Operand, y: Operand, *, axis: int = -1, logarithm: bool = False, target: Target, threads: int = 1
) -> Call | None:
    """The call for softmax along `axis`, or its logarithm; None where there is no kernel.

    There is one for plain arrays where only axes of size 1 follow `axis`, and for the channels (axis 1) of
    planar tensors of one geometry.
    """
    if isinstance(y.layout, Planar):
        rank = 4
        if axis % rank != 1 or not y.layout.same_geometry(x.layout) or len(y.layout.phases) > 1:
            return None
        own: tuple[Argument, ...] = (x.address, x.planar.plane, y.layout.channels)
        arguments, tasks = runs.arguments(y, own, target, threads, whole_planes=True)
        return Call(
            Kernel(_name("across", logarithm), lambda b: _emit_across(b, logarithm)), arguments, tasks
        )
    shape = y.layout.shape
    axis %= len(shape)
    if not isinstance(x.layout, Plain) or prod(shape[axis + 1 :]) != 1:
        return None
    rows, length = prod(shape[:axis]), shape[axis]
    tasks = min(rows, planes.task_count(16 * rows * length, threads))
    share = -(-rows // tasks)
    kernel = Kernel(_name("along", logarithm), lambda b: _emit_along(b, logarithm))
    return Call(kernel, (x.address, y.address, rows, length, share), -(-rows // share))


def _name(form: str, logarithm: bool) -> str:
    return f"{'log' if logarithm else ''}softmax_{form}"


def _emit_along(b: Builder, logarithm: bool) -> None:
    length = b.arg(Along.LENGTH)
    first = b.task * b.arg(Along.ROWS_PER_TASK)
    lowest = float("-inf")
    with b.loop(first, b.minimum(first + b.arg(Along.ROWS_PER_TASK), b.arg(Along.ROWS))) as row:
        x, y = (b.pointer(slot) + row * length * 4 for slot in (Along.INPUT, Along.OUTPUT))
        best, total = b.var(b.vector(lowest)), b.var(b.vector())
        with b.loop(0, length, b.lanes) as i:
            best.set(b.maximum(b.load_masked(x + i * 4, b.lanes_below(length - i), lowest), best.get()))
        shift = b.splat(b.reduce_max(best.get()))
        with b.loop(0, length, b.lanes) as i:
            mask = b.lanes_below(length - i)
            e = exp(b, b.load_masked(x + i * 4, mask, lowest) - shift)
            total.set(total.get() + e)
            if not logarithm:
                b.store_masked(e, y + i * 4, mask)
        summed = b.splat(b.reduce_add(total.get()))
        norm = log(b, summed) if logarithm else b.vector(1.0) / summed
        with b.loop(0, length, b.lanes) as i:
            mask = b.lanes_below(length - i)
            source = b.load_masked((x if logarithm else y) + i * 4, mask)
            # in this order, for the likeliest class is x - shift = 0 and its logarithm small
            b.store_masked(source - shift - norm if logarithm else source * norm, y + i * 4, mask)


def _emit_across(b: Builder, logarithm: bool) -> None:
    first, last = runs.piece(b)
    length, x_plane, y_plane = b.arg(Across.LENGTH), b.arg(Across.INPUT_PLANE), b.arg(Run.PLANE)
    out = b.pointer(Run.OUTPUT)
    with b.loop(first, last, b.lanes) as i:
        x, y = b.pointer(Across.INPUT) + i * 4, out + i * 4
        best, total = b.var(b.vector(float("-inf"))), b.var(b.vector())
        with b.loop(0, length) as c:
            best.set(b.maximum(b.load_vector(x + c * x_plane), best.get()))
        with b.loop(0, length) as c:
            e = exp(b, b.load_vector(x + c * x_plane) - best.get())
            total.set(total.get() + e)
            if not logarithm:
                b.store(e, y + c * y_plane)
        norm = log(b, total.get()) if logarithm else b.vector(1.0) / total.get()
        with b.loop(0, length) as c:
            source: Expr = b.load_vector(x + c * x_plane if logarithm else y + c * y_plane)
            result = source - best.get() - norm if logarithm else source * norm
            runs.store(b, out + c * y_plane, i, result)
    runs.zero_borders(b, b.int(0), length)
