"""Normalisation by statistics of the data itself: of each image of each plane, or of each row of an array.

Variances are means of squared distances from the mean (two passes over data that is then in cache): the
difference of squares would cancel where the mean is large.
"""

from __future__ import annotations

from enum import IntEnum, auto
from math import prod

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Plain, Target
from zeroskip.ops import planes


class Moments(IntEnum):
    """The slots of the kernel over planes."""

    INPUT = 0
    FACTOR = auto()  # float32[N][C], written
    OFFSET = auto()  # float32[N][C], written
    SCALE = auto()  # float32[C]
    SHIFT = auto()  # float32[C]
    EPSILON = auto()  # float32[1]
    PLANES = auto()
    IMAGES = auto()
    HEIGHT = auto()
    WIDTH = auto()
    PITCH = auto()  # bytes, as the next two
    IMAGE = auto()
    PLANE = auto()
    PLANES_PER_TASK = auto()


class Along(IntEnum):
    """The slots of the kernel over rows."""

    INPUT = 0
    OUTPUT = auto()
    SCALE = auto()  # float32[length]
    SHIFT = auto()  # float32[length]
    EPSILON = auto()  # float32[1]
    ROWS = auto()
    LENGTH = auto()
    ROWS_PER_TASK = auto()


def moments(
    x: Operand,
    factor: Operand,
    offset: Operand,
    *,
    scale: np.ndarray,
    shift: np.ndarray,
    epsilon: float,
    threads: int = 1,
) -> Call:
    """The call for the numbers (N, C) with which ``x * factor + offset`` is the normalised `x`.

    Every image of every plane gets mean ``shift[c]`` and standard deviation ``scale[c]``, but for `epsilon`,
    which is added to its variance.
    """
    v = planes.view(x.layout)
    tasks = planes.task_count(v.planes * v.images * v.image, threads)
    share = -(-v.planes // tasks)
    slots: dict[int, Argument] = {
        Moments.INPUT: x.address,
        Moments.FACTOR: factor.address,
        Moments.OFFSET: offset.address,
        Moments.SCALE: np.ascontiguousarray(scale, np.float32),
        Moments.SHIFT: np.ascontiguousarray(shift, np.float32),
        Moments.EPSILON: np.array([epsilon], np.float32),
        Moments.PLANES: v.planes,
        Moments.IMAGES: v.images,
        Moments.HEIGHT: v.height,
        Moments.WIDTH: v.width,
        Moments.PITCH: v.pitch,
        Moments.IMAGE: v.image,
        Moments.PLANE: v.plane,
        Moments.PLANES_PER_TASK: share,
    }
    return Call(Kernel("moments", _emit_moments), tuple(slots[i] for i in Moments), -(-v.planes // share))


def _emit_moments(b: Builder) -> None:
    height, width, count = b.arg(Moments.HEIGHT), b.arg(Moments.WIDTH), b.arg(Moments.PLANES)
    first = b.task * b.arg(Moments.PLANES_PER_TASK)
    last = b.minimum(first + b.arg(Moments.PLANES_PER_TASK), count)
    pixels = b.float_of(height * width)
    with b.loop(first, last) as plane, b.loop(0, b.arg(Moments.IMAGES)) as image:
        start = b.pointer(Moments.INPUT) + plane * b.arg(Moments.PLANE) + image * b.arg(Moments.IMAGE)
        total, spread = b.var(b.vector()), b.var(b.vector())
        with b.loop(0, height) as i, b.loop(0, width, b.lanes) as j:
            x = planes.load_columns(b, start + i * b.arg(Moments.PITCH), j, width)
            total.set(total.get() + x)
        mean = b.reduce_add(total.get()) / pixels
        with b.loop(0, height) as i, b.loop(0, width, b.lanes) as j:
            x = planes.load_columns(b, start + i * b.arg(Moments.PITCH), j, width)
            away = b.select(b.lanes_below(width - j), x - b.splat(mean), 0.0)
            spread.set(b.fma(away, away, spread.get()))
        inverse = _inverse(b, b.reduce_add(spread.get()) / pixels, Moments.EPSILON)
        factor = inverse * b.load_f32(b.pointer(Moments.SCALE) + plane * 4)
        at = (image * count + plane) * 4
        b.store(factor, b.pointer(Moments.FACTOR) + at)
        shift = b.load_f32(b.pointer(Moments.SHIFT) + plane * 4)
        b.store(shift - mean * factor, b.pointer(Moments.OFFSET) + at)


def _inverse(b: Builder, variance: Expr, epsilon: int) -> Expr:
    """One over the standard deviation."""
    return b.like(1.0, variance) / b.unary("sqrt", variance + b.load_f32(b.pointer(epsilon)))


def normalize_rows(
    x: Operand,
    y: Operand,
    *,
    length: int,
    scale: np.ndarray,
    shift: np.ndarray,
    epsilon: float,
    target: Target,
    threads: int = 1,
) -> Call:
    """The call that normalises every `length` floats of a plain array, then scales and shifts them."""
    assert isinstance(x.layout, Plain) and x.layout.bytes == y.layout.bytes, f"{x} to {y}"
    rows = prod(x.layout.shape) // length
    tasks = min(rows, planes.task_count(12 * rows * length, threads))
    share = -(-rows // tasks)
    slots: dict[int, Argument] = {
        Along.INPUT: x.address,
        Along.OUTPUT: y.address,
        Along.SCALE: np.ascontiguousarray(scale, np.float32),
        Along.SHIFT: np.ascontiguousarray(shift, np.float32),
        Along.EPSILON: np.array([epsilon], np.float32),
        Along.ROWS: rows,
        Along.LENGTH: length,
        Along.ROWS_PER_TASK: share,
    }
    return Call(Kernel("normalize_rows", _emit_rows), tuple(slots[i] for i in Along), -(-rows // share))


def _emit_rows(b: Builder) -> None:
    length = b.arg(Along.LENGTH)
    count = b.float_of(length)
    first = b.task * b.arg(Along.ROWS_PER_TASK)
    with b.loop(first, b.minimum(first + b.arg(Along.ROWS_PER_TASK), b.arg(Along.ROWS))) as row:
        x, y = (b.pointer(slot) + row * length * 4 for slot in (Along.INPUT, Along.OUTPUT))
        total, spread = b.var(b.vector()), b.var(b.vector())
        with b.loop(0, length, b.lanes) as i:
            total.set(total.get() + b.load_masked(x + i * 4, b.lanes_below(length - i)))
        mean = b.splat(b.reduce_add(total.get()) / count)
        with b.loop(0, length, b.lanes) as i:
            mask = b.lanes_below(length - i)
            away = b.select(mask, b.load_masked(x + i * 4, mask) - mean, 0.0)
            spread.set(b.fma(away, away, spread.get()))
        inverse = b.splat(_inverse(b, b.reduce_add(spread.get()) / count, Along.EPSILON))
        with b.loop(0, length, b.lanes) as i:
            mask = b.lanes_below(length - i)
            away = (b.load_masked(x + i * 4, mask) - mean) * inverse
            scale, shift = (b.load_masked(b.pointer(s) + i * 4, mask) for s in (Along.SCALE, Along.SHIFT))
            b.store_masked(b.fma(away, scale, shift), y + i * 4, mask)
