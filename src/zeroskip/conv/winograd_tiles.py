"""Winograd convolution with tiles in the vector: variants such as ``F(6x6,3x3)/2`` of `winograd`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Planar, Scratch, Target, side_by_side
from zeroskip.codegen.layout import odd_lines, round_up
from zeroskip.conv.algorithm import Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.panels import Panels
from zeroskip.conv.problem import Array, ConvProblem
from zeroskip.conv.sharing import shares, tasks_for
from zeroskip.conv.winograd_tiles_kernel import (
    Multiplication,
    Multiply,
    Read,
    Tiling,
    read_kernel,
    read_scratch,
)
from zeroskip.conv.winograd_transforms import transformed_filters
from zeroskip.conv.winograd_variant import Variant, channels, kernels

# Of the multiply-adds that the core could do: larger tiles have fewer to each sum.
SHARES = {4: 0.9, 6: 0.85, 8: 0.75}
# Kernels of more rows leave tiles of one pixel, or products too inexact.
LARGEST_KERNEL = 5
# Register tiles MR x NV by number of registers, then NV: fewest padded output channels first, then the
# tallest.
HEIGHTS: dict[int, dict[int, tuple[int, ...]]] = {
    32: {1: (16, 8), 2: (12, 8), 3: (8,), 4: (6, 4)},
    16: {1: (8, 4), 2: (6, 4), 3: (4, 3), 4: (3, 2)},
}
# Output channels whose sums wait in scratch memory: 330 KiB of 48 for a = 6 and blocks of 48 tiles. Sums over
# few input channels are soon written, and had better be read soon (3 % of a layer of 16).
CHUNKS = (16, 48)
# Of transformed input between two visits to the sums. From the second cache two loads for 24 multiply-adds
# come in time; with segments that fit the first one (24 KiB), 512 channels of 28x28 are 15 % slower.
SEGMENT_BYTES = 64 << 10
# With several threads: blocks done at a time, input and output channels of a task.
# (With fewer output channels 64 of 56x56 are 1.7 times as fast on two threads, not 1.9.)
BLOCKS_PER_THREAD = 2
LEAST_INPUTS = 8
LEAST_OUTPUTS = 32


@dataclass(frozen=True, eq=False)
class Tiles:
    """All tiles of a layer, in vectors: the tables that the kernels read (see `Read`, `Multiply`)."""

    rows: Array
    widths: Array
    places: Array

    @property
    def vectors(self) -> int:
        """Vectors of tiles."""
        return len(self.rows)


def vectors_of(problem: ConvProblem, tiling: Tiling) -> int:
    """How many vectors the tiles of a layer fill."""
    across = -(-problem.Q // (tiling.m * tiling.per_group))
    return -(-problem.N * -(-problem.P // tiling.m) * across // tiling.groups)


def tiles_of(problem: ConvProblem, tiling: Tiling, x: Planar, y: Planar) -> Tiles:
    """Where every group of tiles reads and writes; planes split by strides hold the padding, too."""
    top, left, bottom, right = (0, 0, 0, 0) if problem.strided else problem.pads
    m, down, wide = tiling.m, -(-problem.P // tiling.m), tiling.m * tiling.per_group
    grid = np.meshgrid(
        np.arange(problem.N), np.arange(down) * m, np.arange(0, problem.Q, wide), indexing="ij"
    )
    image, row, column = (axis.reshape(-1, 1) for axis in grid)
    # rows below the padding would only be multiplied by zero, but must be numbers: take the last one that is
    # read
    source = np.minimum(row - top + np.arange(tiling.alpha), x.height + bottom - 1)
    offsets = 4 * ((image * x.rows + source) * x.pitch + column - left)
    widths = x.width + right + left - column
    places = np.concatenate(
        [4 * ((image * y.rows + row) * y.pitch + column), problem.P - row, problem.Q - column], axis=1
    )
    missing = -len(row) % tiling.groups
    places = np.concatenate([places, np.zeros((missing, 3), int)])
    groups = np.minimum(np.arange(len(row) + missing), len(row) - 1)
    shape = (-1, tiling.groups)
    return Tiles(
        offsets[groups].reshape(*shape, tiling.alpha).astype(np.int32),
        widths[groups].reshape(shape).astype(np.int32),
        places.reshape(*shape, 3).astype(np.int32),
    )


def transform_weights(w: Array, tiling: Tiling, mr: int, segment: int) -> Array:
    """G g G^T of every filter: see `Multiply.WEIGHTS`."""
    outputs, inputs = w.shape[:2]
    padded = round_up(outputs, mr)
    v = np.empty((tiling.products, padded * inputs), np.float32)
    cuts = [slice(c, min(c + segment, inputs)) for c in range(0, inputs, segment)]
    places = [
        v[:, padded * cut.start : padded * cut.stop].reshape(tiling.products, -1, cut.stop - cut.start, mr)
        for cut in cuts
    ]
    for block, part in enumerate(transformed_filters(w, tiling.matrices, mr)):
        for cut, place in zip(cuts, places, strict=True):
            place[:, block] = part[:, :, cut].transpose(0, 2, 1)
    return v


def variants(problem: ConvProblem, m: int, r: int, target: Target) -> list[Variant]:
    """Blocks of up to 2, 3 or 4 vectors."""
    vectors = vectors_of(problem, Tiling(m, r, target.lanes))
    return list(dict.fromkeys(Variant(m, r, Panels(vectors, widest).nv) for widest in (2, 3, 4)))


def _height(problem: ConvProblem, nv: int, target: Target) -> int:
    return min(HEIGHTS[target.registers][nv], key=lambda mr: (round_up(problem.K, mr), -mr))


def cycles(problem: ConvProblem, variant: Variant, target: Target) -> float:
    """Products at a share of the peak, weights from the third cache, and two transforms."""
    tiling = Tiling(variant.m, variant.r, target.lanes)
    panels = Panels(vectors_of(problem, tiling), variant.nv)
    padded = round_up(problem.K, _height(problem, panels.nv, target))
    sums = tiling.products * padded * channels(problem)
    weights = 4 * sums * panels.count / (12 if 4 * sums < 8 << 20 else 6)
    transforms = (11 * channels(problem) + 7.5 * problem.K) * panels.vectors * tiling.products
    return max(sums * panels.vectors / 2 / SHARES[tiling.alpha], weights) + transforms


def build(problem: ConvProblem, variant: Variant, site: Site) -> tuple[Call, ...]:
    """Zeros around the output, then block by block the two kernels."""
    target = site.target
    tiling = Tiling(variant.m, variant.r, target.lanes)
    tiles = tiles_of(problem, tiling, site.x.planar, site.y.planar)
    panels = Panels(tiles.vectors, variant.nv)
    numbers = np.arange(panels.count + 1)
    blocks = (numbers * (panels.nv - 1) + np.minimum(numbers, panels.wide)).astype(np.int32)
    if panels.nv == 1:
        blocks = numbers.astype(np.int32)
    together = _together(panels, site)
    product_bytes = odd_lines(channels(problem) * panels.nv * target.lanes * 4)
    shared: dict[str, Argument] = {
        "BLOCKS": blocks,
        "BLOCK_BYTES": tiling.products * product_bytes,
        "PRODUCT_BYTES": product_bytes,
    }
    transformed = Address(site.allocate(together * tiling.products * product_bytes))
    calls = [zero_borders(site.y, site.threads)]
    read = _read_call(problem, tiling, tiles, panels, site)
    multiply = _multiply_call(problem, tiling, tiles, panels, site)
    for first in range(0, panels.count, together):
        count = min(together, panels.count - first)
        for slots, call in ((Read, read), (Multiply, multiply)):
            own: dict[str, Argument] = {
                **shared,
                "FIRST": first,
                "TOGETHER": count,
                "TRANSFORMED": transformed,
            }
            arguments = tuple(
                own.get(slot.name, argument) for slot, argument in zip(slots, call.arguments, strict=True)
            )
            calls.append(Call(call.kernel, arguments, count * call.tasks, call.scratch))
    return *side_by_side(*calls[:2]), *calls[2:]


def _together(panels: Panels, site: Site) -> int:
    """Blocks done at a time: as equally many as can be."""
    most = 1 if site.threads == 1 else BLOCKS_PER_THREAD * site.threads
    return Panels(panels.count, most).nv


def _tasks(panels: Panels, site: Site) -> int:
    """Tasks for each of the blocks that are done at a time."""
    return tasks_for(site.threads, _together(panels, site))


def _read_call(problem: ConvProblem, tiling: Tiling, tiles: Tiles, panels: Panels, site: Site) -> Call:
    """The input transform of one block; slots that differ from block to block are 0."""
    scratch = read_scratch(tiling)
    inputs = channels(problem)
    runs, share = shares(inputs, _tasks(panels, site), LEAST_INPUTS, LEAST_INPUTS)
    values: dict[Read, Argument] = {
        Read.INPUT: site.x.address,
        Read.PLANE: site.x.planar.plane,
        Read.CHANNELS: inputs,
        Read.ROWS: tiles.rows,
        Read.WIDTHS: tiles.widths,
        Read.SHARE: share,
        Read.SCRATCH: Scratch(),
        Read.SCRATCH_STRIDE: scratch,
    }
    arguments = tuple(values.get(slot, 0) for slot in Read)
    return Call(read_kernel(tiling, panels.nv), arguments, runs, scratch)


def _multiply_call(problem: ConvProblem, tiling: Tiling, tiles: Tiles, panels: Panels, site: Site) -> Call:
    """Products and inverse transform of one block; slots that differ from block to block are 0."""
    mr = _height(problem, panels.nv, site.target)
    shape = Multiplication(tiling, mr, panels.nv, problem.activation, site.residual is not None)
    padded, inputs = round_up(problem.K, mr), channels(problem)
    fitting = max(1, SEGMENT_BYTES // (panels.nv * tiling.lanes * 4))
    segment = -(-inputs // -(-inputs // fitting))
    runs, share = shares(padded, _tasks(panels, site), mr, LEAST_OUTPUTS)
    least, most = CHUNKS
    chunk = min(share, max(least, min(inputs, most)) // mr * mr)
    bias = np.zeros(padded, np.float32)
    if problem.bias is not None:
        bias[: problem.K] = problem.bias
    sums = chunk * shape.row_bytes()
    scratch = sums + shape.transform_bytes()
    residual = site.residual
    values: dict[Multiply, Argument] = {
        Multiply.CHANNELS: inputs,
        Multiply.SEGMENT: segment,
        Multiply.WEIGHTS: transform_weights(kernels(problem), tiling, mr, segment),
        Multiply.WEIGHT_BYTES: 4 * padded * inputs,
        Multiply.PADDED: padded,
        Multiply.K: problem.K,
        Multiply.SHARE: share,
        Multiply.CHUNK: chunk,
        Multiply.BIAS: bias,
        Multiply.PLACES: tiles.places,
        Multiply.OUTPUT: site.y.address,
        Multiply.OUTPUT_PLANE: site.y.planar.plane,
        Multiply.PITCH: 4 * site.y.planar.pitch,
        Multiply.RESIDUAL: residual.address if residual else Address(-1),
        Multiply.RESIDUAL_PLANE: residual.planar.plane if residual else 0,
        Multiply.ROW_BYTES: shape.row_bytes(),
        Multiply.SUMS_BYTES: sums,
        Multiply.SCRATCH: Scratch(),
        Multiply.SCRATCH_STRIDE: scratch,
    }
    return Call(shape.kernel(), tuple(values.get(slot, 0) for slot in Multiply), runs, scratch)
