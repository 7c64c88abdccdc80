"""The kernels of fully connected layers: see `gemm`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from functools import reduce
from itertools import chain, product
from operator import add, or_

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, activate, tag
from zeroskip.codegen.expr import Var
from zeroskip.codegen.layout import LINE

LATENCY = 8
"""Independent multiply-adds that keep the units busy: 4 cycles times 2 units."""
AHEAD = 8
"""Rows of weights asked for ahead where zeros are passed over. (Half of 100 million in memory: 6.5 ms,
7.8 without, 9.2 in rows of 8 vectors instead of 16 to 24; 11 for all of them.)"""
FULL = 15
"""Sixteenths of the rows from which on all are read in order: the processor does better alone, by 8 %."""


class Arg(IntEnum):
    """The argument slots of both kernels."""

    INPUT = 0
    OUTPUT = auto()
    BIAS = auto()  # float32[blocks of neurons, filled up]
    VALUES = auto()
    INPUTS = auto()  # C
    OUTPUTS = auto()  # K
    IMAGE_BLOCKS = auto()  # of which the first WIDE have `images` images, the others one less
    WIDE = auto()
    BLOCKS = auto()  # dense: blocks of neurons
    BLOCKS_PER_TASK = auto()
    SCRATCH = auto()  # int32[C + AHEAD]: inputs that are not zero; or float32[N][kb]: sums between chunks
    SCRATCH_STRIDE = auto()  # bytes of scratch per thread
    CHUNK = auto()  # inputs
    BOUNDS = auto()  # sparse: int32[tasks + 1], slice numbers
    STARTS = auto()  # int32[slices + 1]: of each slice the first vector of values
    INDICES = auto()  # uint16 or int32[...][lanes]: input numbers
    ORDER = auto()  # int32[slices * lanes]: output numbers


@dataclass(frozen=True)
class Shape:
    """What a kernel's code depends on: images and vectors in registers, or the width of the input numbers.

    Where all images are in registers at once, inputs that are not zero are `listed`, and dense weights of
    others are not read. Otherwise a block's weights, if they are many, are read in chunks of inputs.
    """

    images: int
    vectors: int
    index_bits: int
    listed: bool
    chunked: bool
    activation: Activation | None

    @property
    def name(self) -> str:
        """E.g. ``gemm_1x21_listed_relu``."""
        body = (
            f"slices_{self.images}_i{self.index_bits}" if self.index_bits else f"{self.images}x{self.vectors}"
        )
        how = "_listed" if self.listed else "_chunked" if self.chunked else ""
        return f"gemm_{body}{how}{tag(self.activation)}"

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        emitter = _Sparse if self.index_bits else _Dense
        return Kernel(self.name, lambda b: emitter(b, self).emit())


class _Common:
    def __init__(self, b: Builder, shape: Shape) -> None:
        self.b, self.shape = b, shape
        self.inputs, self.outputs = b.arg(Arg.INPUTS), b.arg(Arg.OUTPUTS)
        self.input, self.output = b.pointer(Arg.INPUT), b.pointer(Arg.OUTPUT)

    def for_images(self, block: Expr) -> None:
        """A block of neurons for all images."""
        b, images = self.b, self.shape.images
        blocks, wide = b.arg(Arg.IMAGE_BLOCKS), b.arg(Arg.WIDE)
        with b.loop(0, wide) as i:
            self.tile(block, i * images, images)
        if images > 1:
            with b.loop(wide, blocks) as i:
                self.tile(block, wide * images + (i - wide) * (images - 1), images - 1)

    def tile(self, block: Expr, first: Expr, images: int) -> None:
        """A block of neurons for some images."""
        raise NotImplementedError

    def rows(self, first: Expr, images: int) -> tuple[list[Expr], list[Expr]]:
        """Where the inputs and the outputs of `images` images begin."""
        x = [self.input + (first + i) * self.inputs * 4 for i in range(images)]
        return x, [self.output + (first + i) * self.outputs * 4 for i in range(images)]


class _Dense(_Common):
    def emit(self) -> None:
        """A task is some blocks of neurons."""
        b = self.b
        self.scratch = b.pointer(Arg.SCRATCH) + b.thread * b.arg(Arg.SCRATCH_STRIDE)
        if self.shape.listed:
            self.list_nonzeros()
        first = b.task * b.arg(Arg.BLOCKS_PER_TASK)
        last = b.minimum(first + b.arg(Arg.BLOCKS_PER_TASK), b.arg(Arg.BLOCKS))
        with b.loop(first, last) as block, b.loop(0, self.inputs, b.arg(Arg.CHUNK)) as self.start:
            self.end = b.minimum(self.start + b.arg(Arg.CHUNK), self.inputs)
            self.for_images(block)

    def list_nonzeros(self) -> None:
        """The inputs that are not zero in every image; then some more, for what looks ahead."""
        b = self.b
        x, _ = self.rows(b.int(0), self.shape.images)
        count = b.var(b.int(0))
        with b.loop(0, self.inputs) as c:
            b.store_i32(c, self.scratch + count.get() * 4)
            there = reduce(or_, [b.nonzero(b.load_f32(image + c * 4)) for image in x])
            count.set(count.get() + b.select(there, b.int(1), 0))
        self.count = count.get()
        with b.loop(0, AHEAD) as i:
            b.store_i32(self.inputs - 1, self.scratch + (self.count + i) * 4)

    def tile(self, block: Expr, first: Expr, images: int) -> None:
        """`images` by NV vectors of sums; several sets of them where they are too few to hide latency."""
        b, nv = self.b, self.shape.vectors
        x, y = self.rows(first, images)
        weights = b.pointer(Arg.VALUES) + block * self.inputs * (nv * b.vector_bytes)
        sets = max(1, LATENCY // (images * nv))
        sums = [[[b.var(b.vector()) for _ in range(nv)] for _ in range(images)] for _ in range(sets)]
        start = self.start
        if self.shape.listed:
            gappy = self.count < self.inputs * FULL // 16
            self.add(start, b.select(gappy, self.count, start), weights, x, sums, listed=True)
            start = b.select(gappy, self.inputs, start)
        self.add(start, self.end, weights, x, sums)
        totals = [[reduce(add, [of[i][v].get() for of in sums]) for v in range(nv)] for i in range(images)]
        if self.shape.chunked:
            totals = self.with_chunks_before(totals, first)
        with b.when(self.end.equals(self.inputs)):
            for i, v in product(range(images), range(nv)):
                self.store(totals[i][v], y[i], (block * nv + v) * b.lanes)

    def with_chunks_before(self, totals: list[list[Expr]], first: Expr) -> list[list[Expr]]:
        """The sums of a chunk and of those before it, which they join in scratch memory."""
        b, image_bytes = self.b, self.shape.vectors * self.b.vector_bytes
        places = [
            [self.scratch + (first + i) * image_bytes + v * b.vector_bytes for v in range(len(row))]
            for i, row in enumerate(totals)
        ]
        joined = [
            [
                total + b.select(self.start > 0, b.load_vector(place), 0.0)
                for total, place in zip(*both, strict=True)
            ]
            for both in zip(totals, places, strict=True)
        ]
        for total, place in zip(chain(*joined), chain(*places), strict=True):
            b.store(total, place)
        return joined

    def add(
        self,
        start: Expr,
        end: Expr,
        weights: Expr,
        x: list[Expr],
        sums: list[list[list[Var]]],
        listed: bool = False,
    ) -> None:
        """Add inputs from `start` to `end`, of those `listed` or of all, to each set of sums in turn."""
        b, sets = self.b, len(sums)
        whole = start + (end - start) // sets * sets
        with b.loop(start, whole, sets) as j:
            for k, of in enumerate(sums):
                self.add_input(j + k, weights, x, of, listed)
        if sets > 1:
            with b.loop(whole, end) as j:
                self.add_input(j, weights, x, sums[0], listed)

    def add_input(self, j: Expr, weights: Expr, x: list[Expr], sums: list[list[Var]], listed: bool) -> None:
        """One input times its row of weights; if `listed`, a later one's row is asked for."""
        b, row_bytes = self.b, self.shape.vectors * self.b.vector_bytes
        c = j
        if listed:
            c, later = (b.load_i32(self.scratch + (j + ahead) * 4) for ahead in (0, AHEAD))
            for byte in range(0, row_bytes, LINE):
                b.prefetch(weights + later * row_bytes + byte)
        w = [b.load_vector(weights + c * row_bytes + v * b.vector_bytes) for v in range(self.shape.vectors)]
        for image, row in zip(x, sums, strict=True):
            value = b.broadcast(image + c * 4)
            for total, weight in zip(row, w, strict=True):
                total.set(b.fma(value, weight, total.get()))

    def store(self, total: Expr, row: Expr, neuron: Expr) -> None:
        """Bias, activation, and a vector of neurons written, of which some may not exist."""
        b = self.b
        value = activate(b, total + b.load_vector(b.pointer(Arg.BIAS) + neuron * 4), self.shape.activation)
        left = self.outputs - neuron
        with b.choose(left >= b.lanes) as (whole, tail):
            with whole:
                b.store(value, row + neuron * 4)
            with tail:
                b.store_masked(value, row + neuron * 4, b.lanes_below(left))


