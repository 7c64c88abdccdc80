"""Dense direct convolution with output channels in the vector (Zhang, Franchetti, Low, ICML 2018).

The register tile is the paper's: MR neighbouring pixels of an output row by NV vectors of output channels. Of
each tap, NV vectors of weights are loaded and each of the MR input pixels is broadcast. The paper blocks the
input by channels, too; that is not needed, for a broadcast finds its pixel in any layout: planes are read
where they are, at any stride and shift, with no regard to cache lines. The sums of about LANES pixels are
transposed on their way into the output's planes, which costs as much as LANES taps or so.

`direct` has pixels in the vector: nothing is transposed, and few output channels are no loss. But 49 pixels
fill four vectors of sixteen to 77 %, where seven tiles of seven pixels lose nothing.
"""

from __future__ import annotations

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Scratch, Target
from zeroskip.codegen.layout import SLACK
from zeroskip.codegen.target import SECOND_CACHE
from zeroskip.conv.algorithm import PEAK, Algorithm, Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.channel_direct_kernel import Arg, Piece, Product
from zeroskip.conv.channel_weights import channel_weights, tile_of
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.sharing import shares, tasks_for

# (MR, NV) by number of registers: sums, NV vectors of weights and a pixel must fit. Tiles of fewer pixels
# than `LEAST` are for rows of less than twice as many.
TILES = {
    32: ((14, 2), (14, 1), (13, 2), (10, 2), (9, 3), (8, 3), (7, 3), (4, 6), (2, 8), (1, 8)),
    16: ((8, 1), (7, 1), (6, 2), (5, 2), (4, 3), (3, 3), (2, 4), (1, 6)),
}
LEAST = {32: 7, 16: 3}
# Input that passes over and over, once for each chunk of output channels.
ROWS_BYTES = SECOND_CACHE // 2
# Cycles: until a sum can be added to; of a vector of weights, hidden behind others and alone; of transposing
# and storing LANES pixels of LANES channels; of a tile, besides its multiply-adds.
LATENCY, HIDDEN, STREAMED, TURN, START = 4.0, 0.5, 2.0, 70.0, 12.0


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    if 4 * target.lanes * problem.strides[1] > SLACK:
        return f"columns {problem.strides[1]} apart; the last tile of a row would read past the buffer's end"
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    vectors = -(-(problem.K // problem.groups) // target.lanes)
    widest = min(problem.Q, target.lanes)
    least = min(LEAST[target.registers], widest // 2 + 1)
    tiles = [(mr, min(nv, vectors)) for mr, nv in TILES[target.registers] if least <= mr <= widest]
    return [f"{mr}x{nv}" for mr, nv in dict.fromkeys(tiles)]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    """Products near the peak, and for each piece a transposition."""
    mr, nv = tile_of(variant)
    piece = Piece.of(mr, problem.Q, target.lanes)
    chunks = problem.groups * -(-(problem.K // problem.groups) // (nv * target.lanes))
    tiles = problem.N * problem.P * -(-problem.Q // mr) * chunks
    pieces = problem.N * -(-problem.P // piece.rows) * -(-problem.Q // piece.columns) * chunks
    tap = max(mr * nv / 2 / PEAK + HIDDEN * nv, STREAMED * nv, LATENCY)
    return float(tiles * (tap * problem.w[0].size + START) + pieces * nv * TURN)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    (mr, nv), y = tile_of(variant), site.y.planar
    piece = Piece.of(mr, problem.Q, site.target.lanes)
    # zeros right of a row are written with it where there are lanes for them (5-10 % of small maps)
    right = y.pitch - y.width
    right = right if right <= piece.right(y.width) else 0
    multiply = _multiply(problem, piece, nv, right, site)
    return multiply, zero_borders(site.y, site.threads, right=not right)


def _multiply(problem: ConvProblem, piece: Piece, nv: int, right: int, site: Site) -> Call:
    x, y, residual, lanes = site.x.planar, site.y.planar, site.residual, site.target.lanes
    (sy, sx), (top, left) = problem.strides, problem.pads[:2]
    r, s = np.indices((problem.R, problem.S)).reshape(2, -1) * np.reshape(problem.dilations, (2, 1))
    weights, bias = channel_weights(problem, nv * lanes)
    chunks, inputs = len(weights), problem.C // problem.groups
    product = Product(piece, nv, sx, problem.activation, residual is not None)
    row_parts, row_share, chunk_parts, chunk_share = _cut(problem, piece, chunks, site)
    origin, scratch = site.x.address, product.scratch(lanes)
    values: dict[Arg, Argument] = {
        Arg.INPUT: Address(origin.buffer, origin.offset - 4 * (top * x.pitch + left)),
        Arg.PLANE: x.plane,
        Arg.IMAGE: x.image,
        Arg.ROW: 4 * x.pitch * sy,
        Arg.CELLS: (4 * (r * x.pitch + s)).astype(np.int32),
        Arg.CELL_COUNT: len(r),
        Arg.GROUP_INPUTS: inputs,
        Arg.WEIGHTS: weights,
        Arg.BIAS: bias,
        Arg.CHUNKS: chunks,
        Arg.CHUNK_PARTS: chunk_parts,
        Arg.CHUNK_SHARE: chunk_share,
        Arg.GROUP_CHUNKS: chunks // problem.groups,
        Arg.GROUP_OUTPUTS: problem.K // problem.groups,
        Arg.P: problem.P,
        Arg.Q: problem.Q,
        Arg.ROW_PARTS: row_parts,
        Arg.ROW_SHARE: row_share,
        Arg.OUTPUT: site.y.address,
        Arg.OUTPUT_PLANE: y.plane,
        Arg.OUTPUT_IMAGE: y.image,
        Arg.PITCH: 4 * y.pitch,
        Arg.RIGHT: right,
        Arg.RESIDUAL: residual.address if residual else Address(-1),
        Arg.RESIDUAL_PLANE: residual.planar.plane if residual else 0,
        Arg.SCRATCH: Scratch(),
        Arg.SCRATCH_STRIDE: scratch,
    }
    tasks = problem.N * row_parts * chunk_parts
    return Call(product.kernel(), tuple(values[slot] for slot in Arg), tasks, scratch)


def _cut(problem: ConvProblem, piece: Piece, chunks: int, site: Site) -> tuple[int, int, int, int]:
    """Tasks that share an image's rows, rows of each; tasks that share the chunks, chunks of each.

    The rows of a task stay in the second cache while the chunks of weights pass.
    """
    wanted = tasks_for(site.threads, problem.N)
    image_bytes = 4 * problem.C * problem.H * problem.W
    bands = -(-problem.P // piece.rows)
    parts, share = shares(bands, max(wanted, -(-image_bytes // ROWS_BYTES)))
    return parts, share * piece.rows, *shares(chunks, -(-wanted // parts))


ALGORITHM = Algorithm(
    "channel_direct",
    "dense direct convolution with output channels in the vector, pixels broadcast",
    "Zhang, Franchetti, Low, ICML 2018",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
    in_place=True,
)
