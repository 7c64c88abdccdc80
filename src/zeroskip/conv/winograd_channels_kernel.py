"""The kernels of Winograd convolution with channels in the vector: see `winograd_channels`.

Tiles are done by *rows* of them, and some rows that follow each other as a block. Between the kernels lie,
for each of the alpha^2 products, vectors of LANES input channels: one for each tile of the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from math import gcd

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, epilogue_tag
from zeroskip.codegen.layout import odd_lines
from zeroskip.conv.channel_vectors import Planes, Run, finish, load_pixels
from zeroskip.conv.toom_cook import Transforms
from zeroskip.conv.winograd_transforms import transform_input, transform_output
from zeroskip.conv.winograd_variant import Variant

AHEAD = 8192  # bytes of weights that are asked for


class Read(IntEnum):
    """Argument slots of the input transform; a task is a row of tiles and a run of vectors of channels."""

    INPUT = 0
    PLANE = auto()  # bytes from one input plane to the next
    CHANNELS = auto()
    VECTORS = auto()  # of channels
    PARTS = auto()  # tasks that share them
    SHARE = auto()
    SOURCES = auto()  # int32[rows of tiles][alpha]: bytes from pixel (0, 0) to the first pixel of each row
    WIDTH = auto()  # columns of these rows that may be read
    FIRST = auto()  # the block's first row of tiles
    ACROSS = auto()  # tiles of a row
    TILES = auto()  # of the block
    TRANSFORMED = auto()  # float32[alpha^2][VECTORS][TILES][LANES]
    PRODUCT_BYTES = auto()  # from one of the alpha^2 to the next
    PIXELS = auto()  # of a row in scratch, a vector for each; those from WIDTH on are zero
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


class Multiply(IntEnum):
    """Argument slots of products and inverse transform; a task is a run of chunks of output channels."""

    TRANSFORMED = 0
    PRODUCT_BYTES = auto()
    TILES = auto()  # of the block
    PANELS = auto()  # of tiles, of which the first WIDE have MR, the others one less
    WIDE = auto()
    CHANNELS = auto()  # of the input
    WEIGHTS = auto()  # float32[chunks][alpha^2][CHANNELS][NV][LANES]
    BIAS = auto()  # float32[chunks][NV][LANES]
    CHUNKS = auto()
    SHARE = auto()
    K = auto()
    FIRST = auto()  # the block's first row of tiles
    ROWS = auto()  # of tiles in the block
    ACROSS = auto()
    PLACES = auto()  # int32[rows of tiles][2]: bytes to the first output pixel; rows of pixels that exist
    Q = auto()
    OUTPUT = auto()
    OUTPUT_PLANE = auto()  # bytes, as the next one
    PITCH = auto()
    RIGHT = auto()  # zeros right of a row to be written with its pixels: a number of floats
    RESIDUAL = auto()
    RESIDUAL_PLANE = auto()
    SUMS_BYTES = auto()  # of scratch for the sums of a block
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


def read_kernel(variant: Variant) -> Kernel:
    """The input transform of a variant; all of equal m and r share it."""
    matrices = variant.matrices
    return Kernel(f"winograd_{variant.m}_{variant.r}_read_channels", lambda b: _emit_read(b, matrices))


def read_scratch(variant: Variant, pixels: int, lanes: int) -> int:
    """Bytes of scratch memory of the input transform, with rows of so many `pixels`."""
    return 4 * lanes * (variant.alpha * pixels + variant.products)


def _emit_read(b: Builder, matrices: Transforms) -> None:
    alpha, parts, share = len(matrices.BT), b.arg(Read.PARTS), b.arg(Read.SHARE)
    m = len(matrices.AT)
    row, part = b.task // parts, b.task % parts
    last = b.minimum((part + 1) * share, b.arg(Read.VECTORS))
    pixels = b.pointer(Read.SCRATCH) + b.thread * b.arg(Read.SCRATCH_STRIDE)
    line, across = b.arg(Read.PIXELS) * b.vector_bytes, b.arg(Read.ACROSS)
    offsets = b.pointer(Read.SOURCES) + (b.arg(Read.FIRST) + row) * (4 * alpha)
    to = b.pointer(Read.TRANSFORMED) + row * across * b.vector_bytes
    with b.loop(part * share, last) as vector:
        with b.loop(0, alpha) as i:
            source = b.pointer(Read.INPUT) + b.load_i32(offsets + i * 4)
            _read_line(b, source, vector, pixels + i * line)
        with b.loop(0, across) as tile:
            at = pixels + tile * (m * b.vector_bytes)
            place = to + (vector * b.arg(Read.TILES) + tile) * b.vector_bytes
            _transform_tile(b, matrices, at, line, pixels + line * alpha, place)


def _read_line(b: Builder, source: Expr, vector: Expr, to: Expr) -> None:
    """A row of pixels, each a vector of channels; what lies right of the padded row is zero."""
    channels, width = b.arg(Read.CHANNELS), b.arg(Read.WIDTH)
    with b.loop(0, b.arg(Read.PIXELS), b.lanes) as column:
        there = b.lanes_below(width - column)
        plane = b.arg(Read.PLANE)
        for i, pixel in enumerate(
            load_pixels(b, source + column * 4, plane, vector * b.lanes, channels, there)
        ):
            b.store(pixel, to + (column + i) * b.vector_bytes)


def _transform_tile(b: Builder, matrices: Transforms, at: Expr, line: Expr, scratch: Expr, to: Expr) -> None:
    """B^T d B of the tile whose first pixel is `at`: down its columns, then across."""
    alpha = len(matrices.BT)
    for j in range(alpha):
        d = [b.load_vector(at + (line * i + j * b.vector_bytes)) for i in range(alpha)]
        for i, value in enumerate(transform_input(b, matrices, d)):
            b.store(value, scratch + (i * alpha + j) * b.vector_bytes)
    for i in range(alpha):
        d = [b.load_vector(scratch + (i * alpha + j) * b.vector_bytes) for j in range(alpha)]
        for j, value in enumerate(transform_input(b, matrices, d)):
            b.store(value, to + b.arg(Read.PRODUCT_BYTES) * (i * alpha + j))


@dataclass(frozen=True)
class Multiplication:
    """The second kernel: products on register tiles of MR tiles x NV vectors of output channels."""

    variant: Variant
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        v, flags = self.variant, epilogue_tag(self.activation, self.residual)
        name = f"winograd_{v.m}_{v.r}_channels_{v.mr}x{v.nv}{flags}"
        return Kernel(name, lambda b: _Multiply(b, self).emit())

    def together(self, lanes: int) -> int:
        """Tiles that are transformed back together: their pixels fill vectors."""
        return lanes // gcd(self.variant.m, lanes)

    def unit(self, lanes: int) -> int:
        """Bytes of scratch for the sums of a tile and vector."""
        return odd_lines(4 * lanes * self.variant.products)

    def transform_bytes(self, lanes: int) -> int:
        """Bytes of scratch for the inverse transform: a tile's, and the pixels of those done together."""
        m = self.variant.m
        return 4 * lanes * m * (self.variant.alpha + m * self.together(lanes))


