"""Fully connected layers: y = act(x W^T + b), for dense and for sparse W.

Both run along vectors of output neurons. Dense weights are packed [K/kb][C][kb], kb being NV vectors. For a
few images the kernel is a stream of the weights: those of inputs that are zero in all images are passed over
(half of them behind a ReLU), as EIE does (Han et al. 2016); the rows of the others are asked for ahead, for
no processor foresees the gaps. More images take turns with a chunk of the weights in the second cache.

Sparse weights lie in *slices* of one vector of output neurons (sliced ELL, Monakov et al. 2010): the j-th
non-zeros of a slice's neurons side by side, with their input numbers, padded to the longest; neurons are
sorted by length to keep the padding low. Gathering takes 1.3 cycles for each number; where the target can,
those of one image are looked up in registers (`gemm_lookup`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.codegen import Argument, Call, Operand, Scratch, Target
from zeroskip.codegen.activations import Activation
from zeroskip.codegen.layout import round_up
from zeroskip.ops.gemm_kernels import AHEAD, LATENCY, Arg, Shape
from zeroskip.ops.gemm_lookup import Lookup, lookup_of, product
from zeroskip.ops.planes import task_bounds, task_count

LAST_CACHE = 24 << 20
"""Bytes of weights that stay in the last cache."""
SPARSE_BELOW, LOOKUP_BELOW, SPARSE_BELOW_FAR = 0.13, 0.3, 0.5
"""Densities below which zeros are worth skipping: by gathering, by looking up, and in weights from memory.
(AMD EPYC 9005. Looked up, 2048x1000 weights take as long as dense ones at 0.3, 1024x1000 at 0.45.)"""
IMAGES = 6
"""Images in registers at most."""
CHUNK_BYTES = 512 << 10
"""Weights that several blocks of images read one after the other stay in the second cache. (25088 inputs, 16
images: 23 ms, 43 without.)"""


def gemm(
    x: Operand,
    y: Operand,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    activation: Activation | None = None,
    *,
    sparse: bool | None = None,
    target: Target,
    threads: int = 1,
) -> Call:
    """The call for ``y = activation(x weight^T + bias)``, past the zeros of a `sparse` weight.

    `x` and `y` are plain, (N, ...) with C and K numbers per image; `weight` is (K, C), `bias` (K,). Unless
    it is said, zeros of weights are skipped where that is faster.
    """
    K, C = weight.shape
    N = x.layout.bytes // (4 * C)
    fits = x.layout.bytes == 4 * C * N and y.layout.bytes == 4 * K * N
    assert fits, f"weights {(K, C)} between {x.layout} and {y.layout}"
    form = None
    if sparse is None:
        sparse, form = _faster(weight, N, target)
    if form is not None:
        return product(x, y, weight, form, _filled(bias, K, K), activation, threads)
    blocks = -(-N // IMAGES)
    images = -(-N // blocks)
    packed = (
        _sparse(weight, bias, N, target, threads) if sparse else _dense(weight, bias, images, target, threads)
    )
    listed, kb = blocks == 1 and not sparse, packed.vectors * target.lanes
    chunk = CHUNK_BYTES // (4 * kb)
    chunked = blocks > 1 and not sparse and chunk < C
    scratch = 4 * (C + AHEAD) if listed else 4 * N * kb if chunked else 0
    arguments: dict[int, Argument] = packed.arguments | {
        Arg.INPUT: x.address,
        Arg.OUTPUT: y.address,
        Arg.INPUTS: C,
        Arg.OUTPUTS: K,
        Arg.IMAGE_BLOCKS: blocks,
        Arg.WIDE: N - blocks * (images - 1),
        Arg.SCRATCH: Scratch(),
        Arg.SCRATCH_STRIDE: scratch,
        Arg.CHUNK: chunk if chunked else C,
    }
    shape = Shape(images, packed.vectors, packed.index_bits, listed, chunked, activation)
    slots = tuple(arguments.get(slot, 0) for slot in Arg)
    return Call(shape.kernel(), slots, packed.tasks, scratch, stream=Arg.VALUES)


def _faster(weight: np.ndarray, N: int, target: Target) -> tuple[bool, Lookup | None]:
    """Whether to skip zeros of the weights; and how they would be looked up, if that is faster still."""
    density = float(np.count_nonzero(weight) / weight.size)
    near = weight.nbytes <= LAST_CACHE
    looked_up = N == 1 and density < (LOOKUP_BELOW if near else SPARSE_BELOW_FAR)
    form = lookup_of(weight, target) if looked_up else None
    return form is not None or density < (SPARSE_BELOW if near else SPARSE_BELOW_FAR), form


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
    arguments: dict[int, Argument] = {
        Arg.BIAS: _filled(bias, K, K)[slices.order],
        Arg.VALUES: slices.values,
        Arg.BOUNDS: task_bounds(counts + 1, tasks),
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
