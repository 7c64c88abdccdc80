"""Convolution by Fourier transforms, for kernels that span seven pixels or more (overlap-save tiles).

The padded input is cut into windows of TY x TX pixels (1, 8, 12, 16, 24 or 32 each) that overlap by what the
kernel spans, less one. With F the two-dimensional discrete Fourier transform and * the conjugate,

    Y = F^-1 [ sum over c of F(d_c) F(g_c)* ]

is the circular correlation of window and kernel, whose first TY - R + 1 rows and TX - S + 1 columns are the
convolution. Per output pixel and pair of channels that takes four real products for each of TY (TX/2 + 1)
frequencies, shared by all output pixels of the window: 5.8 instead of 49 for 7x7 on 16x16, 3.3 on 32x32. Of
a strided layer only the needed results are inverted and stored, all are multiplied. A dilated kernel is a
larger one with zeros.

As in `winograd`, tiles are done in blocks: transform the block's input, multiply frequency by frequency,
transform back. Workspace: both spectra of a block.

Rounding: a transform of n numbers errs by at most ``7 u log2(n)`` of its 2-norm (Higham, Accuracy and
Stability, theorem 24.2; u = 2^-24), the filters' are made in float64 and rounded once, and the sum over C
channels adds ``2 C u``. With ``|x|_2 <= sqrt(TY TX) max |x|`` an output errs by at most

    sqrt(TY TX) (14 log2(TY TX) + 2 C + 8) u [sum over c of R S max |g_c| max |d_c|],

which for many channels of data of equal size is sqrt(TY TX) / (R S / 2) times the bound of summing products,
and never more than sqrt(TY TX) times it with 256 more terms: `growth`. What is met is far smaller: the
largest error over the largest output of 7x7 kernels on normal data is 2e-7, 2e-7 and 4e-7 for 16, 64 and 256
channels (direct summation: 1e-6, 2e-6, 3e-6, as its sums are longer). NaN and infinity spread over their
tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, sqrt

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Planar, Scratch, Target, side_by_side
from zeroskip.codegen.layout import odd_lines, round_up
from zeroskip.conv.algorithm import PEAK, Algorithm, Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.fft_kernel import Inverse, Multiply, Product, Read, Tiling, Write, read_kernel
from zeroskip.conv.problem import Array, ConvProblem
from zeroskip.conv.sharing import shares, tasks_for

LEAST = 7
"""The kernel spans at least this many pixels in one direction; smaller ones have better algorithms."""
LENGTHS = (8, 12, 16, 24, 32)
WORSE = 1.6  # windows with so many times more numbers can be faster only where filters fill the memory
MOST = 6  # variants
# Register tiles by number of registers: output vectors of a chunk, and lines.
LINES = {32: {3: 4, 2: 6, 1: 12}, 16: {2: 2, 1: 6}}
BLOCK_BYTES = 2 << 20  # of both spectra of a block
LARGEST = 1 << 30


def spans(problem: ConvProblem) -> tuple[int, int]:
    """Rows and columns from the kernel's first cell to its last."""
    (R, S), (dy, dx) = problem.w.shape[2:], problem.dilations
    return (R - 1) * dy + 1, (S - 1) * dx + 1


