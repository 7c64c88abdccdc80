"""The two kernels of lowering: copy pixels into the lowered matrix, multiply it by the filters.

Rows of the lowered matrix are taps, its columns output pixels; `lowered` says how it lies in memory. It is
multiplied panel by panel, a panel being up to NV vectors of consecutive output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, activate, tag


class Fill(IntEnum):
    """Argument slots of the copy; distances in bytes."""

    INPUT = 0
    PLANE = auto()
    CHANNELS = auto()
    SHIFTS = auto()  # int32[]: from a pixel to what a tap reads, for the taps of a channel that are copied
    SHIFT_COUNT = auto()
    UNITS = auto()  # int32[units][4]: start in the matrix, from one tap to the next, runs: first, last
    RUNS = auto()  # int32[][3]: start in the tap's row, pixels, start in the input
    MATRIX = auto()
    PARTS = auto()  # tasks of a unit
    SHARE = auto()  # channels per task


class Multiply(IntEnum):
    """Argument slots of the product; distances in bytes."""

    MATRIX = 0
    PANELS = auto()  # int32[panels][6]: start, first offset, vectors, runs: first, last; end in a plane
    OFFSETS = auto()  # int32[]: from a panel's start to the pixels of a tap
    RUNS = auto()  # int32[][3]: start in the panel, pixels, start in an output plane
    GROUPS = auto()  # of the convolution
    TAPS = auto()  # of a group
    SEGMENT = auto()  # taps at a time
    WEIGHTS = auto()  # float32[groups][segments][rows/MR][taps of the segment][MR]
    ROWS = auto()  # output channels of a group, rounded up to MR
    CHANNELS = auto()  # output channels of a group
    PARTS = auto()  # tasks of a panel
    SHARE = auto()  # rows per task
    BIAS = auto()  # float32[K]
    OUTPUT = auto()
    OUTPUT_PLANE = auto()
    RESIDUAL = auto()
    RESIDUAL_PLANE = auto()
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


def fill_kernel(stride: int) -> Kernel:
    """The copy, for a column stride."""
    return Kernel(f"lower_{stride}", lambda b: _emit_fill(b, stride))


def _emit_fill(b: Builder, stride: int) -> None:
    """A task copies a run of channels of a unit, in the order of the matrix."""
    parts, shifts = b.arg(Fill.PARTS), b.arg(Fill.SHIFT_COUNT)
    entry = b.pointer(Fill.UNITS) + b.task // parts * 16
    start, step, first_run, last_run = (b.load_i32(entry + 4 * i) for i in range(4))
    first = b.task % parts * b.arg(Fill.SHARE)
    last = b.minimum(first + b.arg(Fill.SHARE), b.arg(Fill.CHANNELS))
    matrix = b.pointer(Fill.MATRIX) + start
    end = last * shifts * step
    with b.loop(first, last) as channel, b.loop(0, shifts) as shift:
        source = b.pointer(Fill.INPUT) + channel * b.arg(Fill.PLANE)
        source = source + b.load_i32(b.pointer(Fill.SHIFTS) + shift * 4)
        row = (channel * shifts + shift) * step
        with b.loop(first_run, last_run) as run:
            place, pixels, at = (b.load_i32(b.pointer(Fill.RUNS) + run * 12 + 4 * i) for i in range(3))
            with b.loop(0, pixels, b.lanes) as i:
                mask = b.lanes_below(pixels - i)
                value = b.load_strided(source + at + i * (4 * stride), stride, None if stride <= 2 else mask)
                _store(b, value, matrix, row + place + i * 4, pixels - i, end)


def _store(b: Builder, value: Expr, base: Expr, at: Expr, left: Expr, end: Expr) -> None:
    """Write `left` floats or more: what comes after them, up to `end`, is written later by the same task."""
    with b.choose((left >= b.lanes) | (at + b.vector_bytes <= end)) as (whole, tail):
        with whole:
            b.store(value, base + at)
        with tail:
            b.store_masked(value, base + at, b.lanes_below(left))


@dataclass(frozen=True)
class Product:
    """The multiplying kernel: register tiles of MR output channels by NV vectors, and what is fused."""

    mr: int
    nv: int
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        flags = ("_residual" if self.residual else "") + tag(self.activation)
        return Kernel(f"lowered_{self.mr}x{self.nv}{flags}", lambda b: _Multiply(b, self).emit())


class _Multiply:
    def __init__(self, b: Builder, shape: Product) -> None:
        self.b, self.shape = b, shape
        self.row_bytes = shape.nv * b.vector_bytes
        self.taps, self.rows = b.arg(Multiply.TAPS), b.arg(Multiply.ROWS)
        self.sums = b.pointer(Multiply.SCRATCH) + b.thread * b.arg(Multiply.SCRATCH_STRIDE)
        self.runs = b.pointer(Multiply.RUNS)

    def emit(self) -> None:
        """A task is a panel and some of each group's output channels."""
        b, nv = self.b, self.shape.nv
        parts, share = b.arg(Multiply.PARTS), b.arg(Multiply.SHARE)
        entry = b.pointer(Multiply.PANELS) + b.task // parts * 24
        start, offset, vectors, first_run, last_run, end = (b.load_i32(entry + 4 * i) for i in range(6))
        pixels = b.pointer(Multiply.MATRIX) + start
        first = b.task % parts * share
        last = b.minimum(first + share, self.rows)
        with b.loop(0, b.arg(Multiply.GROUPS)) as group:
            offsets = b.pointer(Multiply.OFFSETS) + (offset + group * self.taps) * 4
            weights = b.pointer(Multiply.WEIGHTS) + group * self.taps * self.rows * 4
            if nv > 1:
                with b.choose(vectors.equals(nv)) as (wide, narrow):
                    with wide:
                        self.segments(pixels, offsets, weights, first, last, nv)
                    with narrow:
                        self.segments(pixels, offsets, weights, first, last, nv - 1)
            else:
                self.segments(pixels, offsets, weights, first, last, nv)
            channels = b.arg(Multiply.CHANNELS)
            with b.loop(first, b.minimum(last, channels)) as k:
                sums = self.sums + (k - first) * self.row_bytes
                with b.loop(first_run, last_run) as run:
                    self.finish(sums, group * channels + k, self.runs + run * 12, end)

    def segments(self, pixels: Expr, offsets: Expr, weights: Expr, first: Expr, last: Expr, nv: int) -> None:
        """The sums of rows `first` to `last`, a segment of taps after the other."""
        b, mr = self.b, self.shape.mr
        with b.loop(0, self.taps, b.arg(Multiply.SEGMENT)) as tap:
            count = b.minimum(b.arg(Multiply.SEGMENT), self.taps - tap)
            with b.loop(first, last, mr) as k:
                w = weights + (tap * self.rows + k * count) * 4
                to = self.sums + (k - first) * self.row_bytes
                self.tile(pixels, offsets + tap * 4, w, count, tap, to, nv)

    def tile(self, pixels: Expr, offsets: Expr, w: Expr, count: Expr, tap: Expr, to: Expr, nv: int) -> None:
        """A register tile: the sums so far, or zeros, plus `count` taps."""
        b, mr = self.b, self.shape.mr
        acc = [[b.var(b.vector()) for _ in range(nv)] for _ in range(mr)]
        places = [[to + (m * self.row_bytes + n * b.vector_bytes) for n in range(nv)] for m in range(mr)]
        with b.when(tap > 0):
            for row, where in zip(acc, places, strict=True):
                for var, place in zip(row, where, strict=True):
                    var.set(b.load_vector(place))
        with b.loop(0, count) as j:
            source = pixels + b.load_i32(offsets + j * 4)
            x = [b.load_vector(source + n * b.vector_bytes) for n in range(nv)]
            for m, row in enumerate(acc):
                weight = b.broadcast(w + (j * mr + m) * 4)
                for n, var in enumerate(row):
                    var.set(b.fma(weight, x[n], var.get()))
        for row, where in zip(acc, places, strict=True):
            for var, place in zip(row, where, strict=True):
                b.store(var.get(), place)

    def finish(self, sums: Expr, k: Expr, run: Expr, end: Expr) -> None:
        """Bias, residual and activation of a run of pixels of output channel k."""
        b = self.b
        place, pixels, at = (b.load_i32(run + 4 * i) for i in range(3))
        bias = b.broadcast(b.pointer(Multiply.BIAS) + k * 4)
        plane = b.pointer(Multiply.OUTPUT) + k * b.arg(Multiply.OUTPUT_PLANE)
        residual = b.pointer(Multiply.RESIDUAL) + k * b.arg(Multiply.RESIDUAL_PLANE)
        with b.loop(0, pixels, b.lanes) as i:
            y = b.load_vector(sums + place + i * 4) + bias
            if self.shape.residual:
                y = y + b.load_vector(residual + at + i * 4)
            _store(b, activate(b, y, self.shape.activation), plane, at + i * 4, pixels - i, end)
