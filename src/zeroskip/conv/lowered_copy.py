"""Lowering's copy: pixels of planes, or of a plain array, into the lowered matrix, a vector at a time.

A vector is LANES neighbours of a tap's row of the matrix. Most hold pixels of one row of the input; where
rows end, *pieces* of several are loaded under masks and merged in one register. Masks also leave out what is
padding: nothing outside of a plain array is read. The tables are made once and serve all channels. (Masked
loads of all vectors took 1.1 ms more of 8.8 ms for 64x112x112: those that miss the first cache are slow.)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Any

import numpy as np

from zeroskip.codegen import Address, Argument, Builder, Call, Expr, Kernel, Layout, Operand, Planar, Var
from zeroskip.codegen.layout import round_up
from zeroskip.conv.problem import Array, ConvProblem
from zeroskip.ops.planes import view


class Copy(IntEnum):
    """Argument slots; distances in bytes."""

    INPUT = 0
    PLANE = auto()
    CHANNELS = auto()
    # int32[][2]: of a channel's taps, from a pixel to what it reads; of its pieces, in PIECES
    SHIFTS = auto()
    SHIFT_COUNT = auto()
    # int32[units][5]: start in the matrix, from a tap to the next, first vector, vectors, pixels
    UNITS = auto()
    # by vector: int32, is the first one all of it; of each int32 from a plane's start to what would be lane
    # 0's pixel, and a mask for each load
    PIECES = auto()
    MATRIX = auto()
    PARTS = auto()  # tasks of a unit
    SHARE = auto()  # channels per task


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of pixels within rows of the padded input, by unit; `place` is their first pixel's in the unit."""

    image: Array
    row: Array
    column: Array
    pixels: Array
    place: Array


@dataclass(frozen=True, eq=False)
class Units:
    """Parts of the matrix that are copied channel by channel, in each the taps one after the other.

    `start` bytes in the matrix, `step` bytes from tap to tap, `pixels` of each tap, the `first` of `runs`
    (and where the last unit's end). `rows` and `columns` are the shifts of a channel's taps, row by row.
    """

    start: Array
    step: Array
    pixels: Array
    first: Array
    runs: Runs
    rows: Array
    columns: Array


@dataclass(frozen=True)
class Shape:
    """The copying kernel: the column stride, and of how many pieces a vector is made."""

    stride: int
    pieces: int

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        return Kernel(f"lower{self.tag}", lambda b: _emit(b, self))

    @property
    def tag(self) -> str:
        """The shape as a part of a kernel's name."""
        return f"_{self.stride}_{self.pieces}"

    @property
    def loads(self) -> int:
        """Vectors of the input that a vector of pixels is shuffled from; 1 where it is gathered."""
        return self.stride if self.stride in (1, 2, 4) else 1

    def mask(self, lanes: int) -> np.dtype[Any]:
        """A mask in memory."""
        return np.dtype(np.uint16 if lanes == 16 else np.uint8)

    def entry(self, lanes: int) -> np.dtype[np.void]:
        """A vector in `Copy.PIECES`."""
        return np.dtype([("whole", np.int32), ("pieces", self.piece(lanes), (self.pieces,))])

    def piece(self, lanes: int) -> np.dtype[np.void]:
        """A piece of a vector."""
        mask = self.mask(lanes)
        size = round_up(4 + self.loads * mask.itemsize, 4)
        formats = [np.dtype(np.int32), np.dtype((mask, self.loads))]
        return np.dtype({"names": ["at", "masks"], "formats": formats, "offsets": [0, 4], "itemsize": size})


