"""Sparse fully connected layers of one image, whose inputs are looked up in registers.

A gather takes more than a cycle for each number (`gemm`), but one instruction picks 16 numbers from two
registers. So the inputs are taken in *chunks* of 128: eight registers, from which the inputs of 16 weights
are four such instructions and three choices between their results. Weights stand as in sliced ELL, of each
chunk on its own: the j-th non-zeros of a slice's 16 neurons in the chunk side by side, a byte for each says
which input it is, and what is missing to the longest is zeros. That is 5 bytes for 6, but 1.5 times as many
weights at 90 % zeros, more where they are rarer; `lookup_of` says where it pays. With 90 % zeros 1000x2048
take 38 us, gathered 79, dense 94; 4096x25088, which come from memory, 3.0 ms, gathered 4.0.

Of each chunk the slices stand in the order of their lengths, so that the processor foresees how often a short
loop runs; sums wait in scratch memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Kernel, Operand, Scratch, Target
from zeroskip.codegen.activations import Activation, activate, tag
from zeroskip.ops.planes import task_bounds, task_count

TABLE = 8
"""Registers of a chunk's inputs."""
PADDED = 2.4
"""Places, filled or not, that take as long as gathering a number: 4 near, but 2.4 from memory."""


class Arg(IntEnum):
    """Argument slots; a task is some slices of neurons."""

    INPUT = 0
    OUTPUT = auto()
    BIAS = auto()  # float32[slices][lanes], in the order of ORDER
    INPUTS = auto()
    OUTPUTS = auto()
    CHUNKS = auto()
    SLICES = auto()  # int32[tasks + 1]
    VISITS = auto()  # int32[][2]: of a task and a chunk each slice, with its length
    BOUNDS = auto()  # int32[tasks * chunks + 1]: visits
    STARTS = auto()  # int32[tasks]: the first vector of values
    VALUES = auto()  # float32[][lanes]
    NUMBERS = auto()  # uint8[][lanes]: inputs of the chunk
    ORDER = auto()  # int32[slices][lanes]: output numbers
    SUMS = auto()  # float32[slices][lanes] of scratch for each thread
    SUMS_STRIDE = auto()  # bytes


@dataclass(frozen=True, eq=False)
class Lookup:
    """Where the non-zeros of weights (K, C) stand: those of each row, in each chunk, one after the other."""

    shape: tuple[int, int]
    lanes: int
    order: np.ndarray  # of neurons: those with many non-zeros first
    found: np.ndarray  # the numbers of the non-zeros among all weights
    nth: np.ndarray  # of its row's in its chunk, of each
    lengths: np.ndarray  # (slices, chunks): the longest of each

    @property
    def places(self) -> int:
        """For weights, filled or not."""
        return int(self.lengths.sum()) * self.lanes


