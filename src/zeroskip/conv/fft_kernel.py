"""The kernels of convolution by Fourier transforms; `fft` says what they compute.

Vectors hold one number of each of LANES channels, so that a transform is straight-line code and a product is
one number of the input, broadcast, times a vector of filters. Complex vectors are pairs, real part first.

A *window* is TY rows and TX columns of the padded input. Along an axis on which the kernel has one cell
nothing is transformed: TY is 1; or TX is 1, and up to LANES columns of the window are *lines* of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, epilogue_tag
from zeroskip.conv.channel_vectors import Planes, Run, finish, load_pixels
from zeroskip.conv.spectra import Complex, inverse_real, transform, transform_real

TILE_WORDS = 6


@dataclass(frozen=True)
class Tiling:
    """Lengths of the transforms, what the kernel spans, its strides, the lanes of a vector, and lines."""

    ty: int
    tx: int
    spans: tuple[int, int]
    strides: tuple[int, int]
    lanes: int
    lines: int = 1

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of output pixels of a tile: of the valid results, every stride-th."""
        rows, columns = (
            (length - span) // stride + 1
            for length, span, stride in zip((self.ty, self.tx), self.spans, self.strides, strict=True)
        )
        return rows, columns if self.tx > 1 else self.lines

    @property
    def columns(self) -> int:
        """Columns of the spectrum: of real data, half."""
        return self.tx // 2 + 1

    @property
    def frequencies(self) -> int:
        """Complex numbers in a window's spectrum."""
        return self.ty * self.columns if self.tx > 1 else self.ty // 2 + 1

    @property
    def scratch(self) -> int:
        """Bytes for a window whose rows, or none, are transformed."""
        vectors = 2 * self.columns if self.tx > 1 else self.lines
        return 4 * self.lanes * self.ty * vectors

    @property
    def name(self) -> str:
        """What the inverse transform depends on, e.g. ``16x16_10x10_1x1``."""
        return "_".join(f"{a}x{b}" for a, b in ((self.ty, self.tx), self.outputs, self.strides))


class Read(IntEnum):
    """Argument slots of the input transform; a task is a tile and some blocks of LANES channels."""

    INPUT = 0
    PLANE = auto()  # bytes
    PITCH = auto()  # bytes
    HEIGHT = auto()
    WIDTH = auto()
    CHANNELS = auto()
    TILES = (
        auto()
    )  # int32[tiles][6]: window in a plane (bytes), its row and column, output (bytes), rows, columns
    FIRST = auto()  # the call's first tile
    PARTS = auto()  # tasks of a tile
    SHARE = auto()  # channels of a task
    SPECTRA = auto()  # complex[frequencies][C/LANES][lines of all tiles][LANES]
    FREQUENCY = auto()  # bytes from one frequency to the next
    BLOCK = auto()  # bytes from one block of channels to the next
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


class Multiply(IntEnum):
    """Argument slots of the products; a task is some frequencies."""

    SPECTRA = 0
    FREQUENCY = auto()
    BLOCK = auto()
    FREQUENCIES = auto()
    SHARE = auto()  # frequencies of a task
    LINES = auto()
    CHUNKS = auto()  # of NV vectors of output channels, in all
    GROUP_CHUNKS = auto()  # of a group of the convolution
    INPUTS = auto()  # input channels of a group
    WEIGHTS = auto()  # complex[FREQUENCIES][CHUNKS][INPUTS][NV][LANES]
    WEIGHT_FREQUENCY = auto()
    SUMS = auto()  # complex[frequencies][K/LANES][lines][LANES]
    SUM_FREQUENCY = auto()
    SUM_BLOCK = auto()


