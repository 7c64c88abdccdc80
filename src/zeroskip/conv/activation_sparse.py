"""Convolution that skips zero activations: ours, after SparseTrain and Kurtz et al.

SparseTrain (Gong et al. 2019) tests vectors of inputs for zeros and walks over the bits of the result; Kurtz
et al. (ICML 2020) compress activations on the fly. Here one bit per activation is written first (a list of
the non-zero channels of each pixel; 1/32 of the map's bytes), then columns are walked from left to right.
Every non-zero x of a column is broadcast once and multiplied by the weights of all T taps of a kernel row
that meet it, KV vectors of output channels each. The sums of those T pixels stay in registers; with each
step one of them is finished for this block of channels, and one begins. A column has the channels of a block
in some of the kernel's rows, 64 bits at most; their weights stay in the first cache over all pixels of a
tile. Tiles of pixels take the weights once.

A load of weights for each multiply-add is what limits this: the first cache gives 1.7 vectors a cycle where
2 are multiplied. So steps may take two columns: channels that are not zero in both load their weights once
for both, and the others follow, one column after the other (at 70 % zeros, 14 % fewer loads); or three.

With column stride s and dilation d a tap meets every lcm(s, d)-th column, so there is a walk for each set of
taps that meet the same columns, and for each residue of the pixels that they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Scratch, Target
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.conv.activation_sparse_kernels import Multiply, Product
from zeroskip.conv.algorithm import DENSITY, Algorithm, Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.nonzero_masks import BITS, Masks, Part, find_nonzeros
from zeroskip.conv.problem import Array, ConvProblem

# Columns of a step. (Three instead of two: 1-3 % faster on maps of 27x27 and more, slower on smaller ones.)
STEPS = (1, 2, 3)
# KiB of weights that stay in the first cache: of a part (see `Part`), for a chunk of output channels.
RESIDENT = (24, 48)
TOGETHER = 48  # channels in some kernel rows, at most
# Weights of a layer that the second cache does not keep: they are asked for ahead. (256x14x14: 15 % faster.)
STREAMED = 512 << 10
MOST_AHEAD = 8  # cache lines asked for at each step of a walk
TILE_PIXELS = 224  # output pixels of a task, or more: enough to use weights that were loaded


@dataclass(frozen=True)
class Taps:
    """Kernel columns ``first, first + step ...``, `count` of them: those of one walk."""

    first: int
    step: int
    count: int


def taps_of(problem: ConvProblem, kv: int, columns: int, target: Target) -> list[Taps]:
    """The kernel's columns by walks: those that meet the same columns of the map, as registers allow."""
    stride, dilation = problem.strides[1], problem.dilations[1]
    step = stride // gcd(stride, dilation)
    most = max(1, _registers(target) // kv - columns + 1)
    walks = []
    for start in range(min(step, problem.S)):
        chain = range(start, problem.S, step)
        each = -(-len(chain) // -(-len(chain) // most))
        walks += [Taps(chain[at], step, len(chain[at : at + each])) for at in range(0, len(chain), each)]
    return walks


def apart(problem: ConvProblem) -> tuple[int, int]:
    """How far a walk's columns are from each other: in columns of the map, in pixels of the output."""
    stride, dilation = problem.strides[1], problem.dilations[1]
    pixels = dilation // gcd(stride, dilation)
    return pixels * stride, pixels


def _registers(target: Target) -> int:
    """Vectors of sums at a time."""
    return 24 if target.registers == 32 else 12


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    """Nothing: every convolution has pixels and channels."""
    return None


def part_of(problem: ConvProblem, kv: int, resident: int, target: Target) -> Part:
    """As many channels as have weights that stay in the first cache; kernel rows together where they are few.

    (Rows together make visits fewer: 16 channels of 55x55 became 9 % faster, 32 channels slower.)
    """
    most = max(1, min(BITS, (resident << 10) // (problem.S * kv * 4 * target.lanes)))
    channels = problem.C // problem.groups
    rows = _equal(problem.R, max(1, min(most, TOGETHER) // channels))
    return Part(_equal(channels, most // rows), rows)


def _equal(total: int, most: int) -> int:
    """The size of equal parts of at most so many."""
    return -(-total // -(-total // most))


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    vectors = -(-problem.K // problem.groups // target.lanes)
    widest = (4, 8) if target.registers == 32 else (4, 2)
    shapes: dict[tuple[int, int, Part], str] = {}
    for kv, columns, resident in product(dict.fromkeys(min(kv, vectors) for kv in widest), STEPS, RESIDENT):
        part = part_of(problem, kv, resident, target)
        taps = max(taps.count for taps in taps_of(problem, kv, 1, target))
        if columns == 1 or kv * (taps + columns - 1) <= _registers(target):
            shapes.setdefault((kv, columns, part), f"{columns}x{kv}/{resident}")
    return list(shapes.values())


def _numbers(variant: str) -> tuple[int, int, int]:
    """Columns of a step, vectors of output channels, and KiB of weights in the first cache."""
    columns, kv, resident = variant.replace("/", "x").split("x")
    return int(columns), int(kv), int(resident)


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    """Fitted: loads of weights and of x; per step a branch for each set of its columns; sums; bits; streams.

    Steps that reach beyond the last column cost as much as others.
    """
    step, kv, resident = _numbers(variant)
    part = part_of(problem, kv, resident, target)
    channels, filters = problem.C // problem.groups, problem.K // problem.groups
    chunks = problem.groups * -(-filters // (kv * target.lanes))
    columns = problem.N * problem.P * problem.strides[1] * chunks * round_up(problem.Q, step)
    weights = (1 - (1 - DENSITY) ** step) / step * problem.S / problem.strides[1] * kv
    entries = columns * channels * problem.R * (0.52 * weights + 0.6 * DENSITY)
    visit = 1.8 * kv + 11 * ((1 << step) - 1) / step
    visits = columns * part.blocks(problem) * part.bands(problem) * visit
    finding = 12.6 * problem.N * problem.H * problem.W * problem.C / target.lanes
    out = 6 * problem.N * problem.P * problem.Q * problem.K / target.lanes
    return entries + visits + finding + out + 7 * problem.w.nbytes / LINE


def _walks(problem: ConvProblem, walks: list[Taps], part: Part, kv: int, head: int, lanes: int) -> Array:
    """The table of `Walk`s; see there."""
    stride, dilation, pixel_step = problem.strides[1], problem.dilations[1], apart(problem)[1]
    table = []
    for number, pixel in product(range(len(walks)), range(min(pixel_step, problem.Q))):
        taps = walks[number]
        before = sum(other.count for other in walks[:number])
        table.append((
            pixel * stride + taps.first * dilation,
            -(-(problem.Q - pixel) // pixel_step) + taps.count - 1,
            4 * kv * lanes * (head + pixel),
            4 * kv * lanes * part.channels * part.rows * before,
            taps.count,
        ))  # fmt: skip
    return np.array(table, np.int32)


def _weights(problem: ConvProblem, walks: list[Taps], part: Part, chunk: int) -> Array:
    """The weights in the order of `Multiply.WEIGHTS`."""
    groups, channels, filters = problem.groups, problem.C // problem.groups, problem.K // problem.groups
    chunks, blocks, bands = -(-filters // chunk), part.blocks(problem), part.bands(problem)
    w = np.zeros((groups, chunks * chunk, blocks * part.channels, bands * part.rows, problem.S), np.float32)
    w[:, :filters, :channels, : problem.R] = problem.w.reshape(groups, filters, *problem.w.shape[1:])
    w = w.reshape(groups, chunks, chunk, blocks, part.channels, bands, part.rows, problem.S)
    w = w.transpose(0, 1, 3, 5, 6, 4, 7, 2)
    pieces = [w[..., taps.first :: taps.step, :][..., : taps.count, :] for taps in walks]
    return _from_line(np.concatenate([piece.reshape(*w.shape[:4], -1) for piece in pieces], axis=-1))


def _from_line(array: Array) -> Array:
    """A copy that begins with a cache line: loads that straddle two take twice as long."""
    room = np.empty(array.nbytes + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    copy: Array = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    columns, kv, resident = _numbers(variant)
    part = part_of(problem, kv, resident, site.target)
    masks = find_nonzeros(problem, part, (2 * columns - 1) * apart(problem)[0], site)
    return (
        *masks.calls,
        _multiply(problem, columns, kv, part, masks, site),
        zero_borders(site.y, site.threads),
    )


def _multiply(problem: ConvProblem, columns: int, kv: int, part: Part, masks: Masks, site: Site) -> Call:
    x, y, residual, lanes = site.x.planar, site.y.planar, site.residual, site.target.lanes
    (sy, _), (dy, _), (top, left) = problem.strides, problem.dilations, problem.pads[:2]
    groups, filters, channels = problem.groups, problem.K // problem.groups, problem.C // problem.groups
    chunk = kv * lanes
    chunks = -(-filters // chunk)
    bias = np.zeros((groups, chunks * chunk), np.float32)
    if problem.bias is not None:
        bias[:, :filters] = problem.bias.reshape(groups, filters)
    walks = taps_of(problem, kv, columns, site.target)
    most = max(taps.count for taps in walks)
    # sums that one visit finishes leave the first cache at once
    once = part.blocks(problem) * part.bands(problem) == 1
    tile = 1 if once else _equal(problem.P, -(-TILE_PIXELS // problem.Q))
    tiles = -(-problem.P // tile)
    head = (max(most, columns) - 1) * apart(problem)[1]
    slots = problem.Q + head
    # a row more than there are: the last walk loads, and the last transposition reads, further
    scratch = 4 * ((tile + 1) * slots + lanes) * chunk
    origin = site.x.address
    values: dict[Multiply, Argument] = {
        Multiply.INPUT: Address(origin.buffer, origin.offset - 4 * left),
        Multiply.INPUT_PLANE: x.plane,
        Multiply.INPUT_IMAGE: x.image,
        Multiply.INPUT_PITCH: 4 * x.pitch,
        Multiply.MASKS: masks.address,
        Multiply.HEIGHT: problem.H,
        Multiply.MASK_WIDTH: masks.width,
        Multiply.GROUPS: groups,
        Multiply.CHANNELS: channels,
        Multiply.BLOCK: part.channels,
        Multiply.BLOCKS: part.blocks(problem),
        Multiply.PER_ROW: -(-(1 << 16) // part.channels),
        Multiply.TO_ROW: dy * 4 * x.pitch - part.channels * x.plane,
        Multiply.KERNEL_HEIGHT: problem.R,
        Multiply.BANDS: part.bands(problem),
        Multiply.ROW_STRIDE: sy,
        Multiply.ROW_DILATION: dy,
        Multiply.TOP: top,
        Multiply.WALKS: (table := _walks(problem, walks, part, kv, head, lanes)),
        Multiply.WALK_COUNT: len(table),
        Multiply.P: problem.P,
        Multiply.Q: problem.Q,
        Multiply.SLOTS: slots,
        Multiply.TILE: tile,
        Multiply.TILES: tiles,
        Multiply.TASKS: problem.N * tiles,
        Multiply.CHUNKS: chunks,
        Multiply.WEIGHTS: _weights(problem, walks, part, chunk),
        Multiply.WEIGHT_BYTES: (weight_bytes := 4 * part.channels * part.rows * chunk * problem.S),
        Multiply.BIAS: bias,
        Multiply.FILTERS: filters,
        Multiply.OUTPUT: site.y.address,
        Multiply.OUTPUT_PLANE: y.plane,
        Multiply.PITCH: 4 * y.pitch,
        Multiply.IMAGE: y.image,
        Multiply.RESIDUAL: residual.address if residual else Address(-1),
        Multiply.RESIDUAL_PLANE: residual.planar.plane if residual else 0,
        Multiply.SCRATCH: Scratch(),
        Multiply.SCRATCH_STRIDE: scratch,
    }
    ahead = min(MOST_AHEAD, -(-weight_bytes // LINE // (tile * problem.Q)))
    kernel = Product(
        kv,
        columns,
        apart(problem),
        tuple(sorted({taps.count for taps in walks})),
        part.rows,
        ahead if problem.w.nbytes > STREAMED and not once else 0,
        problem.activation,
        residual is not None,
    )
    arguments = tuple(values[slot] for slot in Multiply)
    return Call(kernel.kernel(), arguments, problem.N * tiles * chunks * groups, scratch)


ALGORITHM = Algorithm(
    "activation_sparse",
    "zero activations skipped: a bit for each, vectors over output channels",
    "ours, after Gong et al. 2019 and Kurtz et al., ICML 2020",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
    in_place=True,
    skips="activations",
)
