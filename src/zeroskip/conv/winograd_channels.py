"""Winograd convolution with channels in the vector: variants such as ``F(6x6,3x3)/14x2`` of `winograd`.

Vectors of tiles are badly filled where there are few: the 25 tiles of 27x27 pixels take two of sixteen, 78 %
full. Here vectors hold channels, of the input while it is transformed and of the output from then on, and a
tile's numbers are broadcast: a register tile is MR tiles x NV vectors of output channels, as in
`channel_direct`. What reads and writes planes transposes LANES pixels of LANES channels. (Zen 4: layers of
27x27 and 28x28 take a fifth less time, of 54x54 and 56x56 an eighth.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Planar, Scratch, Target, side_by_side
from zeroskip.codegen.layout import odd_lines, round_up
from zeroskip.codegen.target import SECOND_CACHE
from zeroskip.conv.algorithm import Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.panels import Panels
from zeroskip.conv.problem import Array, ConvProblem
from zeroskip.conv.sharing import shares, tasks_for
from zeroskip.conv.winograd_channels_kernel import (
    Multiplication,
    Multiply,
    Read,
    read_kernel,
    read_scratch,
)
from zeroskip.conv.winograd_transforms import transformed_filters
from zeroskip.conv.winograd_variant import Variant, channels, kernels

# Register tiles MR x NV by number of registers: sums, NV vectors of weights and a number must fit. One vector
# means that weights are read once: a quarter faster where the second cache is small for all that passes.
TILES = {32: ((28, 1), (14, 2)), 16: ((13, 1), (6, 2))}
# Of a block: transformed input that stays in the second cache beside sums and weights, and tiles that each
# vector of weights meets at least.
BLOCK_BYTES, LEAST_TILES = SECOND_CACHE // 2, 12
# Rows of more tiles have more sums than that cache holds; they fill vectors well, too.
MOST_ACROSS = 48
# Cycles of a vector of transformed input and of transformed sums; share of the multiply-adds that the core
# could do; bytes of weights per cycle from the last cache, and of more than it holds.
READ, FINISH, PEAK, NEAR, FAR = 13.0, 8.5, 0.92, 12, 6


def variants(problem: ConvProblem, m: int, r: int, target: Target) -> list[Variant]:
    """The register tiles, none wider than the layer."""
    if -(-problem.Q // m) > MOST_ACROSS:
        return []
    vectors = -(-problem.K // target.lanes)
    tiles = dict.fromkeys((mr, min(nv, vectors)) for mr, nv in TILES[target.registers])
    return [Variant(m, r, nv, mr) for mr, nv in tiles]


def cycles(problem: ConvProblem, variant: Variant, target: Target) -> float:
    """Products near the peak unless weights take longer to come, and two transforms."""
    grid = _grid(problem, variant, target.lanes)
    products, tiles, inputs = variant.products, grid.across * grid.rows, channels(problem)
    outputs = -(-problem.K // (variant.nv * target.lanes)) * variant.nv  # vectors
    sums = products * inputs * outputs * tiles / 2 / PEAK
    size = 4 * target.lanes * products * inputs * outputs
    weights = size * grid.blocks.count / (NEAR if size < 8 << 20 else FAR)
    read = READ * products * -(-inputs // target.lanes) * tiles
    return max(sums, weights) + read + FINISH * products * outputs * tiles


@dataclass(frozen=True)
class Grid:
    """The tiles of a layer: of a row, rows in all images, and these cut into blocks."""

    across: int
    rows: int
    blocks: Panels


def _grid(problem: ConvProblem, variant: Variant, lanes: int) -> Grid:
    across, rows = -(-problem.Q // variant.m), problem.N * -(-problem.P // variant.m)
    row_bytes = 4 * lanes * variant.products * -(-channels(problem) // lanes) * across
    return Grid(across, rows, Panels(rows, max(-(-LEAST_TILES // across), BLOCK_BYTES // row_bytes)))


def build(problem: ConvProblem, variant: Variant, site: Site) -> tuple[Call, ...]:
    """Zeros around the output, then block by block the two kernels."""
    lanes, y = site.target.lanes, site.y.planar
    grid = _grid(problem, variant, lanes)
    blocks, across = grid.blocks, grid.across
    product_bytes = odd_lines(-(-channels(problem) // lanes) * blocks.nv * across * lanes * 4)
    transformed = Address(site.allocate(variant.products * product_bytes))
    # zeros right of a row are written with it where there are lanes for them
    right = y.pitch - y.width
    right = right if right < lanes - (y.width - 1) % lanes else 0
    read = _read_call(problem, variant, grid, site)
    multiply = _multiply_call(problem, variant, grid, right, site)
    calls = [zero_borders(site.y, site.threads, right=not right)]
    first = 0
    for number in range(blocks.count):
        count = blocks.nv if number < blocks.wide else blocks.nv - 1
        panels = Panels(count * across, variant.mr)
        own: dict[str, Argument] = {
            "TRANSFORMED": transformed,
            "PRODUCT_BYTES": product_bytes,
            "ACROSS": across,
            "FIRST": first,
            "ROWS": count,
            "TILES": count * across,
            "PANELS": panels.count,
            "WIDE": panels.wide,
        }
        shape = _shape(problem, replace(variant, mr=panels.nv), site)
        calls += [
            replace(_of_block(read, Read, own), tasks=count * read.tasks),
            replace(_of_block(multiply, Multiply, own), kernel=shape.kernel()),
        ]
        first += count
    return *side_by_side(*calls[:2]), *calls[2:]


def _of_block(call: Call, slots: type[Read | Multiply], own: dict[str, Argument]) -> Call:
    """The call with a block's own arguments."""
    arguments = (own.get(slot.name, value) for slot, value in zip(slots, call.arguments, strict=True))
    return replace(call, arguments=tuple(arguments))