def copy(
    problem: ConvProblem, units: Units, x: Operand, to: Address, parts: int, share: int, lanes: int
) -> tuple[Shape, Call]:
    """The copy; `share` channels of a unit in each of its `parts`."""
    vectors = -(-units.pixels // lanes)
    first = np.cumsum(vectors) - vectors
    shape, pieces, shifts = _pieces(problem, units, x.layout, first, lanes)
    values: dict[Copy, Argument] = {
        Copy.INPUT: x.address,
        Copy.PLANE: view(x.layout).plane,
        Copy.CHANNELS: problem.C,
        Copy.SHIFTS: shifts,
        Copy.SHIFT_COUNT: len(shifts),
        Copy.UNITS: np.stack([units.start, units.step, first, vectors, units.pixels], axis=1).astype(
            np.int32
        ),
        Copy.PIECES: pieces,
        Copy.MATRIX: to,
        Copy.PARTS: parts,
        Copy.SHARE: share,
    }
    arguments = tuple(values[slot] for slot in Copy)
    return shape, Call(shape.kernel(), arguments, len(units.start) * parts)


def _pieces(
    problem: ConvProblem, units: Units, x: Layout, first: Array, lanes: int
) -> tuple[Shape, Array, Array]:
    """The kernel's shape, `Copy.PIECES`, for each shift if they differ, and `Copy.SHIFTS`."""
    runs, lines, stride = units.runs, view(x), problem.strides[1]
    top, left = problem.pads[:2]
    # cut runs where vectors end
    last = (runs.place + runs.pixels - 1) // lanes
    counts = last - runs.place // lanes + 1
    run = np.repeat(np.arange(len(counts)), counts)
    vector = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts) + (runs.place // lanes)[run]
    begin = (
        runs.place[run] - vector * lanes
    )  # the lane of the run's first pixel, which may be in an earlier vector
    low, high = np.maximum(begin, 0), np.minimum(begin + runs.pixels[run], lanes)
    row, column = runs.row[run], runs.column[run] - begin * stride  # of lane 0
    at = runs.image[run] * lines.image + (row - top) * lines.pitch + 4 * (column - left)
    vector += np.repeat(first, np.diff(units.first))[run]
    slot = np.arange(len(run)) - np.searchsorted(vector, vector)
    dy, dx = (axis.reshape(-1, 1) for axis in np.meshgrid(units.rows, units.columns, indexing="ij"))
    padded = not isinstance(x, Planar) and any(problem.pads)
    row, column = row - top + dy, column - left + dx
    if padded:
        low = np.maximum(low, -(column // stride))
        high = np.where(
            (row >= 0) & (row < problem.H), np.minimum(high, -((column - problem.W) // stride)), 0
        )
    # nothing outside of a plain array is read
    whole = (low == 0) & (high == lanes) & (isinstance(x, Planar) | (column + lanes * stride <= problem.W))
    shape = Shape(stride, int(slot.max()) + 1)
    vectors = first[-1] - (-units.pixels[-1] // lanes)
    table = np.zeros((len(dy) if padded else 1, vectors), shape.entry(lanes))
    if not padded:
        whole = whole.all(axis=0)
    pieces = table["pieces"]
    pieces["at"][:, vector, slot] = at
    pieces["masks"][:, vector, slot] = _masks(low, high, shape.loads, lanes)
    table["whole"][:, vector] = whole
    shifts = np.concatenate(
        [dy * lines.pitch + 4 * dx, np.arange(len(dy))[:, None] * table[0].nbytes * padded], axis=1
    )
    return shape, table, shifts.astype(np.int32)


def _masks(low: Array, high: Array, loads: int, lanes: int) -> Array:
    """The masks of what lanes `low` to `high` are loaded from."""
    low, high = np.atleast_2d(low) * loads, (np.atleast_2d(high) - 1) * loads + 1
    one = np.uint64(1)
    bits = np.where(high > low, (one << high.clip(0).astype(np.uint64)) - (one << low.astype(np.uint64)), 0)
    shifted = bits[..., None] >> (np.arange(loads, dtype=np.uint64) * np.uint64(lanes))
    return np.asarray(shifted & np.uint64(2**lanes - 1))


def _emit(b: Builder, shape: Shape) -> None:
    """A task copies some channels of a unit."""
    first = b.task % b.arg(Copy.PARTS) * b.arg(Copy.SHARE)
    last = b.minimum(first + b.arg(Copy.SHARE), b.arg(Copy.CHANNELS))
    Unit(b, shape, b.task // b.arg(Copy.PARTS)).copy(first, last)


class Unit:
    """A unit in a kernel whose arguments for the copy begin at `slots`."""

    def __init__(self, b: Builder, shape: Shape, number: Expr, slots: int = 0) -> None:
        self.b, self.shape, self.slots = b, shape, slots
        entry = b.pointer(slots + Copy.UNITS) + number * 20
        self.start, self.step, first, self.vectors, self.pixels = (
            b.load_i32(entry + 4 * i) for i in range(5)
        )
        self.shifts = b.arg(slots + Copy.SHIFT_COUNT)
        self.vector_size = shape.entry(b.lanes).itemsize
        self.table = b.pointer(slots + Copy.PIECES) + first * self.vector_size

    def tap(self, channel: Expr, shift: Expr) -> tuple[Expr, Expr]:
        """Where a tap reads, and the pieces of its first vector."""
        b, slots = self.b, self.slots
        entry = b.pointer(slots + Copy.SHIFTS) + shift * 8
        plane = b.pointer(slots + Copy.INPUT) + channel * b.arg(slots + Copy.PLANE)
        return plane + b.load_i32(entry), self.table + b.load_i32(entry + 4)

    def vector(self, tap: tuple[Expr, Expr], number: Expr | int) -> Expr:
        """A vector of pixels of a tap."""
        source, pieces = tap
        return _assemble(self.b, self.shape, source, pieces + number * self.vector_size)

    def copy(self, first: Expr, last: Expr) -> None:
        """Copy channels `first` to `last`, in the order of the matrix."""
        b = self.b
        matrix = b.pointer(self.slots + Copy.MATRIX) + self.start
        whole, end = self.pixels // b.lanes, last * self.shifts * self.step
        with b.loop(first, last) as channel, b.loop(0, self.shifts) as shift:
            tap, to = self.tap(channel, shift), (channel * self.shifts + shift) * self.step
            with b.loop(0, whole) as v:
                b.store(self.vector(tap, v), matrix + to + v * b.vector_bytes)
            with b.when(whole < self.vectors):
                value, left = self.vector(tap, whole), self.pixels - whole * b.lanes
                store(b, value, matrix, to + whole * b.vector_bytes, left, end)


def _assemble(b: Builder, shape: Shape, source: Expr, entry: Expr) -> Expr:
    """A vector of pixels: pieces are loaded over each other, then pixels picked from what lies between."""
    pixels = b.var(b.vector())
    # which are whole is the same for most taps of a panel, so the processor guesses right
    with b.choose(b.load_i32(entry) > 0) as (whole, cut):
        with whole:
            pixels.set(b.load_strided(source + b.load_i32(entry + 4), shape.stride))
        with cut:
            raw = [b.var(b.vector()) for _ in range(shape.loads)]
            for i in range(shape.pieces):
                _load(b, shape, source, entry + (4 + i * shape.piece(b.lanes).itemsize), raw)
            values = [var.get() for var in raw]
            while len(values) > 1:
                pairs = zip(values[::2], values[1::2], strict=True)
                values = [b.shuffle(low, high, range(0, 2 * b.lanes, 2)) for low, high in pairs]
            pixels.set(values[0])
    return pixels.get()


def _load(b: Builder, shape: Shape, source: Expr, piece: Expr, raw: list[Var]) -> None:
    place = source + b.load_i32(piece)
    for i, var in enumerate(raw):
        mask = b.mask_bits(piece + (4 + i * shape.mask(b.lanes).itemsize))
        if shape.loads == shape.stride:
            value = b.load_masked(place + i * b.vector_bytes, mask)
        else:
            value = b.load_strided(place, shape.stride, mask)
        var.set(b.select(mask, value, var.get()))


def store(b: Builder, value: Expr, base: Expr, at: Expr, left: Expr, end: Expr) -> None:
    """Write `left` floats or more: what comes after them, up to `end`, is written later by the same task."""
    with b.choose((left >= b.lanes) | (at + b.vector_bytes <= end)) as (whole, tail):
        with whole:
            b.store(value, base + at)
        with tail:
            b.store_masked(value, base + at, b.lanes_below(left))
