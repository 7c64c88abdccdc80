"""The kernels of Winograd convolution; `winograd` says what they compute.

Vectors hold one number of each of LANES tiles. A vector of tiles is made of G *groups* of J tiles that follow
each other in a row of pixels, G*J = LANES, so that a group's pixels are a few loads, and a transposition of G
vectors gives, or takes, one pixel of every tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, activate, epilogue_tag
from zeroskip.codegen.layout import odd_lines
from zeroskip.conv.toom_cook import Filtering
from zeroskip.conv.transpose import transpose
from zeroskip.conv.winograd_transforms import transform_input, transform_output

# Asked for ahead of time: pixels by planes (VGG-16's 64 channels of 224x224: 7.5 ms, now 5.0) and weights by
# bytes (its 512 channels of 14x14: 2.2 ms, now 1.35).
PLANES_AHEAD = 1
WEIGHTS_AHEAD = 6144


@dataclass(frozen=True)
class Tiling(Filtering):
    """F(m x m, r x r) on vectors of some length: how tiles fill a vector."""

    lanes: int

    @property
    def name(self) -> str:
        """E.g. ``winograd_4_3``."""
        return f"winograd_{self.m}_{self.r}"

    @property
    def per_group(self) -> int:
        """J: tiles of a group; their pixels must fit a vector."""
        return max(1, self.lanes >> (self.m - 1).bit_length())

    @property
    def groups(self) -> int:
        """G: groups of a vector."""
        return self.lanes // self.per_group


class Read(IntEnum):
    """Argument slots of the input transform."""

    INPUT = 0
    PLANE = auto()  # bytes from one input plane to the next
    CHANNELS = auto()
    ROWS = auto()  # int32[vectors][G][alpha]: bytes from a plane's pixel (0, 0) to the rows of a group
    WIDTHS = auto()  # int32[vectors][G]: columns of these rows that may be read
    BLOCKS = auto()  # int32[blocks+1]: numbers of vectors
    FIRST = auto()  # the call's first block
    TOGETHER = auto()  # blocks of the call; tasks are its blocks for each run of channels
    SHARE = auto()  # channels per task
    TRANSFORMED = auto()  # float32[blocks of the call][alpha^2][CHANNELS][nv][LANES]
    BLOCK_BYTES = auto()  # of it
    PRODUCT_BYTES = auto()  # from one of the alpha^2 to the next
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


class Multiply(IntEnum):
    """Argument slots of the products and the inverse transform."""

    TRANSFORMED = 0
    BLOCK_BYTES = auto()
    PRODUCT_BYTES = auto()
    BLOCKS = auto()
    FIRST = auto()
    CHANNELS = auto()  # of the input
    SEGMENT = auto()  # input channels at a time
    WEIGHTS = auto()  # float32[alpha^2][segments][K/MR][channels of the segment][MR]
    WEIGHT_BYTES = auto()  # from one of the alpha^2 to the next
    PADDED = auto()  # K rounded up to MR
    K = auto()
    TOGETHER = auto()  # as in `Read`: threads write different planes
    SHARE = auto()  # output channels per task, a multiple of CHUNK
    CHUNK = auto()  # output channels at a time, a multiple of MR
    BIAS = auto()
    PLACES = auto()  # int32[vectors][G][3]: bytes to the group's first output pixel; rows, columns that exist
    OUTPUT = auto()
    OUTPUT_PLANE = auto()
    PITCH = auto()  # bytes
    RESIDUAL = auto()
    RESIDUAL_PLANE = auto()
    ROW_BYTES = auto()  # of scratch for an output channel
    SUMS_BYTES = auto()  # of scratch for all channels of a chunk
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


def read_kernel(tiling: Tiling, nv: int) -> Kernel:
    """The input transform, for blocks of up to `nv` vectors of tiles."""
    return Kernel(f"{tiling.name}_read_{nv}", lambda b: _emit_read(b, tiling, nv))


def read_scratch(tiling: Tiling) -> int:
    """Bytes of scratch memory per thread that `read_kernel` needs."""
    return tiling.alpha * tiling.groups * _chunks(tiling.alpha, tiling) * tiling.lanes * 4


def _chunks(columns: int, tiling: Tiling) -> int:
    """Vectors that hold `columns` numbers of each tile of a group."""
    return -(-columns // tiling.groups)


def _emit_read(b: Builder, tiling: Tiling, nv: int) -> None:
    """A task transforms the tiles of a block for a run of input channels."""
    together = b.arg(Read.TOGETHER)
    block, run = b.task % together, b.task // together
    first = run * b.arg(Read.SHARE)
    last = b.minimum(first + b.arg(Read.SHARE), b.arg(Read.CHANNELS))
    bounds = b.pointer(Read.BLOCKS) + (b.arg(Read.FIRST) + block) * 4
    start, stop = b.load_i32(bounds), b.load_i32(bounds + 4)
    to = b.pointer(Read.TRANSFORMED) + block * b.arg(Read.BLOCK_BYTES)
    scratch = b.pointer(Read.SCRATCH) + b.thread * b.arg(Read.SCRATCH_STRIDE)
    chunks = _chunks(tiling.alpha, tiling)
    ahead = b.arg(Read.PLANE) * PLANES_AHEAD
    with b.loop(start, stop) as vector:
        group = vector * tiling.groups
        rows = b.pointer(Read.ROWS) + group * (4 * tiling.alpha)
        widths = [b.load_i32(b.pointer(Read.WIDTHS) + (group + g) * 4) for g in range(tiling.groups)]
        masks = [[b.lanes_below(width - q * tiling.groups) for q in range(chunks)] for width in widths]
        with b.loop(first, last) as channel:
            plane = b.pointer(Read.INPUT) + channel * b.arg(Read.PLANE)
            _read_down(b, tiling, plane, ahead, rows, masks, scratch)
            _read_across(b, tiling, scratch, to + (channel * nv + vector - start) * b.vector_bytes)


def _read_down(
    b: Builder, tiling: Tiling, plane: Expr, ahead: Expr, rows: Expr, masks: list[list[Expr]], scratch: Expr
) -> None:
    """B^T over the rows of each group's pixels; its row j goes to the j-th part of scratch."""
    width = tiling.groups * len(masks[0])
    for g in range(tiling.groups):
        starts = [plane + b.load_i32(rows + (g * tiling.alpha + a) * 4) for a in range(tiling.alpha)]
        for at in starts:
            b.prefetch(at + ahead)
        for q, mask in enumerate(masks[g]):
            # what lies right of the padded row are other pixels, or anything
            d = [b.select(mask, b.load_vector(at + 4 * q * tiling.groups), 0.0) for at in starts]
            for j, value in enumerate(transform_input(b, tiling.matrices, d)):
                b.store(value, scratch + (j * width + q * tiling.groups + g) * b.vector_bytes)


