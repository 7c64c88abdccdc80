"""The product of `activation_sparse`: non-zero activations times the weights of all taps that meet them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from functools import reduce
from operator import or_

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, tag
from zeroskip.codegen.expr import Var
from zeroskip.codegen.layout import LINE
from zeroskip.conv.channel_vectors import Planes, finish
from zeroskip.conv.nonzero_masks import WORD


class Multiply(IntEnum):
    """Argument slots; a task is a chunk of output channels and some rows of an image."""

    INPUT = 0  # column 0 of the padded map in row 0 of the map
    INPUT_PLANE = auto()  # bytes, as the next two
    INPUT_IMAGE = auto()
    INPUT_PITCH = auto()
    MASKS = auto()  # see `nonzero_masks`
    HEIGHT = auto()
    WIDTH = auto()
    GROUPS = auto()
    CHANNELS = auto()  # of a group
    BLOCK = auto()
    BLOCKS = auto()
    PLACES = auto()  # int64[ROWS][BLOCK]: bytes from a block's first pixel to those of its channels and rows
    NOTHING = auto()  # uint32[WIDTH]: the mask of a row outside the map
    KERNEL_HEIGHT = auto()
    BANDS = auto()  # of ROWS kernel rows
    ROW_STRIDE = auto()
    ROW_DILATION = auto()
    TOP = auto()
    WALKS = auto()  # int32[][len(Walk)]
    WALK_COUNT = auto()
    COLUMN_STEP = auto()  # of a walk, in columns of the input
    PIXEL_STEP = auto()  # and in pixels of the output
    P = auto()
    Q = auto()
    SLOTS = auto()  # of sums per row: Q, and before them those of pixels left of the first
    TILE = auto()  # output rows of a task
    TILES = auto()  # of an image
    TASKS = auto()  # of a chunk
    CHUNKS = auto()  # of a group
    WEIGHTS = auto()  # float32[GROUPS][chunks][BLOCKS][BANDS] of each walk's [ROWS][BLOCK][T][KV][LANES]
    WEIGHT_BYTES = auto()  # of a block and a band
    BIAS = auto()  # float32[GROUPS][chunks][KV][LANES]
    FILTERS = auto()  # output channels of a group
    OUTPUT = auto()
    OUTPUT_PLANE = auto()
    PITCH = auto()
    IMAGE = auto()
    RESIDUAL = auto()
    RESIDUAL_PLANE = auto()
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


class Walk(IntEnum):
    """A walk over columns that are met by the same taps; positions are bytes."""

    COLUMN = 0  # in a row of the map
    STEPS = auto()
    SUM = auto()  # where the sums of its first column's first tap stand
    WEIGHTS = auto()
    TAPS = auto()


@dataclass(frozen=True)
class Product:
    """The kernel: KV vectors of output channels, the numbers of taps that walks have, what is fused.

    `rows` are the kernel rows of a band, `words` those of a pixel's mask; `ahead` are the cache lines of the
    next weights to ask for at each step.
    """

    kv: int
    taps: tuple[int, ...]
    rows: int
    words: int
    ahead: int
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        flags = ("_residual" if self.residual else "") + tag(self.activation)
        taps = "_".join(map(str, self.taps))
        name = f"activation_sparse_{self.kv}x{taps}_{self.rows}_{self.words}_{self.ahead}{flags}"
        return Kernel(name, lambda b: _Multiply(b, self).emit())


class _Multiply:
    def __init__(self, b: Builder, shape: Product) -> None:
        self.b, self.shape = b, shape
        self.vector = shape.kv * b.vector_bytes  # bytes of a pixel's sums
        tasks, tiles = b.arg(Multiply.TASKS), b.arg(Multiply.TILES)
        self.chunk, rest = b.task // tasks, b.task % tasks
        self.group = self.chunk // b.arg(Multiply.CHUNKS)
        self.image = rest // tiles
        self.first = rest % tiles * b.arg(Multiply.TILE)
        self.last = b.minimum(self.first + b.arg(Multiply.TILE), b.arg(Multiply.P))
        self.row_bytes = b.arg(Multiply.SLOTS) * self.vector
        self.sums = b.pointer(Multiply.SCRATCH) + b.thread * b.arg(Multiply.SCRATCH_STRIDE)

    def emit(self) -> None:
        """A block of channels and a band of kernel rows at a time: their weights stay in the first cache."""
        b = self.b
        with b.loop(0, (self.last - self.first + 1) * self.row_bytes, b.vector_bytes) as byte:
            b.store(b.vector(), self.sums + byte)
        blocks, bands = b.arg(Multiply.BLOCKS), b.arg(Multiply.BANDS)
        with b.loop(0, blocks) as block, b.loop(0, bands) as band:
            number = (self.chunk * blocks + block) * bands + band
            weights = b.pointer(Multiply.WEIGHTS) + number * b.arg(Multiply.WEIGHT_BYTES)
            with b.loop(self.first, self.last) as row:
                self.row(weights, block, band * self.shape.rows, row)
        across = b.loop(0, b.arg(Multiply.Q), b.lanes)
        with b.loop(self.first, self.last) as row, across as column, b.loop(0, self.shape.kv) as v:
            self.flush(row, column, v)

    def row(self, weights: Expr, block: Expr, band: Expr, row: Expr) -> None:
        """A row of sums, and the lines of the map that kernel rows from `band` meet."""
        b = self.b
        sums = self.sums + (row - self.first) * self.row_bytes
        channel = self.group * b.arg(Multiply.CHANNELS) + block * b.arg(Multiply.BLOCK)
        line = row * b.arg(Multiply.ROW_STRIDE) + band * b.arg(Multiply.ROW_DILATION) - b.arg(Multiply.TOP)
        pixels = b.pointer(Multiply.INPUT) + self.image * b.arg(Multiply.INPUT_IMAGE)
        pixels = pixels + channel * b.arg(Multiply.INPUT_PLANE) + line * b.arg(Multiply.INPUT_PITCH)
        plane = (self.image * b.arg(Multiply.GROUPS) + self.group) * b.arg(Multiply.BLOCKS) + block
        lines = [line + b.arg(Multiply.ROW_DILATION) * r for r in range(self.shape.rows)]
        inside = [self.inside(there, band + r) for r, there in enumerate(lines)]
        masks = [
            self.masks(plane * self.shape.words + word, *there)
            for there in zip(lines, inside, strict=True)
            for word in range(self.shape.words)
        ]
        # the next block's or band's, a share of them for each row of the tile
        share = (row - self.first) * b.arg(Multiply.Q) * self.shape.ahead * LINE
        following = weights + b.arg(Multiply.WEIGHT_BYTES) + share
        # rows of padding alone are passed over: many, where dilations are large
        some = reduce(or_, inside)
        with b.loop(0, b.select(some, b.arg(Multiply.WALK_COUNT), 0)) as number:
            entry = b.pointer(Multiply.WALKS) + number * 4 * len(Walk)
            column, steps, at, first, there = (b.load_i32(entry + 4 * field) for field in Walk)
            starts = [mask + column for mask in masks]
            for taps in self.shape.taps:
                with b.when(there.equals(taps)):
                    self.walk(taps, steps, pixels + column, starts, weights + first, sums + at, following)

    def inside(self, line: Expr, r: Expr) -> Expr:
        """Whether kernel row `r` exists, and the line that it meets."""
        b = self.b
        return (line >= 0) & (line < b.arg(Multiply.HEIGHT)) & (r < b.arg(Multiply.KERNEL_HEIGHT))

    def masks(self, plane: Expr, line: Expr, inside: Expr) -> Expr:
        """Where the masks of a line are."""
        b = self.b
        words = (plane * b.arg(Multiply.HEIGHT) + line) * b.arg(Multiply.WIDTH)
        return b.select(inside, b.pointer(Multiply.MASKS) + words * 4, b.pointer(Multiply.NOTHING))

    def walk(
        self,
        taps: int,
        steps: Expr,
        pixels: Expr,
        masks: list[Expr],
        weights: Expr,
        sums: Expr,
        following: Expr,
    ) -> None:
        """The sums of the `taps` pixels that a column meets stay in registers, and move on with it."""
        b, places, ahead = self.b, range(0, self.vector, self.b.vector_bytes), self.shape.ahead
        acc = [[b.var(b.vector()) for _ in places] for _ in range(taps)]
        slot = b.arg(Multiply.PIXEL_STEP) * self.vector
        with b.loop(0, steps) as step:
            to = sums + step * slot
            for var, at in zip(acc[0], places, strict=True):
                var.set(b.load_vector(to + at))
            column = step * b.arg(Multiply.COLUMN_STEP) * 4
            for line in range(ahead):
                b.prefetch(following + (step * ahead + line) * LINE, near=False)
            self.column(pixels + column, self.mask([mask + column for mask in masks]), weights, acc)
            last = to + slot * (1 - taps)
            for var, at in zip(acc[-1], places, strict=True):
                b.store(var.get(), last + at)
            for tap in range(taps - 1, 0, -1):
                for var, before in zip(acc[tap], acc[tap - 1], strict=True):
                    var.set(before.get())

    def mask(self, masks: list[Expr]) -> Expr:
        """Which of a column's pixels in the band are not zero, as bits: row by row, channel by channel."""
        b, words = self.b, self.shape.words
        bits = b.load_i32(masks[0]) & 0xFFFFFFFF
        for number, mask in enumerate(masks[1:], 1):
            place = b.arg(Multiply.BLOCK) * (number // words) + WORD * (number % words)
            bits = bits | ((b.load_i32(mask) & 0xFFFFFFFF) << place)
        return bits

    def column(self, pixels: Expr, mask: Expr, weights: Expr, acc: list[list[Var]]) -> None:
        """The non-zero pixels of one column, tap by tap."""
        b = self.b
        with b.bits(mask) as number:
            plane = number * b.arg(Multiply.INPUT_PLANE)
            place = plane if self.shape.rows == 1 else b.load_i64(b.pointer(Multiply.PLACES) + number * 8)
            x = b.broadcast(pixels + place)
            w = weights + number * len(acc) * self.vector
            for tap, sums in enumerate(acc):
                for v, var in enumerate(sums):
                    at = tap * self.vector + v * b.vector_bytes
                    var.set(b.fma(x, b.load_vector(w + at), var.get()))

    def flush(self, row: Expr, column: Expr, v: Expr) -> None:
        """LANES pixels of LANES output channels; sums of pixels past the row's end are not stored."""
        b = self.b
        inside = ((self.chunk % b.arg(Multiply.CHUNKS)) * self.shape.kv + v) * b.lanes
        bias = b.load_vector(b.pointer(Multiply.BIAS) + (self.chunk * self.vector + v * b.vector_bytes))
        slot = b.arg(Multiply.SLOTS) - b.arg(Multiply.Q) + column
        at = self.sums + (row - self.first) * self.row_bytes + slot * self.vector + v * b.vector_bytes
        pixels = [b.load_vector(at + i * self.vector) + bias for i in range(b.lanes)]
        first, filters = self.group * b.arg(Multiply.FILTERS), b.arg(Multiply.FILTERS)
        planes = Planes(
            b.pointer(Multiply.OUTPUT),
            b.arg(Multiply.OUTPUT_PLANE),
            b.pointer(Multiply.RESIDUAL) if self.shape.residual else None,
            b.arg(Multiply.RESIDUAL_PLANE),
            first + filters,
            self.shape.activation,
        )
        place = self.image * b.arg(Multiply.IMAGE) + row * b.arg(Multiply.PITCH) + column * 4
        finish(b, planes, pixels, first + inside, place, b.lanes_below(b.arg(Multiply.Q) - column))