def lookup_of(weight: np.ndarray, target: Target) -> Lookup | None:
    """The form that `weight` would have, if the target can look up and that pays beside gathering."""
    if not target.looks_up:
        return None
    (K, C), lanes = weight.shape, target.lanes
    size, slices = TABLE * lanes, -(-K // lanes)
    chunks = -(-C // size)
    found = np.flatnonzero(weight)
    run = found // C * chunks + found % C // size
    counts = np.bincount(run, minlength=K * chunks)
    nth = (np.arange(len(found)) - (np.cumsum(counts) - counts)[run]).astype(np.uint8)
    by_row = counts.reshape(K, chunks)
    order = np.argsort(-by_row.sum(axis=1), kind="stable").astype(np.int32)
    filled = np.zeros((slices * lanes, chunks), np.int64)
    filled[:K] = by_row[order]
    form = Lookup(weight.shape, lanes, order, found, nth, filled.reshape(slices, lanes, chunks).max(axis=1))
    return form if 0 < form.places <= PADDED * len(found) else None


def product(
    x: Operand,
    y: Operand,
    weight: np.ndarray,
    form: Lookup,
    bias: np.ndarray,
    activation: Activation | None,
    threads: int,
) -> Call:
    """The call for ``y = activation(weight x + bias)`` of one image; `bias` is (K,)."""
    K, C = form.shape
    slices, chunks = form.lengths.shape
    tasks = min(slices, task_count(5 * form.places, threads))
    bounds = task_bounds(form.lengths.sum(axis=1) + 1, tasks)
    task_of = np.repeat(np.arange(tasks), np.diff(bounds) * chunks)
    slice_of, chunk_of = (axis.reshape(-1) for axis in np.indices(form.lengths.shape))
    length = form.lengths.reshape(-1)
    sequence = np.lexsort((-length, chunk_of, task_of))
    visits = sequence[length[sequence] > 0]
    visited = np.bincount(task_of * chunks + chunk_of, length > 0, tasks * chunks)
    vectors = np.bincount(task_of, length, tasks)
    values, numbers = _placed(weight, form, sequence)
    order = np.zeros(slices * form.lanes, np.int32)
    order[:K] = form.order
    scratch = 4 * slices * form.lanes
    arguments: dict[Arg, Argument] = {
        Arg.INPUT: x.address,
        Arg.OUTPUT: y.address,
        Arg.BIAS: bias[order],
        Arg.INPUTS: C,
        Arg.OUTPUTS: K,
        Arg.CHUNKS: chunks,
        Arg.SLICES: bounds,
        Arg.VISITS: np.stack([slice_of[visits], length[visits]], axis=1).astype(np.int32),
        Arg.BOUNDS: np.concatenate([[0], np.cumsum(visited)]).astype(np.int32),
        Arg.STARTS: (np.cumsum(vectors) - vectors).astype(np.int32),
        Arg.VALUES: values,
        Arg.NUMBERS: numbers,
        Arg.ORDER: order,
        Arg.SUMS: Scratch(),
        Arg.SUMS_STRIDE: scratch,
    }
    kernel = Kernel(f"gemm_lookup{tag(activation)}", lambda b: _emit(b, activation))
    slots = tuple(arguments[slot] for slot in Arg)
    return Call(kernel, slots, tasks, scratch, stream=Arg.VALUES)


def _placed(weight: np.ndarray, form: Lookup, sequence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and their numbers, slices and chunks being in the order of `sequence`."""
    (K, C), lanes, size = form.shape, form.lanes, TABLE * form.lanes
    assert form.places < 2**31, f"{form.shape} has too many non-zeros for 32-bit offsets"
    length = form.lengths.reshape(-1)
    starts = np.empty(len(sequence), np.int64)
    starts[sequence] = np.cumsum(length[sequence]) - length[sequence]
    rank = np.empty(K, np.int32)
    rank[form.order] = np.arange(K)
    row, column = rank[form.found // C], form.found % C
    chunks = form.lengths.shape[1]
    place = (starts[row // lanes * chunks + column // size] + form.nth) * lanes + row % lanes
    values, numbers = np.zeros(form.places, np.float32), np.zeros(form.places, np.uint8)
    values[place], numbers[place] = weight.reshape(-1)[form.found], column % size
    return values, numbers


def _emit(b: Builder, activation: Activation | None) -> None:
    chunks, inputs, step = b.arg(Arg.CHUNKS), b.arg(Arg.INPUTS), b.vector_bytes
    sums = b.pointer(Arg.SUMS) + b.thread * b.arg(Arg.SUMS_STRIDE)
    first, last = (b.load_i32(b.pointer(Arg.SLICES) + (b.task + i) * 4) for i in range(2))
    with b.loop(first, last) as slice_:
        b.store(b.vector(), sums + slice_ * step)
    at = b.var(b.load_i32(b.pointer(Arg.STARTS) + b.task * 4))
    with b.loop(0, chunks) as chunk:
        table = []
        for i in range(TABLE):
            column = (chunk * TABLE + i) * b.lanes
            table.append(b.load_masked(b.pointer(Arg.INPUT) + column * 4, b.lanes_below(inputs - column)))
        bounds = b.pointer(Arg.BOUNDS) + (b.task * chunks + chunk) * 4
        with b.loop(b.load_i32(bounds), b.load_i32(bounds + 4)) as visit:
            slice_, length = (b.load_i32(b.pointer(Arg.VISITS) + visit * 8 + 4 * i) for i in range(2))
            total = b.var(b.load_vector(sums + slice_ * step))
            with b.loop(at.get(), at.get() + length) as j:
                numbers = b.load_indices(b.pointer(Arg.NUMBERS) + j * b.lanes, 8)
                weights = b.load_vector(b.pointer(Arg.VALUES) + j * step)
                total.set(b.fma(weights, b.lookup(table, numbers), total.get()))
            b.store(total.get(), sums + slice_ * step)
            at.set(at.get() + length)
    with b.loop(first, last) as slice_:
        value = b.load_vector(sums + slice_ * step) + b.load_vector(b.pointer(Arg.BIAS) + slice_ * step)
        order = b.load_indices(b.pointer(Arg.ORDER) + slice_ * step)
        there = b.lanes_below(b.arg(Arg.OUTPUTS) - slice_ * b.lanes)
        b.scatter(activate(b, value, activation), b.pointer(Arg.OUTPUT), order, there)
