"""Fully connected layers: y = act(x W^T + b), for dense and for sparse W.

Both run along vectors of output neurons. Dense weights are packed [K/kb][C][kb], kb being NV vectors, and
read once per block of images. For a few images the kernel is a stream of the weights: those of inputs that
are zero in all images are passed over (half of them behind a ReLU), as EIE does (Han et al. 2016); the rows
of the others are asked for ahead, for no processor foresees the gaps. Sparse weights lie in
*slices* of one vector of output neurons (sliced ELL, Monakov et al. 2010): the j-th non-zeros of a slice's
neurons side by side, with their input numbers, padded to the longest; neurons are sorted by length to keep
the padding low. Gathering runs at one input per cycle, so for one image sparse beats dense below a density of
about 0.13 where the dense weights fit the last cache, and below 0.5 where they do not (AMD EPYC 9005).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from functools import reduce
from itertools import product
from operator import add, or_

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Scratch, Target
from zeroskip.codegen.activations import Activation, activate, tag
from zeroskip.codegen.expr import Var
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.ops.planes import task_count

LATENCY = 8
"""Independent multiply-adds that keep the units busy: 4 cycles times 2 units."""
IMAGES = 6
"""Images in registers at most."""
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
    LIST = auto()  # int32[threads][C + AHEAD]: inputs that are not zero
    LIST_BYTES = auto()  # of a thread
    BOUNDS = auto()  # sparse: int32[tasks + 1], slice numbers
    STARTS = auto()  # int32[slices + 1]: of each slice the first vector of values
    INDICES = auto()  # uint16 or int32[...][lanes]: input numbers
    ORDER = auto()  # int32[slices * lanes]: output numbers


@dataclass(frozen=True)
class _Shape:
    """What a kernel's code depends on: images and vectors in registers, or the width of the input numbers.

    Where all images are in registers at once, inputs that are not zero are `listed`, and dense weights of
    others are not read.
    """

    images: int
    vectors: int
    index_bits: int
    listed: bool
    activation: Activation | None

    @property
    def name(self) -> str:
        body = (
            f"slices_{self.images}_i{self.index_bits}" if self.index_bits else f"{self.images}x{self.vectors}"
        )
        return f"gemm_{body}{'_listed' if self.listed else ''}{tag(self.activation)}"


def gemm(
    x: Operand,
    y: Operand,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    activation: Activation | None = None,
    *,
    sparse: bool = False,
    target: Target,
    threads: int = 1,
) -> Call:
    """The call for ``y = activation(x weight^T + bias)``, past the zeros of a `sparse` weight.

    `x` and `y` are plain, (N, ...) with C and K numbers per image; `weight` is (K, C), `bias` (K,).
    """
    K, C = weight.shape
    N = x.layout.bytes // (4 * C)
    fits = x.layout.bytes == 4 * C * N and y.layout.bytes == 4 * K * N
    assert fits, f"weights {(K, C)} between {x.layout} and {y.layout}"
    blocks = -(-N // IMAGES)
    images = -(-N // blocks)
    packed = (
        _sparse(weight, bias, N, target, threads) if sparse else _dense(weight, bias, images, target, threads)
    )
    arguments: dict[int, Argument] = packed.arguments | {
        Arg.INPUT: x.address,
        Arg.OUTPUT: y.address,
        Arg.INPUTS: C,
        Arg.OUTPUTS: K,
        Arg.IMAGE_BLOCKS: blocks,
        Arg.WIDE: N - blocks * (images - 1),
    }
    listed = blocks == 1 and not sparse
    scratch = 4 * (C + AHEAD) if listed else 0
    arguments |= {Arg.LIST: Scratch() if listed else 0, Arg.LIST_BYTES: scratch}
    shape = _Shape(images, packed.vectors, packed.index_bits, listed, activation)
    emit = _Sparse if sparse else _Dense
    kernel = Kernel(shape.name, lambda b: emit(b, shape).emit())
    return Call(kernel, tuple(arguments.get(slot, 0) for slot in Arg), packed.tasks, scratch)


@dataclass(frozen=True, eq=False)
class _Packed:
    """Weights in the order in which a kernel reads them, shared out to tasks."""

    vectors: int
    index_bits: int
    tasks: int
    arguments: dict[int, Argument]


def _dense(weight: np.ndarray, bias: np.ndarray | None, images: int, target: Target, threads: int) -> _Packed:
    K, C = weight.shape
    nv = _dense_vectors(-(-K // target.lanes), images, target, threads)
    kb = nv * target.lanes
    blocks = -(-K // kb)
    share = -(-blocks // min(blocks, task_count(4 * K * C, threads)))
    arguments: dict[int, Argument] = {
        Arg.BIAS: _filled(bias, K, blocks * kb),
        Arg.VALUES: _blocks(weight, blocks, kb),
        Arg.BLOCKS: blocks,
        Arg.BLOCKS_PER_TASK: share,
    }
    return _Packed(nv, 0, -(-blocks // share), arguments)


def _dense_vectors(vectors: int, images: int, target: Target, threads: int) -> int:
    """Vectors of neurons per block, of so many in all.

    Enough sums to hide latency, few enough to stay in registers. For one image rows of weights are long, but
    not so long that threads have unequal parts.
    """
    if images > 1:
        most = max(1, min(LATENCY, (target.registers - 4) // (images + 1)))
        return -(-vectors // -(-vectors // most))
    most = min(vectors, 3 * target.registers // 4)

    def computed(nv: int) -> int:
        return round_up(-(-vectors // nv), threads) * nv

    return min(range(most, most // 2, -1), key=computed)


def _sparse(weight: np.ndarray, bias: np.ndarray | None, N: int, target: Target, threads: int) -> _Packed:
    K = len(weight)
    slices = _slices(weight, target.lanes)
    counts = np.diff(slices.starts)
    tasks = min(len(counts), task_count(slices.values.nbytes * N, threads))
    # tasks end where the cumulated work passes their share of it
    work = np.cumsum(counts + 1)
    cuts = np.searchsorted(work, work[-1] * np.arange(1, tasks) / tasks)
    arguments: dict[int, Argument] = {
        Arg.BIAS: _filled(bias, K, K)[slices.order],
        Arg.VALUES: slices.values,
        Arg.BOUNDS: np.array([0, *cuts, len(counts)], np.int32),
        Arg.STARTS: slices.starts,
        Arg.INDICES: slices.indices,
        Arg.ORDER: slices.order,
    }
    return _Packed(1, 8 * slices.indices.itemsize, tasks, arguments)


def _filled(bias: np.ndarray | None, K: int, count: int) -> np.ndarray:
    filled = np.zeros(count, np.float32)
    if bias is not None:
        filled[:K] = bias.ravel()
    return filled


def _blocks(weight: np.ndarray, blocks: int, kb: int) -> np.ndarray:
    K, C = weight.shape
    filled = np.zeros((blocks * kb, C), np.float32)
    filled[:K] = weight
    return np.ascontiguousarray(filled.reshape(blocks, kb, C).transpose(0, 2, 1))


@dataclass(frozen=True)
class _Slices:
    starts: np.ndarray
    order: np.ndarray
    values: np.ndarray
    indices: np.ndarray


def _slices(weight: np.ndarray, lanes: int) -> _Slices:
    """The non-zeros of `weight` in slices of `lanes` neurons."""
    K, C = weight.shape
    counts = np.count_nonzero(weight, axis=1)
    order = np.argsort(-counts, kind="stable").astype(np.int32)
    slices = -(-K // lanes)
    sorted_counts = np.zeros(slices * lanes, np.int64)
    sorted_counts[:K] = counts[order]
    starts = np.concatenate([[0], np.cumsum(sorted_counts[::lanes])])
    assert starts[-1] * lanes < 2**31, f"{weight.shape} has too many non-zeros for 32-bit offsets"
    row, column = np.nonzero(weight[order])
    # the j-th non-zero of its neuron
    j = np.arange(len(row)) - np.repeat(np.cumsum(sorted_counts) - sorted_counts, sorted_counts)
    place = (starts[row // lanes] + j) * lanes + row % lanes
    values = np.zeros(starts[-1] * lanes, np.float32)
    indices = np.zeros(starts[-1] * lanes, np.uint16 if C <= 1 << 16 else np.int32)
    values[place], indices[place] = weight[order[row], column], column
    filled = np.zeros(slices * lanes, np.int32)
    filled[:K] = order
    return _Slices(starts.astype(np.int32), filled, values, indices)


class _Common:
    def __init__(self, b: Builder, shape: _Shape) -> None:
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
        if self.shape.listed:
            self.list_nonzeros()
        first = b.task * b.arg(Arg.BLOCKS_PER_TASK)
        with b.loop(first, b.minimum(first + b.arg(Arg.BLOCKS_PER_TASK), b.arg(Arg.BLOCKS))) as block:
            self.for_images(block)

    def list_nonzeros(self) -> None:
        """The inputs that are not zero in every image; then some more, for what looks ahead."""
        b = self.b
        x, _ = self.rows(b.int(0), self.shape.images)
        self.listed = b.pointer(Arg.LIST) + b.thread * b.arg(Arg.LIST_BYTES)
        count = b.var(b.int(0))
        with b.loop(0, self.inputs) as c:
            b.store_i32(c, self.listed + count.get() * 4)
            there = reduce(or_, [b.nonzero(b.load_f32(image + c * 4)) for image in x])
            count.set(count.get() + b.select(there, b.int(1), 0))
        self.count = count.get()
        with b.loop(0, AHEAD) as i:
            b.store_i32(self.inputs - 1, self.listed + (self.count + i) * 4)

    def tile(self, block: Expr, first: Expr, images: int) -> None:
        """`images` by NV vectors of sums; several sets of them where they are too few to hide latency."""
        b, nv = self.b, self.shape.vectors
        x, y = self.rows(first, images)
        weights = b.pointer(Arg.VALUES) + block * self.inputs * (nv * b.vector_bytes)
        sets = max(1, LATENCY // (images * nv))
        sums = [[[b.var(b.vector()) for _ in range(nv)] for _ in range(images)] for _ in range(sets)]
        start = b.int(0)
        if self.shape.listed:
            gappy = self.count < self.inputs * FULL // 16
            self.add(start, b.select(gappy, self.count, start), weights, x, sums, listed=True)
            start = b.select(gappy, self.inputs, start)
        self.add(start, self.inputs, weights, x, sums)
        for i, v in product(range(images), range(nv)):
            total = reduce(add, [of[i][v].get() for of in sums])
            self.store(total, y[i], (block * nv + v) * b.lanes)

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
            c, later = (b.load_i32(self.listed + (j + ahead) * 4) for ahead in (0, AHEAD))
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