def _shape(problem: ConvProblem, variant: Variant, site: Site) -> Multiplication:
    return Multiplication(variant, problem.activation, site.residual is not None)


def _read_call(problem: ConvProblem, variant: Variant, grid: Grid, site: Site) -> Call:
    """The input transform of a row of tiles; slots that differ from block to block are 0."""
    lanes, x = site.target.lanes, site.x.planar
    _, left, _, right = _pads(problem)
    vectors, width = -(-channels(problem) // lanes), x.width + left + right
    parts, share = shares(vectors, tasks_for(site.threads, grid.rows))
    pixels = round_up(max(width, grid.across * variant.m + variant.r - 1), lanes)
    scratch = read_scratch(variant, pixels, lanes)
    values: dict[Read, Argument] = {
        Read.INPUT: site.x.address,
        Read.PLANE: x.plane,
        Read.CHANNELS: channels(problem),
        Read.VECTORS: vectors,
        Read.PARTS: parts,
        Read.SHARE: share,
        Read.SOURCES: _sources(problem, variant, x),
        Read.WIDTH: width,
        Read.PIXELS: pixels,
        Read.SCRATCH: Scratch(),
        Read.SCRATCH_STRIDE: scratch,
    }
    arguments = tuple(values.get(slot, 0) for slot in Read)
    return Call(read_kernel(variant), arguments, parts, scratch)


def _multiply_call(problem: ConvProblem, variant: Variant, grid: Grid, right: int, site: Site) -> Call:
    """Products and inverse transform of a block; slots that differ from block to block are 0."""
    lanes, y, residual = site.target.lanes, site.y.planar, site.residual
    shape = _shape(problem, variant, site)
    width = variant.nv * lanes
    chunks = -(-problem.K // width)
    tasks, share = shares(chunks, tasks_for(site.threads))
    bias = np.zeros(chunks * width, np.float32)
    if problem.bias is not None:
        bias[: problem.K] = problem.bias
    sums = grid.blocks.nv * grid.across * variant.nv * shape.unit(lanes)
    scratch = sums + shape.transform_bytes(lanes)
    values: dict[Multiply, Argument] = {
        Multiply.CHANNELS: channels(problem),
        Multiply.WEIGHTS: _weights(problem, variant, width),
        Multiply.BIAS: bias,
        Multiply.CHUNKS: chunks,
        Multiply.SHARE: share,
        Multiply.K: problem.K,
        Multiply.PLACES: _places(problem, variant, y),
        Multiply.Q: problem.Q,
        Multiply.OUTPUT: site.y.address,
        Multiply.OUTPUT_PLANE: y.plane,
        Multiply.PITCH: 4 * y.pitch,
        Multiply.RIGHT: right,
        Multiply.RESIDUAL: residual.address if residual else Address(-1),
        Multiply.RESIDUAL_PLANE: residual.planar.plane if residual else 0,
        Multiply.SUMS_BYTES: sums,
        Multiply.SCRATCH: Scratch(),
        Multiply.SCRATCH_STRIDE: scratch,
    }
    return Call(shape.kernel(), tuple(values.get(slot, 0) for slot in Multiply), tasks, scratch)


def _pads(problem: ConvProblem) -> tuple[int, int, int, int]:
    """Padding beside the planes that are read; those split by strides hold it."""
    return (0, 0, 0, 0) if problem.strided else problem.pads


def _sources(problem: ConvProblem, variant: Variant, x: Planar) -> Array:
    """See `Read.SOURCES`."""
    top, left, bottom, _ = _pads(problem)
    image, row = (axis.reshape(-1, 1) for axis in np.indices((problem.N, -(-problem.P // variant.m))))
    # rows below the padding would only be multiplied by zero, but must be numbers: the last one that is read
    rows = row * variant.m - top + np.arange(variant.alpha)
    rows = np.minimum(rows, x.height + bottom - 1)
    return np.asarray(4 * ((image * x.rows + rows) * x.pitch - left), np.int32)


def _places(problem: ConvProblem, variant: Variant, y: Planar) -> Array:
    """See `Multiply.PLACES`."""
    image, row = (axis.reshape(-1) for axis in np.indices((problem.N, -(-problem.P // variant.m))))
    first = 4 * (image * y.rows + row * variant.m) * y.pitch
    return np.stack([first, problem.P - row * variant.m], axis=1).astype(np.int32)


def _weights(problem: ConvProblem, variant: Variant, width: int) -> Array:
    """See `Multiply.WEIGHTS`; output channels that are missing in the last chunk are zero."""
    v = np.empty((-(-problem.K // width), variant.products, channels(problem), width), np.float32)
    parts = transformed_filters(kernels(problem), variant.matrices, width)
    for chunk, part in zip(v, parts, strict=True):
        chunk[...] = part.transpose(0, 2, 1)
    return v
