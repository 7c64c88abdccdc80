"""Indirect convolution: a matrix product reads its rows through pointers (Dukhan 2019, arXiv 1907.02129).

Instead of im2col's copies there is an *indirection buffer*: for every tile of MR output pixels and every
cell of the kernel, where the cell's input pixels begin; those in the padding point at a row of zeros. The
micro-kernel, MR pixels by NV vectors of output channels, reads each pixel's channels through it. So strides,
padding and dilation cost nothing, and the buffer takes P Q R S words, C times fewer than im2col's matrix.
Cells all of whose MR pixels lie in the padding are then left out, the zeros we skip here: of a 3x3 over 7x7
pixels one in ten, with dilation 12 over 16x16 two of three.

As published, pixels are vectors of channels (NHWC). Our planes are not, so the input is first turned into
``float32[N][H W + 1][C]``: part of this algorithm's time, and its workspace. (The last pixel of an image is
its row of zeros: entries are offsets within an image, so one buffer serves all images, at any address.) Sums
are turned back on their way out. The indirection buffer depends on shapes only, it is made with the plan and
kept beside the weights. Depthwise layers, 1x1 kernels and few output channels gain nothing: turning costs as
much as it saves.
"""

from __future__ import annotations

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Scratch, Target
from zeroskip.codegen.layout import round_up
from zeroskip.codegen.target import SECOND_CACHE
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.channel_weights import channel_weights, tile_of
from zeroskip.conv.indirect_kernel import Multiply, Product, Turn, turn_kernel
from zeroskip.conv.problem import Array, ConvProblem
from zeroskip.conv.sharing import shares, tasks_for

# (MR, NV) by number of registers; MR divides the lanes of a vector.
TILES = {32: ((8, 3), (8, 2), (4, 4), (8, 1)), 16: ((4, 3), (4, 2), (4, 1), (2, 4))}
LARGEST = 2**31 - 2**20
# So many bytes of a chunk's weights stay in the second cache; with more, products take so many times as long.
RESIDENT, STREAMING = 3 * SECOND_CACHE // 4, 1.3


