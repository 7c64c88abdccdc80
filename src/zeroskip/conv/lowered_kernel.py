"""The two kernels of lowering: copy pixels into the lowered matrix, multiply it by the filters.

Rows of the lowered matrix are taps, its columns output pixels; `lowered` says how it lies in memory. It is
multiplied panel by panel, a panel being up to NV vectors of consecutive output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr, Kernel, Var
from zeroskip.codegen.activations import Activation, activate, epilogue_tag
from zeroskip.conv.lowered_copy import Copy, Shape, Unit, store


class Multiply(IntEnum):
    """Argument slots of the product; distances in bytes."""

    MATRIX = 0
    PANELS = auto()
    # int32[panels][8]: start, first offset, vectors, pixels, runs: first, last; end in a plane; whole
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


@dataclass(frozen=True)
class Product:
    """The multiplying kernel: register tiles of MR output channels by NV vectors, and what is fused.

    Sums of a panel wait in rows of `panel` vectors.
    """

    mr: int
    nv: int
    panel: int
    activation: Activation | None
    residual: bool
    copy: Shape | None = None  # how a task first copies its panel; None where that has been done

    def kernel(self, multiplication: type[Multiplication]) -> Kernel:
        """The kernel to be compiled."""
        flags = (f"_copy{self.copy.tag}" if self.copy else "") + epilogue_tag(self.activation, self.residual)
        name = f"lowered_{self.mr}x{self.nv}{'' if multiplication.straight else 'x' + str(self.panel)}{flags}"
        return Kernel(name, lambda b: multiplication(b, self).emit())


@dataclass(frozen=True)
class Panel:
    """A panel on its way through a group of the convolution."""

    matrix: Expr
    vectors: Expr
    pixels: Expr
    offsets: Expr
    weights: Expr
    group: Expr
    whole: Expr  # 1 where it is whole vectors that follow each other in a plane, else 0
    place: Expr  # where in a plane its first pixel goes
    unit: Unit | None  # what is copied while the first tile is multiplied, unless its last vector is not full


@dataclass(frozen=True)
class Segment:
    """Taps of a group that are multiplied together: the first, how many, whether sums are finished then."""

    tap: Expr
    count: Expr
    offsets: Expr
    done: Expr


class Multiplication:
    """Tiles of MR output channels by NV vectors of pixels; `straight` sums may leave from registers."""

    straight = True

    def __init__(self, b: Builder, shape: Product) -> None:
        self.b, self.shape = b, shape
        self.row_bytes = shape.panel * b.vector_bytes
        self.taps, self.rows = b.arg(Multiply.TAPS), b.arg(Multiply.ROWS)
        self.sums = b.pointer(Multiply.SCRATCH) + b.thread * b.arg(Multiply.SCRATCH_STRIDE)
        self.runs = b.pointer(Multiply.RUNS)

    def emit(self) -> None:
        """A task is a panel and some of each group's output channels."""
        b = self.b
        parts, share = b.arg(Multiply.PARTS), b.arg(Multiply.SHARE)
        unit = Unit(b, self.shape.copy, b.task, len(Multiply)) if self.shape.copy else None
        if unit is not None:
            self.copy(unit)
        entry = b.pointer(Multiply.PANELS) + b.task // parts * 32
        start, offset, vectors, pixels, first_run, last_run, end, whole = (
            b.load_i32(entry + 4 * i) for i in range(8)
        )
        matrix = b.pointer(Multiply.MATRIX) + start
        whole = whole if self.straight else b.int(0)
        first = b.task % parts * share
        last = b.minimum(first + share, self.rows)
        place = b.load_i32(self.runs + first_run * 12 + 8)
        with b.loop(0, b.arg(Multiply.GROUPS)) as group:
            offsets = b.pointer(Multiply.OFFSETS) + (offset + group * self.taps) * 4
            weights = b.pointer(Multiply.WEIGHTS) + group * self.taps * self.rows * 4
            channels = b.arg(Multiply.CHANNELS)
            panel = Panel(matrix, vectors, pixels, offsets, weights, group, whole, place, unit)
            self.sum(panel, first, last)
            with b.when(whole.equals(0)), b.loop(first, b.minimum(last, channels)) as k:
                sums = self.sums + (k - first) * self.row_bytes
                with b.loop(first_run, last_run) as run:
                    self.finish_run(sums, group * channels + k, self.runs + run * 12, end)

    def copy(self, unit: Unit) -> None:
        """Before all else only where the last vector is not full: it would be written past the matrix."""
        with self.b.when(unit.vectors * self.b.lanes > unit.pixels):
            unit.copy(self.b.int(0), self.b.arg(len(Multiply) + Copy.CHANNELS))

    def sum(self, panel: Panel, first: Expr, last: Expr) -> None:
        """The sums of rows `first` to `last`, those of whole panels finished."""
        nv = self.shape.nv
        if nv == 1:
            self.segments(panel, first, last, nv)
            return
        with self.b.choose(panel.vectors.equals(nv)) as (wide, narrow):
            with wide:
                self.segments(panel, first, last, nv)
            with narrow:
                self.segments(panel, first, last, nv - 1)

    def segments(self, panel: Panel, first: Expr, last: Expr, nv: int) -> None:
        """The sums of rows `first` to `last`, a segment of taps after the other."""
        b, mr = self.b, self.shape.mr
        with b.loop(0, self.taps, b.arg(Multiply.SEGMENT)) as tap:
            count = b.minimum(b.arg(Multiply.SEGMENT), self.taps - tap)
            done = panel.whole.equals(1) & (tap + count).equals(self.taps)
            segment = Segment(tap, count, panel.offsets + tap * 4, done)
            following = first
            if panel.unit is not None:
                full = (panel.unit.vectors * b.lanes).equals(panel.unit.pixels)
                with b.when(full):
                    self.segment_tile(panel, segment, first, first, nv, panel.unit)
                following = b.select(full, first + mr, first)
            with b.loop(following, last, mr) as k:
                self.segment_tile(panel, segment, first, k, nv)

    def segment_tile(
        self, panel: Panel, segment: Segment, first: Expr, k: Expr, nv: int, unit: Unit | None = None
    ) -> None:
        """A register tile: the sums so far, or zeros, plus the segment's taps.

        The first tile takes them from `unit` and leaves them in the matrix: much of the copy hides behind the
        products, 0.1 ms of 0.2 ms where 64x56x56 meets 64 filters.
        """
        b, mr = self.b, self.shape.mr
        w = panel.weights + (segment.tap * self.rows + k * segment.count) * 4
        to = self.sums + (k - first) * self.row_bytes
        acc = [[b.var(b.vector()) for _ in range(nv)] for _ in range(mr)]
        with b.when(segment.tap > 0):
            for var, place in self.places(acc, to):
                var.set(b.load_vector(place))
        if unit is None:
            with b.loop(0, segment.count) as j:
                source = panel.matrix + b.load_i32(segment.offsets + j * 4)
                x = [b.load_vector(source + n * b.vector_bytes) for n in range(nv)]
                self.multiply(acc, x, w + j * (4 * mr))
        else:
            # whole channels
            channel = (panel.group * self.taps + segment.tap) // unit.shifts
            with b.loop(0, segment.count // unit.shifts) as c, b.loop(0, unit.shifts) as shift:
                j, tap = c * unit.shifts + shift, unit.tap(channel + c, shift)
                x = [unit.vector(tap, n) for n in range(nv)]
                to_matrix = panel.matrix + b.load_i32(segment.offsets + j * 4)
                for n, value in enumerate(x):
                    b.store(value, to_matrix + n * b.vector_bytes)
                self.multiply(acc, x, w + j * (4 * mr))
        with b.choose(segment.done) as (finish, keep):
            with finish:
                self.finish_tile(acc, panel, k)
            with keep:
                for var, place in self.places(acc, to):
                    b.store(var.get(), place)

    def multiply(self, acc: list[list[Var]], x: list[Expr], w: Expr) -> None:
        """Add a tap's products."""
        for m, row in enumerate(acc):
            weight = self.b.broadcast(w + m * 4)
            for n, var in enumerate(row):
                var.set(self.b.fma(weight, x[n], var.get()))

    def places(self, acc: list[list[Var]], to: Expr) -> list[tuple[Var, Expr]]:
        """Where each sum of a tile waits."""
        return [
            (var, to + (m * self.row_bytes + n * self.b.vector_bytes))
            for m, row in enumerate(acc)
            for n, var in enumerate(row)
        ]

    def finish_tile(self, acc: list[list[Var]], panel: Panel, k: Expr) -> None:
        """The sums of output channels from k on, straight to where they belong, which is side by side."""
        b = self.b
        for m, row in enumerate(acc):
            with b.when(k + m < b.arg(Multiply.CHANNELS)):
                channel = panel.group * b.arg(Multiply.CHANNELS) + k + m
                for n, var in enumerate(row):
                    y, plane = self.finished(var.get(), channel, panel.place + n * b.vector_bytes)
                    b.store(y, plane + panel.place + n * b.vector_bytes)

    def finish_run(self, sums: Expr, channel: Expr, run: Expr, end: Expr) -> None:
        """A run of pixels of an output channel."""
        b = self.b
        place, pixels, at = (b.load_i32(run + 4 * i) for i in range(3))
        with b.loop(0, pixels, b.lanes) as i:
            y, plane = self.finished(b.load_vector(sums + place + i * 4), channel, at + i * 4)
            store(b, y, plane, at + i * 4, pixels - i, end)

    def finished(self, sums: Expr, channel: Expr, at: Expr) -> tuple[Expr, Expr]:
        """Bias, residual and activation of the pixels `at` bytes from the start of a plane; the plane."""
        b = self.b
        y = sums + b.broadcast(b.pointer(Multiply.BIAS) + channel * 4)
        if self.shape.residual:
            residual = b.pointer(Multiply.RESIDUAL) + channel * b.arg(Multiply.RESIDUAL_PLANE)
            y = y + b.load_vector(residual + at)
        plane = b.pointer(Multiply.OUTPUT) + channel * b.arg(Multiply.OUTPUT_PLANE)
        return activate(b, y, self.shape.activation), plane