class _Multiply:
    def __init__(self, b: Builder, shape: Multiplication) -> None:
        self.b, self.shape, self.variant = b, shape, shape.variant
        self.chunk_bytes = self.variant.nv * b.vector_bytes
        self.tiles, self.channels = b.arg(Multiply.TILES), b.arg(Multiply.CHANNELS)
        self.unit = shape.unit(b.lanes)
        self.sums = b.pointer(Multiply.SCRATCH) + b.thread * b.arg(Multiply.SCRATCH_STRIDE)
        self.halves = self.sums + b.arg(Multiply.SUMS_BYTES)
        self.pixels = self.halves + self.variant.m * self.variant.alpha * b.vector_bytes

    def emit(self) -> None:
        """Chunk by chunk: its products with all tiles of the block, then their pixels."""
        b, share = self.b, self.b.arg(Multiply.SHARE)
        first = b.task * share
        with b.loop(first, b.minimum(first + share, b.arg(Multiply.CHUNKS))) as chunk:
            with b.loop(0, self.variant.products) as e:
                self.product(chunk, e)
            with b.loop(0, b.arg(Multiply.ROWS)) as row, b.loop(0, self.variant.nv) as v:
                self.finish(chunk, row, v)

    def product(self, chunk: Expr, e: Expr) -> None:
        """One of the alpha^2 sums over the input channels, panel by panel of tiles."""
        b, mr = self.b, self.variant.mr
        weights = (
            b.pointer(Multiply.WEIGHTS)
            + (chunk * self.variant.products + e) * self.channels * self.chunk_bytes
        )
        data = b.pointer(Multiply.TRANSFORMED) + e * b.arg(Multiply.PRODUCT_BYTES)
        sums, wide = self.sums + e * b.vector_bytes, b.arg(Multiply.WIDE)
        with b.loop(0, wide) as panel:
            self.panel(data, weights, sums, panel * mr, mr)
        if mr > 1:
            with b.loop(wide, b.arg(Multiply.PANELS)) as panel:
                self.panel(data, weights, sums, wide * mr + (panel - wide) * (mr - 1), mr - 1)

    def panel(self, data: Expr, weights: Expr, sums: Expr, tile: Expr, mr: int) -> None:
        """The sums of `mr` tiles: a vector of input channels of each at a time."""
        b, nv = self.b, self.variant.nv
        acc = [[b.var(b.vector()) for _ in range(nv)] for _ in range(mr)]
        factors, source = b.var(weights), b.var(data + tile * b.vector_bytes)
        with b.loop(0, self.channels, b.lanes) as c:
            x = source.get()
            with b.loop(0, b.minimum(self.channels - c, b.int(b.lanes))) as lane:
                at = factors.get()
                for v in range(nv):
                    b.prefetch(at + v * b.vector_bytes + AHEAD)
                w = [b.load_vector(at + v * b.vector_bytes) for v in range(nv)]
                for t, row in enumerate(acc):
                    number = b.broadcast(x + lane * 4 + t * b.vector_bytes)
                    for vector, var in zip(w, row, strict=True):
                        var.set(b.fma(number, vector, var.get()))
                factors.set(at + self.chunk_bytes)
            source.set(x + self.tiles * b.vector_bytes)
        for t, row in enumerate(acc):
            for v, var in enumerate(row):
                b.store(var.get(), sums + ((tile + t) * nv + v) * self.unit)

    def finish(self, chunk: Expr, row: Expr, v: Expr) -> None:
        """A row of tiles of LANES output channels: transform back some tiles, write their pixels."""
        b, shape = self.b, self.shape
        together, across = shape.together(b.lanes), b.arg(Multiply.ACROSS)
        number = chunk * self.variant.nv + v
        bias = b.load_vector(b.pointer(Multiply.BIAS) + number * b.vector_bytes)
        sums = self.sums + (row * across * self.variant.nv + v) * self.unit
        with b.loop(0, across, together) as first:
            with b.loop(first, b.minimum(first + together, across)) as tile:
                to = self.pixels + (tile - first) * (self.variant.m * b.vector_bytes)
                self.transform_tile(sums + tile * (self.variant.nv * self.unit), bias, to)
            self.write(number * b.lanes, row, first * self.variant.m)

    def transform_tile(self, sums: Expr, bias: Expr, to: Expr) -> None:
        """A^T (sums) A and the bias, into the pixels from `to` on."""
        b, m, alpha = self.b, self.variant.m, self.variant.alpha
        width = m * self.shape.together(b.lanes)
        for j in range(alpha):
            z = [b.load_vector(sums + (i * alpha + j) * b.vector_bytes) for i in range(alpha)]
            for i, value in enumerate(transform_output(b, self.variant.matrices, z)):
                b.store(value, self.halves + (i * alpha + j) * b.vector_bytes)
        for i in range(m):
            z = [b.load_vector(self.halves + (i * alpha + j) * b.vector_bytes) for j in range(alpha)]
            for j, value in enumerate(transform_output(b, self.variant.matrices, z)):
                b.store(value + bias, to + (i * width + j) * b.vector_bytes)

    def write(self, k: Expr, row: Expr, start: Expr) -> None:
        """The pixels of some tiles, from column `start` on, into the planes from `k` on."""
        b, shape, Q = self.b, self.shape, self.b.arg(Multiply.Q)
        width = self.variant.m * shape.together(b.lanes)
        planes = Planes(
            b.pointer(Multiply.OUTPUT),
            b.arg(Multiply.OUTPUT_PLANE),
            b.pointer(Multiply.RESIDUAL) if shape.residual else None,
            b.arg(Multiply.RESIDUAL_PLANE),
            b.arg(Multiply.K),
            shape.activation,
        )
        entry = b.pointer(Multiply.PLACES) + (b.arg(Multiply.FIRST) + row) * 8
        corner, rows = b.load_i32(entry), b.minimum(b.load_i32(entry + 4), b.int(self.variant.m))
        with b.loop(0, b.minimum(b.int(width), Q - start), b.lanes) as column:
            x = start + column
            left = Q - x
            there = b.minimum(left, b.int(b.lanes))
            written = b.select(left > b.lanes, there, there + b.arg(Multiply.RIGHT))
            masks = b.lanes_below(there), b.lanes_below(written)
            with b.loop(0, rows) as i:
                at = self.pixels + (i * width + column) * b.vector_bytes
                columns = [b.load_vector(at + lane * b.vector_bytes) for lane in range(b.lanes)]
                place = corner + i * b.arg(Multiply.PITCH) + x * 4
                finish(b, planes, columns, k, [Run(place, *masks)])