def _lengths(span: int, outputs: int, stride: int) -> list[int]:
    """Transforms worth trying for an axis: windows that are not much longer, in all, than they could be."""
    if span == 1:
        return [1]
    total = {n: n * -(-outputs // ((n - span) // stride + 1)) for n in LENGTHS if n >= span + stride - 1}
    return [n for n in total if total[n] <= WORSE * min(total.values())]


def tilings(problem: ConvProblem, target: Target) -> list[Tiling]:
    """The windows to choose from."""
    both = spans(problem)
    ys, xs = (
        _lengths(span, outputs, stride)
        for span, outputs, stride in zip(both, (problem.P, problem.Q), problem.strides, strict=True)
    )
    found = [_tiling(problem, ty, tx, target) for ty in ys for tx in xs]
    return [tiling for tiling in found if weight_bytes(problem, tiling) <= LARGEST]


def _tiling(problem: ConvProblem, ty: int, tx: int, target: Target) -> Tiling:
    most = 1 if tx > 1 else (target.lanes - 1) // problem.strides[1] + 1
    lines = -(-problem.Q // -(-problem.Q // most)) if tx == 1 else 1
    return Tiling(ty, tx, spans(problem), problem.strides, target.lanes, lines)


def weight_bytes(problem: ConvProblem, tiling: Tiling) -> int:
    """Bytes of the filters' spectra."""
    inputs, outputs = problem.C // problem.groups, problem.K // problem.groups
    return 8 * tiling.frequencies * inputs * problem.groups * round_up(outputs, tiling.lanes)


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    rows, columns = spans(problem)
    if max(rows, columns) < LEAST:
        return (
            f"the kernel spans {rows}x{columns} pixels; transforms are for kernels of {LEAST} or more, "
            "as they cost more than they save in smaller ones"
        )
    longest = LENGTHS[-1]
    if any(
        span > 1 and span + stride - 1 > longest
        for span, stride in zip((rows, columns), problem.strides, strict=True)
    ):
        return f"the kernel spans {rows}x{columns} pixels; the longest transform has {longest}"
    if not tilings(problem, target):
        return f"the filters' spectra would take more than {LARGEST >> 30} GB"
    return None


@dataclass(frozen=True)
class Variant:
    """Windows of ty x tx, chunks of nv vectors of output channels; as text ``16x32/3``."""

    ty: int
    tx: int
    nv: int

    def __str__(self) -> str:
        return f"{self.ty}x{self.tx}/{self.nv}"

    def tiling(self, problem: ConvProblem, target: Target) -> Tiling:
        """The windows."""
        return _tiling(problem, self.ty, self.tx, target)


def parse_variant(text: str) -> Variant:
    """The inverse of ``str(variant)``."""
    tile, _, nv = text.partition("/")
    ty, tx = map(int, tile.split("x"))
    return Variant(ty, tx, int(nv))


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    vectors = -(-(problem.K // problem.groups) // target.lanes)
    sizes = [nv for nv in LINES[target.registers] if nv <= vectors]
    least = min(round_up(vectors, nv) for nv in sizes)
    nvs = [nv for nv in sizes if round_up(vectors, nv) == least][:2]
    texts = [str(Variant(t.ty, t.tx, nv)) for t in tilings(problem, target) for nv in nvs]
    return sorted(texts, key=lambda text: _cycles(problem, text, target))[:MOST]


def growth(text: str) -> float:
    """The factor sqrt(TY TX): see above."""
    variant = parse_variant(text)
    return sqrt(variant.ty * variant.tx)


def _cycles(problem: ConvProblem, text: str, target: Target) -> float:
    """Products at nine tenths of the peak, filters from memory once a block, and the transforms."""
    variant = parse_variant(text)
    plan = Blocks(problem, variant, target)
    tiling, tiles = plan.tiling, plan.count
    inputs = problem.C // problem.groups
    lines = plan.blocks * plan.lines
    vectors = plan.vectors
    products = 4 * tiling.frequencies * inputs * lines * vectors / 2 / PEAK
    size = weight_bytes(problem, tiling)
    weights = size * plan.blocks / (12 if size < 8 << 20 else 6)
    point = tiling.tx * tiling.lines * (2 + 1.5 * log2(tiling.ty * tiling.tx))
    rows = (tiling.ty + tiling.outputs[0]) / 2  # of the inverse, the second half is done where it is needed
    transforms = tiles * point * (-(-problem.C // target.lanes) * tiling.ty + vectors * rows)
    return max(products, weights) + transforms


@dataclass(frozen=True, eq=False)
class Blocks:
    """How a layer is cut: tiles, blocks of so many tiles, and the sizes of a block's spectra (in bytes)."""

    problem: ConvProblem
    variant: Variant
    target: Target

    @property
    def tiling(self) -> Tiling:
        """The windows."""
        return self.variant.tiling(self.problem, self.target)

    @property
    def mr(self) -> int:
        """Lines of a register tile."""
        return LINES[self.target.registers][self.variant.nv]

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of an image, down and across."""
        down, across = self.tiling.outputs
        return -(-self.problem.P // down), -(-self.problem.Q // across)

    @property
    def count(self) -> int:
        """Tiles."""
        return self.problem.N * self.grid[0] * self.grid[1]

    @property
    def vectors(self) -> int:
        """Vectors of output channels: whole chunks for each group."""
        per_group = -(-(self.problem.K // self.problem.groups) // self.target.lanes)
        return self.problem.groups * round_up(per_group, self.variant.nv)

    @property
    def tiles(self) -> int:
        """Tiles of a block, as equal as can be: as many as `BLOCK_BYTES` hold, a register tile at least."""
        line = 8 * self.target.lanes * (-(-self.problem.C // self.target.lanes) + self.vectors)
        fitting = BLOCK_BYTES // (line * self.tiling.lines * self.tiling.frequencies)
        most = max(fitting, -(-self.mr // self.tiling.lines))
        return -(-self.count // -(-self.count // most))

    @property
    def blocks(self) -> int:
        """Blocks."""
        return -(-self.count // self.tiles)

    @property
    def lines(self) -> int:
        """Lines of a block, whole register tiles."""
        return round_up(self.tiles * self.tiling.lines, self.mr)

    @property
    def block(self) -> int:
        """Of a spectrum: bytes of all lines of a vector of channels."""
        return 8 * self.target.lanes * self.lines

    def frequency(self, vectors: int) -> int:
        """Bytes of a frequency: an odd number of cache lines, to spread them over cache sets."""
        return odd_lines(vectors * self.block)


def tile_table(blocks: Blocks, x: Planar, y: Planar) -> Array:
    """`Read.TILES`."""
    problem, (down, across) = blocks.problem, blocks.tiling.outputs
    rows, columns = (np.arange(n) * size for n, size in zip(blocks.grid, (down, across), strict=True))
    grid = np.meshgrid(np.arange(problem.N), rows, columns, indexing="ij")
    image, row, column = (axis.reshape(-1) for axis in grid)
    top, left = row * problem.strides[0] - problem.pads[0], column * problem.strides[1] - problem.pads[1]
    window = 4 * ((image * x.rows + top) * x.pitch + left)
    place = 4 * ((image * y.rows + row) * y.pitch + column)
    table = np.stack([window, top, left, place, problem.P - row, problem.Q - column], axis=1)
    return table.astype(np.int32)


def filter_spectra(problem: ConvProblem, tiling: Tiling, nv: int) -> Array:
    """`Multiply.WEIGHTS`: conjugate spectra over TY TX, in float64, rounded once."""
    inputs, outputs = problem.C // problem.groups, problem.K // problem.groups
    width = nv * tiling.lanes
    chunks = -(-outputs // width)
    result = np.zeros((tiling.frequencies, problem.groups * chunks, inputs, nv, 2, tiling.lanes), np.float32)
    cells = np.zeros((width, inputs, tiling.ty, tiling.tx))
    spread = cells[:, :, : tiling.spans[0] : problem.dilations[0], : tiling.spans[1] : problem.dilations[1]]
    w = problem.w.reshape(problem.groups, outputs, *problem.w.shape[1:])
    for number in range(problem.groups * chunks):
        group, chunk = divmod(number, chunks)
        part = w[group, chunk * width : (chunk + 1) * width]
        spread[...] = 0
        spread[: len(part)] = part
        whole = np.fft.rfft2(cells) if tiling.tx > 1 else np.fft.rfft(cells[..., 0])
        spectrum = whole.reshape(nv, tiling.lanes, inputs, -1).conj() / (tiling.ty * tiling.tx)
        result[:, number, :, :, 0], result[:, number, :, :, 1] = (
            half.transpose(3, 2, 0, 1) for half in (spectrum.real, spectrum.imag)
        )
    return result


def _build(problem: ConvProblem, text: str, site: Site) -> tuple[Call, ...]:
    blocks = Blocks(problem, parse_variant(text), site.target)
    tiles = tile_table(blocks, site.x.planar, site.y.planar)
    frequency = blocks.frequency(-(-problem.C // site.target.lanes))
    sum_frequency = blocks.frequency(blocks.vectors)
    shared: dict[str, Argument] = {
        "TILES": tiles,
        "SPECTRA": Address(site.allocate(blocks.tiling.frequencies * frequency)),
        "FREQUENCY": frequency,
        "BLOCK": blocks.block,
        "SUMS": Address(site.allocate(blocks.tiling.frequencies * sum_frequency)),
        "SUM_FREQUENCY": sum_frequency,
        "SUM_BLOCK": blocks.block,
    }
    made = (
        (Read, *_read(problem, blocks, site)),
        (Multiply, *_multiply(problem, blocks, site)),
        (Write, *_write(problem, blocks, site)),
    )
    calls = [zero_borders(site.y, site.threads)]
    for first in range(0, blocks.count, blocks.tiles):
        tiles_here = min(blocks.tiles, blocks.count - first)
        own: dict[str, Argument] = {"FIRST": first, "LINES": tiles_here * blocks.tiling.lines}
        for slots, call, values in made:
            named = {**shared, **own, **values}
            tasks = call.tasks if slots is Multiply else call.tasks * tiles_here
            calls.append(Call(call.kernel, tuple(named[slot.name] for slot in slots), tasks, call.scratch))
    return *side_by_side(*calls[:2]), *calls[2:]


Made = tuple[Call, dict[str, Argument]]


def _read(problem: ConvProblem, blocks: Blocks, site: Site) -> Made:
    """The input transform, its tasks per tile; slots that differ from block to block are missing."""
    x, lanes, scratch = site.x.planar, site.target.lanes, blocks.tiling.scratch
    parts, share = shares(-(-problem.C // lanes), tasks_for(site.threads, blocks.tiles))
    values: dict[str, Argument] = {
        "INPUT": site.x.address,
        "PLANE": x.plane,
        "PITCH": 4 * x.pitch,
        "HEIGHT": problem.H,
        "WIDTH": problem.W,
        "CHANNELS": problem.C,
        "PARTS": parts,
        "SHARE": share * lanes,
        "SCRATCH": Scratch(),
        "SCRATCH_STRIDE": scratch,
    }
    return Call(read_kernel(blocks.tiling), (), parts, scratch), values


def _multiply(problem: ConvProblem, blocks: Blocks, site: Site) -> Made:
    """The products of a block."""
    nv, frequencies = blocks.variant.nv, blocks.tiling.frequencies
    weights = filter_spectra(problem, blocks.tiling, nv)
    share = -(-frequencies // tasks_for(site.threads))
    chunks = weights.shape[1]
    values: dict[str, Argument] = {
        "FREQUENCIES": frequencies,
        "SHARE": share,
        "CHUNKS": chunks,
        "GROUP_CHUNKS": chunks // problem.groups,
        "INPUTS": problem.C // problem.groups,
        "WEIGHTS": weights,
        "WEIGHT_FREQUENCY": weights[0].nbytes,
    }
    return Call(Product(blocks.mr, nv).kernel(), (), -(-frequencies // share)), values


def _write(problem: ConvProblem, blocks: Blocks, site: Site) -> Made:
    """The inverse transform, its tasks per tile."""
    lanes, scratch, residual = site.target.lanes, blocks.tiling.scratch, site.residual
    parts, share = shares(blocks.vectors, tasks_for(site.threads, blocks.tiles))
    outputs, vectors = problem.K // problem.groups, blocks.vectors // problem.groups
    bias = np.zeros((problem.groups, vectors * lanes), np.float32)
    if problem.bias is not None:
        bias[:, :outputs] = problem.bias.reshape(problem.groups, outputs)
    values: dict[str, Argument] = {
        "PARTS": parts,
        "SHARE": share,
        "VECTORS": blocks.vectors,
        "GROUP_VECTORS": vectors,
        "GROUP_OUTPUTS": outputs,
        "BIAS": bias,
        "OUTPUT": site.y.address,
        "OUTPUT_PLANE": site.y.planar.plane,
        "PITCH": 4 * site.y.planar.pitch,
        "RESIDUAL": residual.address if residual else Address(-1),
        "RESIDUAL_PLANE": residual.planar.plane if residual else 0,
        "SCRATCH": Scratch(),
        "SCRATCH_STRIDE": scratch,
    }
    inverse = Inverse(blocks.tiling, problem.activation, residual is not None)
    return Call(inverse.kernel(), (), parts, scratch), values


ALGORITHM = Algorithm(
    "fft",
    "products of spectra instead of sums over large kernels, on overlapping tiles",
    "Mathieu, Henaff, LeCun, ICLR 2014; overlap-save after Stockham 1966",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
    growth=growth,
)