class Write(IntEnum):
    """Argument slots of the inverse transform; a task is a tile and some vectors of output channels."""

    SUMS = 0
    SUM_FREQUENCY = auto()
    SUM_BLOCK = auto()
    TILES = auto()
    FIRST = auto()
    PARTS = auto()
    SHARE = auto()  # vectors of a task
    VECTORS = auto()  # of output channels, in all
    GROUP_VECTORS = auto()  # of a group
    GROUP_OUTPUTS = auto()  # output channels of a group
    BIAS = auto()  # float32[VECTORS][LANES]
    OUTPUT = auto()
    OUTPUT_PLANE = auto()
    PITCH = auto()
    RESIDUAL = auto()
    RESIDUAL_PLANE = auto()
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


def _load(b: Builder, place: Expr) -> Complex:
    return b.load_vector(place), b.load_vector(place + b.vector_bytes)


def _store(b: Builder, value: Complex, place: Expr) -> None:
    for part, number in enumerate(value):
        b.store(number, place + part * b.vector_bytes)


def read_kernel(tiling: Tiling) -> Kernel:
    """The input transform."""
    lines = "" if tiling.tx > 1 else f"_{tiling.lines}_{tiling.strides[1]}"
    return Kernel(f"fft_read_{tiling.ty}x{tiling.tx}{lines}", lambda b: _emit_read(b, tiling))