class _Sparse(_Common):
    def emit(self) -> None:
        """A task is some slices."""
        b = self.b
        bounds = b.pointer(Arg.BOUNDS) + b.task * 4
        with b.loop(b.load_i32(bounds), b.load_i32(bounds + 4)) as block:
            self.for_images(block)

    def tile(self, block: Expr, first: Expr, images: int) -> None:
        """One slice for some images: values times gathered inputs."""
        b = self.b
        x, y = self.rows(first, images)
        start = b.pointer(Arg.STARTS) + block * 4
        bias = b.load_vector(b.pointer(Arg.BIAS) + block * b.vector_bytes)
        sums = [b.var(bias) for _ in range(images)]
        with b.loop(b.load_i32(start), b.load_i32(start + 4)) as j:
            bits = self.shape.index_bits
            columns = b.load_indices(b.pointer(Arg.INDICES) + j * (b.lanes * bits // 8), bits)
            values = b.load_vector(b.pointer(Arg.VALUES) + j * b.vector_bytes)
            for row, total in zip(x, sums, strict=True):
                total.set(b.fma(values, b.gather(row, columns), total.get()))
        order = b.load_indices(b.pointer(Arg.ORDER) + block * (4 * b.lanes))
        there = b.lanes_below(self.outputs - block * b.lanes)
        for row, total in zip(y, sums, strict=True):
            b.scatter(activate(b, total.get(), self.shape.activation), row, order, there)