def image_words(problem: ConvProblem) -> int:
    """Floats of an image as pixels, its row of zeros included."""
    return (problem.H * problem.W + 1) * problem.C


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    if 4 * problem.N * image_words(problem) > LARGEST:
        return "the input as pixels would take more than 2 GB; its offsets are of 32 bits"
    if 4 * problem.P * problem.Q * problem.R * problem.S > LARGEST:
        return "the indirection buffer would take more than 2 GB"
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    vectors = -(-(problem.K // problem.groups) // target.lanes)
    tiles = [tile for tile in TILES[target.registers] if target.holds(*tile)]
    return [f"{mr}x{nv}" for mr, nv in tiles if nv <= vectors]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    """Products at eight tenths of the peak, LANES by LANES transpositions in and out."""
    mr, nv = tile_of(variant)
    tiles = problem.N * -(-problem.P * problem.Q // mr) * share_inside(problem, mr)
    chunks = problem.groups * -(-(problem.K // problem.groups) // (nv * target.lanes))
    inputs = problem.C // problem.groups
    products = tiles * chunks * problem.R * problem.S * (inputs * max(mr * nv, mr + nv) / 2 / 0.8 + 6)
    if 4 * nv * target.lanes * problem.w[0].size > RESIDENT:
        products *= STREAMING
    turned = problem.N * problem.H * round_up(problem.W, target.lanes) * -(-problem.C // target.lanes) * 5
    out = problem.N * problem.P * problem.Q * chunks * nv * 12
    return products + turned + out


def share_inside(problem: ConvProblem, mr: int) -> float:
    """About what share of the cells of tiles read any pixel, taking tiles to be parts of rows."""
    (top, left), (dy, dx), (sy, sx) = problem.pads[:2], problem.dilations, problem.strides
    rows = np.arange(problem.P) * sy + np.arange(problem.R)[:, None] * dy - top
    first = np.arange(0, problem.Q, mr) * sx + np.arange(problem.S)[:, None] * dx - left
    last = first + (min(mr, problem.Q) - 1) * sx
    down, across = (rows >= 0) & (rows < problem.H), (last >= 0) & (first < problem.W)
    return float(down.mean() * across.mean())


def indirection(problem: ConvProblem, mr: int) -> Array:
    """int32[tiles][R S][MR]: bytes from an image's start to what each cell of each output pixel reads."""
    pixels = np.arange(round_up(problem.P * problem.Q, mr))
    p, q = np.divmod(pixels, problem.Q)
    r, s = np.divmod(np.arange(problem.R * problem.S)[:, None], problem.S)
    row = p * problem.strides[0] + r * problem.dilations[0] - problem.pads[0]
    column = q * problem.strides[1] + s * problem.dilations[1] - problem.pads[1]
    inside = (row >= 0) & (row < problem.H) & (column >= 0) & (column < problem.W) & (p < problem.P)
    pixel = np.where(inside, row * problem.W + column, problem.H * problem.W)
    offsets = (4 * problem.C * pixel).reshape(problem.R * problem.S, -1, mr)
    return np.ascontiguousarray(offsets.transpose(1, 0, 2).astype(np.int32))


def entries(problem: ConvProblem, table: Array) -> tuple[Array, Array]:
    """`Multiply.FIRST_ENTRIES` and `Multiply.ENTRIES`: the cells of an `indirection` that read any pixel."""
    zeros = 4 * problem.C * problem.H * problem.W
    tile, cell = np.nonzero((table != zeros).any(axis=2))
    first = np.searchsorted(tile, np.arange(len(table) + 1))
    return first.astype(np.int32), np.column_stack([cell, table[tile, cell]]).astype(np.int32)


def _runs(problem: ConvProblem, site: Site) -> tuple[Array, Array]:
    """`Multiply.FIRST_RUNS` and `Multiply.RUNS` of blocks of LANES consecutive pixels."""
    lanes, size, y = site.target.lanes, problem.P * problem.Q, site.y.planar
    starts = np.arange(0, size, lanes)
    cuts = np.unique(np.concatenate([starts, np.arange(0, size, problem.Q), [size]]))
    p, q = np.divmod(cuts[:-1], problem.Q)
    runs = np.stack([cuts[:-1] % lanes, np.diff(cuts), 4 * (p * y.pitch + q)], axis=1)
    first = np.append(np.searchsorted(cuts, starts), len(runs))
    return first.astype(np.int32), runs.astype(np.int32)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    pixels = Address(site.allocate(4 * problem.N * image_words(problem)))
    turn = _turn(problem, pixels, site)
    return turn, _multiply(problem, *tile_of(variant), pixels, site), zero_borders(site.y, site.threads)


def _turn(problem: ConvProblem, pixels: Address, site: Site) -> Call:
    x = site.x.planar
    values: dict[Turn, Argument] = {
        Turn.INPUT: site.x.address,
        Turn.PLANE: x.plane,
        Turn.IMAGE: x.image,
        Turn.PITCH: 4 * x.pitch,
        Turn.CHANNELS: problem.C,
        Turn.HEIGHT: problem.H,
        Turn.WIDTH: problem.W,
        Turn.PIXELS: pixels,
        Turn.PIXELS_IMAGE: 4 * image_words(problem),
    }
    return Call(turn_kernel(), tuple(values[slot] for slot in Turn), problem.N * (problem.H + 1))


def _multiply(problem: ConvProblem, mr: int, nv: int, pixels: Address, site: Site) -> Call:
    lanes, residual = site.target.lanes, site.residual
    first_entries, table = entries(problem, indirection(problem, mr))
    first_runs, runs = _runs(problem, site)
    weights, bias = channel_weights(problem, nv * lanes)
    chunks, blocks = len(weights), len(first_runs) - 1
    wanted = tasks_for(site.threads, problem.N)
    block_parts, block_share = shares(blocks, wanted)
    chunk_parts, chunk_share = shares(chunks, -(-wanted // block_parts))
    product = Product(mr, nv, problem.activation, residual is not None)
    scratch = product.scratch(lanes)
    values: dict[Multiply, Argument] = {
        Multiply.PIXELS: pixels,
        Multiply.PIXELS_IMAGE: 4 * image_words(problem),
        Multiply.FIRST_ENTRIES: first_entries,
        Multiply.ENTRIES: table,
        Multiply.CELLS: problem.R * problem.S,
        Multiply.TILES: len(first_entries) - 1,
        Multiply.BLOCKS: blocks,
        Multiply.BLOCK_PARTS: block_parts,
        Multiply.BLOCK_SHARE: block_share,
        Multiply.CHUNK_PARTS: chunk_parts,
        Multiply.CHUNK_SHARE: chunk_share,
        Multiply.CHUNKS: chunks,
        Multiply.GROUP_CHUNKS: chunks // problem.groups,
        Multiply.GROUP_INPUTS: problem.C // problem.groups,
        Multiply.GROUP_OUTPUTS: problem.K // problem.groups,
        Multiply.WEIGHTS: weights,
        Multiply.BIAS: bias,
        Multiply.FIRST_RUNS: first_runs,
        Multiply.RUNS: runs,
        Multiply.OUTPUT: site.y.address,
        Multiply.OUTPUT_PLANE: site.y.planar.plane,
        Multiply.OUTPUT_IMAGE: site.y.planar.image,
        Multiply.RESIDUAL: residual.address if residual else Address(-1),
        Multiply.RESIDUAL_PLANE: residual.planar.plane if residual else 0,
        Multiply.SCRATCH: Scratch(),
        Multiply.SCRATCH_STRIDE: scratch,
    }
    tasks = problem.N * chunk_parts * block_parts
    return Call(product.kernel(), tuple(values[slot] for slot in Multiply), tasks, scratch)


ALGORITHM = Algorithm(
    "indirect",
    "a matrix product whose rows are found through a buffer of pointers; pixels as vectors of channels",
    "Dukhan 2019, arXiv 1907.02129",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
    borders=False,
)