def _read_across(b: Builder, tiling: Tiling, scratch: Expr, to: Expr) -> None:
    """Tiles to lanes, then B^T over the columns: one vector for each of the alpha^2 products."""
    groups, inner = tiling.groups, tiling.per_group
    chunks = _chunks(tiling.alpha, tiling)
    step = b.arg(Read.PRODUCT_BYTES)
    for j in range(tiling.alpha):
        columns: list[Expr] = []
        for q in range(chunks):
            at = scratch + (j * groups * chunks + q * groups) * b.vector_bytes
            sources = [b.load_vector(at + g * b.vector_bytes) for g in range(groups)]
            columns += transpose(b, sources, inner, lambda t, c: tiling.m * t + c, lambda g, t: g * inner + t)
        for i, value in enumerate(transform_input(b, tiling.matrices, columns[: tiling.alpha])):
            b.store(value, to + step * (j * tiling.alpha + i))


@dataclass(frozen=True)
class Multiplication:
    """The second kernel: products of transforms on register tiles of MR x NV, then the inverse transform."""

    tiling: Tiling
    mr: int
    nv: int
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        flags = epilogue_tag(self.activation, self.residual)
        name = f"{self.tiling.name}_multiply_{self.mr}x{self.nv}{flags}"
        return Kernel(name, lambda b: _Multiply(b, self).emit())

    def row_bytes(self) -> int:
        """Bytes of scratch for the sums of a channel."""
        return odd_lines(self.tiling.products * self.nv * self.tiling.lanes * 4)

    def transform_bytes(self) -> int:
        """Bytes of scratch for the inverse transform of a vector of tiles."""
        return self.tiling.m * self.tiling.alpha * self.tiling.lanes * 4


