"""The product of `activation_sparse`: non-zero activations times the weights of all taps that meet them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from functools import reduce
from itertools import product
from operator import and_

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, epilogue_tag
from zeroskip.codegen.expr import Var
from zeroskip.codegen.layout import LINE
from zeroskip.conv.channel_vectors import Planes, Run, finish


class Multiply(IntEnum):
    """Argument slots; a task is a chunk of output channels and some rows of an image."""

    INPUT = 0  # column 0 of the padded map in row 0 of the map
    INPUT_PLANE = auto()  # bytes, as the next two
    INPUT_IMAGE = auto()
    INPUT_PITCH = auto()
    MASKS = auto()  # see `nonzero_masks`
    HEIGHT = auto()
    MASK_WIDTH = auto()
    GROUPS = auto()
    CHANNELS = auto()  # of a group
    BLOCK = auto()
    BLOCKS = auto()
    PER_ROW = auto()  # 2**16 / BLOCK, rounded up
    TO_ROW = auto()  # bytes from past a block's last channel to its first one in the next kernel row
    KERNEL_HEIGHT = auto()
    BANDS = auto()  # of ROWS kernel rows
    ROW_STRIDE = auto()
    ROW_DILATION = auto()
    TOP = auto()
    WALKS = auto()  # int32[][len(Walk)]
    WALK_COUNT = auto()
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
    """A walk over columns that are met by the same taps; what follows the columns is in bytes."""

    COLUMN = 0  # of the padded map
    STEPS = auto()
    SUM = auto()  # where the sums of its first column's first tap stand
    WEIGHTS = auto()
    TAPS = auto()


@dataclass(frozen=True)
class Product:
    """The kernel: KV vectors of output channels, how walks go, what is fused.

    A walk has one of the numbers of `taps`; it takes `columns` in a step, which are `apart` columns of the
    map and pixels of the output from each other. `rows` are the kernel rows of a band; `ahead` are the cache
    lines of the next weights to ask for at each step.
    """

    kv: int
    columns: int
    apart: tuple[int, int]
    taps: tuple[int, ...]
    rows: int
    ahead: int
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        flags = epilogue_tag(self.activation, self.residual)
        taps = "_".join(map(str, self.taps))
        walk = f"{self.kv}x{self.columns}x{taps}_{self.apart[0]}_{self.apart[1]}"
        name = f"activation_sparse_{walk}_{self.rows}_{self.ahead}{flags}"
        return Kernel(name, lambda b: _Multiply(b, self).emit())


@dataclass(frozen=True)
class Column:
    """A column of a step: where it is not zero, where it lies, the sums of the pixels that each tap meets."""

    mask: Expr
    pixels: Expr
    sums: list[list[Var]]


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
        self.bias = b.pointer(Multiply.BIAS) + self.chunk * self.vector
        self.sums = b.pointer(Multiply.SCRATCH) + b.thread * b.arg(Multiply.SCRATCH_STRIDE)

    def emit(self) -> None:
        """A block of channels and a band of kernel rows at a time: their weights stay in the first cache."""
        b = self.b
        blocks, bands = b.arg(Multiply.BLOCKS), b.arg(Multiply.BANDS)
        with b.loop(0, blocks) as block, b.loop(0, bands) as band:
            number = (self.chunk * blocks + block) * bands + band
            weights = b.pointer(Multiply.WEIGHTS) + number * b.arg(Multiply.WEIGHT_BYTES)
            with b.loop(self.first, self.last) as row:
                self.row(weights, block, band, row)
        across = b.loop(0, b.arg(Multiply.Q), b.lanes)
        with b.loop(self.first, self.last) as row, across as column, b.loop(0, self.shape.kv) as v:
            self.flush(row, column, v)

    def row(self, weights: Expr, block: Expr, band: Expr, row: Expr) -> None:
        """A row of sums, and the lines of the map that kernel rows from `band` meet."""
        b = self.b
        sums = self.sums + (row - self.first) * self.row_bytes
        channel = self.group * b.arg(Multiply.CHANNELS) + block * b.arg(Multiply.BLOCK)
        line = row * b.arg(Multiply.ROW_STRIDE) + band * self.shape.rows * b.arg(Multiply.ROW_DILATION)
        line = line - b.arg(Multiply.TOP)
        pixels = b.pointer(Multiply.INPUT) + self.image * b.arg(Multiply.INPUT_IMAGE)
        pixels = pixels + channel * b.arg(Multiply.INPUT_PLANE) + line * b.arg(Multiply.INPUT_PITCH)
        plane = (self.image * b.arg(Multiply.GROUPS) + self.group) * b.arg(Multiply.BLOCKS) + block
        plane = plane * b.arg(Multiply.BANDS) + band
        masks = (plane * b.arg(Multiply.P) + row) * b.arg(Multiply.MASK_WIDTH)
        masks = b.pointer(Multiply.MASKS) + masks * 8
        # the next block's or band's, a share of them for each row of the tile
        share = (row - self.first) * b.arg(Multiply.Q) * self.shape.ahead * LINE
        following = weights + b.arg(Multiply.WEIGHT_BYTES) + share
        begins = (block + band).equals(0)
        # rows of padding alone are passed over: many, where dilations are large
        end = line + b.arg(Multiply.ROW_DILATION) * (self.shape.rows - 1)
        some = begins | ((end >= 0) & (line < b.arg(Multiply.HEIGHT)))
        with b.loop(0, b.select(some, b.arg(Multiply.WALK_COUNT), 0)) as number:
            entry = b.pointer(Multiply.WALKS) + number * 4 * len(Walk)
            column, steps, at, first, there = (b.load_i32(entry + 4 * field) for field in Walk)
            new = begins & first.equals(0)
            for taps in self.shape.taps:
                with b.when(there.equals(taps)):
                    self.walk(
                        taps,
                        steps,
                        pixels + column * 4,
                        masks + column * 8,
                        weights + first,
                        sums + at,
                        new,
                        following,
                    )

    def walk(
        self,
        taps: int,
        steps: Expr,
        pixels: Expr,
        masks: Expr,
        weights: Expr,
        sums: Expr,
        new: Expr,
        following: Expr,
    ) -> None:
        """The sums of the pixels that a step's columns meet stay in registers, and move on with them."""
        b, ahead, columns = self.b, self.shape.ahead, self.shape.columns
        places = range(0, self.vector, b.vector_bytes)
        column, slot = self.shape.apart[0], self.shape.apart[1] * self.vector
        # pixels from right to left: those that the last column begins are first
        acc = [[b.var(b.vector()) for _ in places] for _ in range(taps + columns - 1)]
        start, move = b.select(new, self.bias, sums), b.select(new, b.int(0), slot)
        distances = b.arg(Multiply.INPUT_PLANE), b.arg(Multiply.PER_ROW), b.arg(Multiply.TO_ROW)
        # Masks are loaded a step ahead: the end of a loop over bits is guessed wrong as a rule, and what
        # follows would then wait for all that its mask leads to (3-4 % of a layer).
        found = [b.var(b.load_i64(masks + i * 8 * column)) for i in range(columns)]
        with b.loop(0, steps, columns) as step:
            present = [mask.get() for mask in found]
            for i, mask in enumerate(found):
                mask.set(b.pinned(b.load_i64(masks + (step + columns + i) * (8 * column))))
            for i in range(columns):
                for var, at in zip(acc[columns - 1 - i], places, strict=True):
                    var.set(b.load_vector(start + (step + i) * move + at))
            for line in range(ahead):
                b.prefetch(following + (step // columns * ahead + line) * LINE, near=False)
            met = [
                Column(mask, pixels + (step + i) * (4 * column), acc[columns - 1 - i :][:taps])
                for i, mask in enumerate(present)
            ]
            for chosen in product((True, False), repeat=columns):
                if any(chosen):
                    self.entries(met, chosen, weights, distances)
            for i in range(columns):
                for var, at in zip(acc[taps - 1 + columns - 1 - i], places, strict=True):
                    b.store(var.get(), sums + ((step + i + 1 - taps) * slot + at))
            for tap in range(taps - 2, -1, -1):
                for var, before in zip(acc[tap + columns], acc[tap], strict=True):
                    var.set(before.get())

    def entries(
        self, met: list[Column], chosen: tuple[bool, ...], weights: Expr, distances: tuple[Expr, ...]
    ) -> None:
        """Channels and kernel rows that are not zero in the chosen columns alone: a weight is loaded once."""
        b = self.b
        plane, per_row, to_row = distances
        sharing = [column for column, member in zip(met, chosen, strict=True) if member]
        masks = [
            column.mask if member else b.int(-1) - column.mask
            for column, member in zip(met, chosen, strict=True)
        ]
        with b.bits(reduce(and_, masks)) as number:
            place = number * plane
            if self.shape.rows > 1:
                place = place + ((number * per_row) >> 16) * to_row
            xs = [b.broadcast(column.pixels + place) for column in sharing]
            taps = len(met[0].sums)
            w = weights + number * taps * self.vector
            for tap, v in product(range(taps), range(self.shape.kv)):
                weight = b.load_vector(w + (tap * self.vector + v * b.vector_bytes))
                for x, column in zip(xs, sharing, strict=True):
                    column.sums[tap][v].set(b.fma(x, weight, column.sums[tap][v].get()))

    def flush(self, row: Expr, column: Expr, v: Expr) -> None:
        """LANES pixels of LANES output channels; sums of pixels past the row's end are not stored."""
        b = self.b
        inside = ((self.chunk % b.arg(Multiply.CHUNKS)) * self.shape.kv + v) * b.lanes
        slot = b.arg(Multiply.SLOTS) - b.arg(Multiply.Q) + column
        at = self.sums + (row - self.first) * self.row_bytes + slot * self.vector + v * b.vector_bytes
        pixels = [b.load_vector(at + i * self.vector) for i in range(b.lanes)]
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
        finish(b, planes, pixels, first + inside, [Run(place, b.lanes_below(b.arg(Multiply.Q) - column))])