def _emit_read(b: Builder, tiling: Tiling) -> None:
    parts = b.arg(Read.PARTS)
    tile = b.task // parts
    entry = b.pointer(Read.TILES) + (b.arg(Read.FIRST) + tile) * (4 * TILE_WORDS)
    origin, row, column = (b.load_i32(entry + 4 * i) for i in range(3))
    scratch = b.pointer(Read.SCRATCH) + b.thread * b.arg(Read.SCRATCH_STRIDE)
    first = b.task % parts * b.arg(Read.SHARE)
    last = b.minimum(first + b.arg(Read.SHARE), b.arg(Read.CHANNELS))
    to = b.pointer(Read.SPECTRA) + tile * (tiling.lines * 2 * b.vector_bytes)
    with b.loop(first, last, b.lanes) as channel:
        window = b.pointer(Read.INPUT) + origin
        with b.loop(0, tiling.ty) as i:
            place = scratch + i * (tiling.scratch // tiling.ty)
            y = row + i
            with b.choose((y >= 0) & (y < b.arg(Read.HEIGHT))) as (inside, outside):
                with inside:
                    _read_row(b, tiling, window + i * b.arg(Read.PITCH), channel, column, place)
                with outside, b.loop(0, tiling.scratch // tiling.ty, b.vector_bytes) as byte:
                    b.store(b.vector(), place + byte)
        _read_columns(b, tiling, scratch, to + channel // b.lanes * b.arg(Read.BLOCK))


def _read_row(b: Builder, tiling: Tiling, row: Expr, channel: Expr, column: Expr, to: Expr) -> None:
    """A row's pixels, those outside of the image as zeros; their spectrum where rows are transformed."""
    pixels: list[Expr] = []
    for start in range(0, tiling.tx if tiling.tx > 1 else b.lanes, b.lanes):
        inside = b.lanes_between(b.int(0) - column - start, b.arg(Read.WIDTH) - column - start)
        source = row + 4 * start
        pixels += load_pixels(b, source, b.arg(Read.PLANE), channel, b.arg(Read.CHANNELS), inside)
    if tiling.tx == 1:
        for line in range(tiling.lines):
            b.store(pixels[line * tiling.strides[1]], to + line * b.vector_bytes)
        return
    for i, value in enumerate(transform_real(b, pixels[: tiling.tx])):
        _store(b, value, to + i * 2 * b.vector_bytes)


def _read_columns(b: Builder, tiling: Tiling, scratch: Expr, to: Expr) -> None:
    """Transforms of the columns, each frequency to its place."""
    frequency = b.arg(Read.FREQUENCY)
    step = tiling.scratch // tiling.ty
    if tiling.tx == 1:
        with b.loop(0, tiling.lines) as line:
            column = scratch + line * b.vector_bytes
            pixels = [b.load_vector(column + i * step) for i in range(tiling.ty)]
            for k, value in enumerate(transform_real(b, pixels)):
                _store(b, value, to + frequency * k + line * (2 * b.vector_bytes))
        return
    with b.loop(0, tiling.columns) as column:
        at = scratch + column * (2 * b.vector_bytes)
        values = transform(b, [_load(b, at + i * step) for i in range(tiling.ty)])
        for k, value in enumerate(values):
            _store(b, value, to + frequency * (column + k * tiling.columns))


@dataclass(frozen=True)
class Product:
    """The products' register tile: MR lines by NV vectors of output channels."""

    mr: int
    nv: int

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        return Kernel(f"fft_multiply_{self.mr}x{self.nv}", lambda b: _emit_multiply(b, self))


def _emit_multiply(b: Builder, shape: Product) -> None:
    chunk_bytes = shape.nv * 2 * b.vector_bytes
    inputs, block = b.arg(Multiply.INPUTS), b.arg(Multiply.SUM_BLOCK)
    first = b.task * b.arg(Multiply.SHARE)
    with b.loop(first, b.minimum(first + b.arg(Multiply.SHARE), b.arg(Multiply.FREQUENCIES))) as f:
        x = b.pointer(Multiply.SPECTRA) + f * b.arg(Multiply.FREQUENCY)
        sums = b.pointer(Multiply.SUMS) + f * b.arg(Multiply.SUM_FREQUENCY)
        weights = b.pointer(Multiply.WEIGHTS) + f * b.arg(Multiply.WEIGHT_FREQUENCY)
        with b.loop(0, b.arg(Multiply.CHUNKS)) as chunk:
            w = weights + chunk * inputs * chunk_bytes
            channel = chunk // b.arg(Multiply.GROUP_CHUNKS) * inputs
            with b.loop(0, b.arg(Multiply.LINES), shape.mr) as line:
                at = line * (2 * b.vector_bytes)
                to = sums + chunk * shape.nv * block + at
                _multiply_tile(b, shape, x + at, w, channel, to)


def _multiply_tile(b: Builder, shape: Product, x: Expr, w: Expr, channel: Expr, to: Expr) -> None:
    """MR lines by NV vectors, summed over the input channels from `channel`."""
    mr, nv, line = shape.mr, shape.nv, 2 * b.vector_bytes
    acc = [[(b.var(b.vector()), b.var(b.vector())) for _ in range(nv)] for _ in range(mr)]
    with b.loop(0, b.arg(Multiply.INPUTS)) as c:
        number = channel + c
        source = x + number // b.lanes * b.arg(Multiply.BLOCK) + number % b.lanes * 4
        filters = [_load(b, w + (c * nv + n) * line) for n in range(nv)]
        for m, row in enumerate(acc):
            re, im = (b.broadcast(source + m * line + part * b.vector_bytes) for part in (0, 1))
            for (wr, wi), (yr, yi) in zip(filters, row, strict=True):
                yr.set(b.fma(re, wr, yr.get()))
                yi.set(b.fma(re, wi, yi.get()))
                yr.set(b.fma(b.like(-0.0, im) - im, wi, yr.get()))
                yi.set(b.fma(im, wr, yi.get()))
    for m, row in enumerate(acc):
        for n, (yr, yi) in enumerate(row):
            _store(b, (yr.get(), yi.get()), to + b.arg(Multiply.SUM_BLOCK) * n + m * line)


@dataclass(frozen=True)
class Inverse:
    """The inverse transform and what is fused."""

    tiling: Tiling
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        flags = epilogue_tag(self.activation, self.residual)
        return Kernel(f"fft_write_{self.tiling.name}{flags}", lambda b: _emit_write(b, self))


def _emit_write(b: Builder, shape: Inverse) -> None:
    tiling, parts = shape.tiling, b.arg(Write.PARTS)
    tile = b.task // parts
    entry = b.pointer(Write.TILES) + (b.arg(Write.FIRST) + tile) * (4 * TILE_WORDS)
    place, rows, columns = (b.load_i32(entry + 4 * i) for i in range(3, 6))
    scratch = b.pointer(Write.SCRATCH) + b.thread * b.arg(Write.SCRATCH_STRIDE)
    first = b.task % parts * b.arg(Write.SHARE)
    last = b.minimum(first + b.arg(Write.SHARE), b.arg(Write.VECTORS))
    sums = b.pointer(Write.SUMS) + tile * (tiling.lines * 2 * b.vector_bytes)
    per_group = b.arg(Write.GROUP_VECTORS)
    with b.loop(first, last) as vector:
        group = vector // per_group
        skipped = group * b.arg(Write.GROUP_OUTPUTS)
        planes = Planes(
            b.pointer(Write.OUTPUT) + skipped * b.arg(Write.OUTPUT_PLANE),
            b.arg(Write.OUTPUT_PLANE),
            b.pointer(Write.RESIDUAL) + skipped * b.arg(Write.RESIDUAL_PLANE) if shape.residual else None,
            b.arg(Write.RESIDUAL_PLANE),
            b.arg(Write.GROUP_OUTPUTS),
            shape.activation,
        )
        _write_columns(b, tiling, sums + vector * b.arg(Write.SUM_BLOCK), scratch)
        bias = b.load_vector(b.pointer(Write.BIAS) + vector * b.vector_bytes)
        k = (vector - group * per_group) * b.lanes
        with b.loop(0, b.minimum(b.int(tiling.outputs[0]), rows)) as i:
            at = scratch + i * (tiling.scratch // tiling.ty)
            pixels = [value + bias for value in _write_row(b, tiling, at)]
            _finish_row(b, planes, pixels, k, place + i * b.arg(Write.PITCH), columns)


def _write_columns(b: Builder, tiling: Tiling, sums: Expr, scratch: Expr) -> None:
    """Inverse transforms of the columns; only the rows that are output pixels are kept."""
    frequency, step = b.arg(Write.SUM_FREQUENCY), tiling.scratch // tiling.ty
    rows = range(tiling.outputs[0])
    if tiling.tx == 1:
        with b.loop(0, tiling.lines) as line:
            at = sums + line * (2 * b.vector_bytes)
            spectrum = [_load(b, at + frequency * k) for k in range(tiling.frequencies)]
            pixels = inverse_real(b, spectrum, tiling.ty)
            for i in rows:
                b.store(pixels[i * tiling.strides[0]], scratch + line * b.vector_bytes + i * step)
        return
    with b.loop(0, tiling.columns) as column:
        spectrum = [_load(b, sums + frequency * (column + k * tiling.columns)) for k in range(tiling.ty)]
        values = transform(b, spectrum, 1)
        for i in rows:
            _store(b, values[i * tiling.strides[0]], scratch + column * (2 * b.vector_bytes) + i * step)


def _write_row(b: Builder, tiling: Tiling, row: Expr) -> list[Expr]:
    """The output pixels of a row."""
    if tiling.tx == 1:
        return [b.load_vector(row + line * b.vector_bytes) for line in range(tiling.lines)]
    spectrum = [_load(b, row + k * 2 * b.vector_bytes) for k in range(tiling.columns)]
    values = inverse_real(b, spectrum, tiling.tx)
    return [values[i * tiling.strides[1]] for i in range(tiling.outputs[1])]


def _finish_row(b: Builder, planes: Planes, pixels: Sequence[Expr], k: Expr, place: Expr, left: Expr) -> None:
    for start in range(0, len(pixels), b.lanes):
        part = list(pixels[start : start + b.lanes])
        there = b.minimum(left - start, len(part))
        part += [b.vector()] * (b.lanes - len(part))
        with b.when(there > 0):
            finish(b, planes, part, k, [Run(place + 4 * start, b.lanes_below(there))])