class _Multiply:
    def __init__(self, b: Builder, shape: Multiplication) -> None:
        self.b, self.shape, self.tiling = b, shape, shape.tiling
        self.channels, self.padded = b.arg(Multiply.CHANNELS), b.arg(Multiply.PADDED)
        self.segment = b.arg(Multiply.SEGMENT)
        self.row = b.arg(Multiply.ROW_BYTES)
        self.sums = b.pointer(Multiply.SCRATCH) + b.thread * b.arg(Multiply.SCRATCH_STRIDE)
        self.transformed = self.sums + b.arg(Multiply.SUMS_BYTES)

    def emit(self) -> None:
        """A task is a block of tiles and a run of output channels, a chunk of them after the other."""
        b, nv = self.b, self.shape.nv
        together, chunk = b.arg(Multiply.TOGETHER), b.arg(Multiply.CHUNK)
        block, run = b.task % together, b.task // together
        bounds = b.pointer(Multiply.BLOCKS) + (b.arg(Multiply.FIRST) + block) * 4
        start, stop = b.load_i32(bounds), b.load_i32(bounds + 4)
        data = b.pointer(Multiply.TRANSFORMED) + block * b.arg(Multiply.BLOCK_BYTES)
        first = run * b.arg(Multiply.SHARE)
        last = b.minimum(first + b.arg(Multiply.SHARE), self.padded)
        with b.loop(first, last, chunk) as k:
            end = b.minimum(k + chunk, last)
            if nv > 1:
                with b.choose((stop - start).equals(nv)) as (wide, narrow):
                    with wide:
                        self.products(data, k, end, nv)
                    with narrow:
                        self.products(data, k, end, nv - 1)
            else:
                self.products(data, k, end, nv)
            with b.loop(k, b.minimum(end, b.arg(Multiply.K))) as channel, b.loop(start, stop) as vector:
                self.finish(vector, vector - start, channel, k)

    def products(self, data: Expr, first: Expr, last: Expr, nv: int) -> None:
        """Sums over the input channels, for each product and the output channels from `first`."""
        b, mr = self.b, self.shape.mr
        vector = self.shape.nv * b.vector_bytes
        with b.loop(0, self.tiling.products) as e:
            u = data + e * b.arg(Multiply.PRODUCT_BYTES)
            v = b.pointer(Multiply.WEIGHTS) + e * b.arg(Multiply.WEIGHT_BYTES)
            with b.loop(0, self.channels, self.segment) as c:
                count = b.minimum(self.segment, self.channels - c)
                with b.loop(first, last, mr) as k:
                    to = self.sums + (k - first) * self.row + e * vector
                    self.tile(u + c * vector, v + (c * self.padded + k * count) * 4, count, c, to, nv)

    def tile(self, u: Expr, v: Expr, count: Expr, c: Expr, to: Expr, nv: int) -> None:
        """A register tile: sums so far, or zeros, plus `count` channels."""
        b, mr = self.b, self.shape.mr
        acc = [[b.var(b.vector()) for _ in range(nv)] for _ in range(mr)]
        with b.when(c > 0):
            for m, row in enumerate(acc):
                for n, var in enumerate(row):
                    var.set(b.load_vector(to + self.row * m + n * b.vector_bytes))
        with b.loop(0, count) as j:
            x = [b.load_vector(u + (j * self.shape.nv + n) * b.vector_bytes) for n in range(nv)]
            b.prefetch(v + j * (4 * mr) + WEIGHTS_AHEAD)
            for m, row in enumerate(acc):
                w = b.broadcast(v + (j * mr + m) * 4)
                for n, var in enumerate(row):
                    var.set(b.fma(w, x[n], var.get()))
        for m, row in enumerate(acc):
            for n, var in enumerate(row):
                b.store(var.get(), to + self.row * m + n * b.vector_bytes)

    def finish(self, vector: Expr, slot: Expr, k: Expr, first: Expr) -> None:
        """The inverse transform of a vector of tiles; `first` is the chunk's first channel."""
        b, groups = self.b, self.tiling.groups
        places = b.pointer(Multiply.PLACES) + vector * (12 * groups)
        self.finish_down(self.sums + (k - first) * self.row + slot * b.vector_bytes)
        self.finish_across(places, k)

    def finish_down(self, sums: Expr) -> None:
        """A^T over the rows."""
        b, alpha = self.b, self.tiling.alpha
        step = self.shape.nv * b.vector_bytes
        for i in range(alpha):
            z = [b.load_vector(sums + (j * alpha + i) * step) for j in range(alpha)]
            for row, value in enumerate(transform_output(b, self.tiling.matrices, z)):
                b.store(value, self.transformed + (row * alpha + i) * b.vector_bytes)

    def finish_across(self, places: Expr, k: Expr) -> None:
        """A^T over the columns, bias, tiles to pixels, and the epilogue row by row."""
        b, tiling = self.b, self.tiling
        bias = b.broadcast(b.pointer(Multiply.BIAS) + k * 4)
        groups, inner, pitch = tiling.groups, tiling.per_group, b.arg(Multiply.PITCH)
        offsets, rows, columns = (
            [b.load_i32(places + 12 * g + 4 * n) for g in range(groups)] for n in range(3)
        )
        wide = [min(tiling.m - q, groups) for q in range(0, tiling.m, groups)]
        widths = [(inner - 1) * tiling.m + pixels for pixels in wide]
        there = [[b.minimum(end - q * groups, width) for end in columns] for q, width in enumerate(widths)]
        masks = [[b.lanes_below(count) for count in counts] for counts in there]
        ahead = b.pointer(Multiply.OUTPUT) + (k + PLANES_AHEAD) * b.arg(Multiply.OUTPUT_PLANE)
        for i in range(tiling.m):
            for offset in offsets:
                b.prefetch(ahead + pitch * i + offset)
            at = self.transformed + i * tiling.alpha * b.vector_bytes
            z = [b.load_vector(at + j * b.vector_bytes) for j in range(tiling.alpha)]
            sums: list[Expr | None] = [y + bias for y in transform_output(b, tiling.matrices, z)]
            for q, (pixels, width) in enumerate(zip(wide, widths, strict=True)):
                part = sums[q * groups : (q + 1) * groups]
                part += [None] * (groups - len(part))

                def pixel(column: int, tile: int, pixels: int = pixels) -> int:
                    return tiling.m * tile + column if column < pixels else -1

                values = transpose(b, part, inner, lambda t, g: g * inner + t, pixel)
                for g, value in enumerate(values):
                    row = pitch * i + (offsets[g] + 4 * q * groups)
                    with b.when(rows[g] > i):
                        self.store_group(k, row, value, there[q][g], masks[q][g], width)

    def store_group(self, k: Expr, at: Expr, value: Expr, there: Expr, mask: Expr, width: int) -> None:
        """A group's row of up to `width` pixels: those of the mask, or all where so many are `there`."""
        b = self.b
        if width < b.lanes:
            self.store_row(k, at, value, mask)
            return
        with b.choose(there >= b.lanes) as (whole, edge):
            with whole:
                self.store_row(k, at, value, None)
            with edge:
                self.store_row(k, at, value, mask)

    def store_row(self, k: Expr, at: Expr, value: Expr, mask: Expr | None) -> None:
        """Residual, activation and store of the pixels at `at` of plane k: a vector, or those of the mask."""
        b = self.b
        place = b.pointer(Multiply.OUTPUT) + k * b.arg(Multiply.OUTPUT_PLANE) + at
        if self.shape.residual:
            residual = b.pointer(Multiply.RESIDUAL) + k * b.arg(Multiply.RESIDUAL_PLANE) + at
            value = value + b.load_strided(residual, 1, mask)
        y = activate(b, value, self.shape.activation)
        if mask is None:
            b.store(y, place)
        else:
            b.store_masked(y, place, mask)
