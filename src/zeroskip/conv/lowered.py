"""Convolution by lowering: pixels are copied into a matrix with a row per tap, which the filters multiply.

What differs between lowerings is the `Matrix`: which shifts of the input are copied, where, and where a panel
of output pixels finds its taps. The workspace is exactly the matrix: no pitch, no padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Planar, Scratch, Target
from zeroskip.conv.algorithm import Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.lowered_kernel import Fill, Multiply, Product, fill_kernel
from zeroskip.conv.panels import Panels
from zeroskip.conv.problem import Array, ConvProblem, blocked

# (MR, NV) by number of registers.
TILES = {32: ((8, 3), (6, 4), (12, 2)), 16: ((4, 3), (6, 2), (2, 4))}
SEGMENT_BYTES = 24 << 10  # of a panel, half the first cache
TASKS_PER_THREAD = 4
LARGEST = 2**31 - 2**20


@dataclass(frozen=True, eq=False)
class Matrix:
    """A lowered matrix: its bytes and the tables that the kernels read (see `Fill`, `Multiply`)."""

    bytes: int
    shifts: Array
    units: Array
    fill_runs: Array
    panels: Array
    offsets: Array
    runs: Array


@dataclass(frozen=True, eq=False)
class Rows:
    """Consecutive output pixels as runs within rows; one entry per run."""

    image: Array
    row: Array
    column: Array
    pixels: Array
    place: Array  # in the order of the output pixels


def rows_of_pixels(problem: ConvProblem, bounds: Array, images_inside: bool = False) -> tuple[Rows, Array]:
    """The runs of all panels, and the first run of each; panel i holds pixels bounds[i] to bounds[i+1].

    Pixels are numbered image by image or, with `images_inside`, row by row and within a row image by image.
    """
    Q = problem.Q
    cuts = np.unique(np.concatenate([np.arange(0, bounds[-1], Q), bounds]))
    start, pixels = cuts[:-1], np.diff(cuts)
    line, column = np.divmod(start, Q)
    outer, inner = np.divmod(line, problem.N if images_inside else problem.P)
    image, row = (inner, outer) if images_inside else (outer, inner)
    return Rows(image, row, column, pixels, start), np.searchsorted(start, bounds)


def panel_bounds(pixels: int, nv: int, lanes: int) -> tuple[Array, Array]:
    """Pixel numbers that cut `pixels` into panels, and the vectors of each panel."""
    panels = Panels(-(-pixels // lanes), nv)
    vectors = np.where(np.arange(panels.count) < panels.wide, panels.nv, panels.nv - 1)
    return np.minimum(np.concatenate([[0], np.cumsum(vectors)]) * lanes, pixels), vectors


def input_starts(problem: ConvProblem, rows: Rows, x: Planar) -> Array:
    """Bytes from pixel (0, 0) of a plane to what tap (0, 0) reads for each run's first pixel."""
    (sy, sx), (top, left) = problem.strides, problem.pads[:2]
    row, column = rows.row * sy - top, rows.column * sx - left
    return np.asarray(4 * ((rows.image * x.rows + row) * x.pitch + column))


def panel_table(
    rows: Rows, first: Array, start: Array, kind: Array, vectors: Array, y: Planar, ordered: bool
) -> tuple[Array, Array]:
    """`Multiply.PANELS` and `Multiply.RUNS`; `ordered` where later pixels of a panel lie later in a plane."""
    at = 4 * ((rows.image * y.rows + rows.row) * y.pitch + rows.column)
    end = (at + 4 * rows.pixels)[first[1:] - 1] if ordered else np.zeros(len(vectors), int)
    panel = np.repeat(np.arange(len(vectors)), np.diff(first))
    inside = 4 * (rows.place - rows.place[first[:-1]][panel])
    panels = np.stack([start, kind, vectors, first[:-1], first[1:], end], axis=1)
    return panels.astype(np.int32), np.stack([inside, rows.pixels, at], axis=1).astype(np.int32)


def calls(problem: ConvProblem, matrix: Matrix, mr: int, site: Site) -> tuple[Call, ...]:
    """Lower, multiply, and zero what is not a pixel."""
    at = Address(site.allocate(matrix.bytes))
    fill, multiply = _fill(problem, matrix, at, site), _multiply(problem, matrix, at, mr, site)
    return fill, multiply, zero_borders(site.y, site.threads)


def _parts(total: int, units: int, least: int, threads: int) -> tuple[int, int]:
    """Tasks per unit, and a task's share of `total`, a multiple of `least`."""
    parts = 1 if threads == 1 else -(-TASKS_PER_THREAD * threads // units)
    share = -(-total // (parts * least)) * least
    return -(-total // share), share


def _fill(problem: ConvProblem, matrix: Matrix, at: Address, site: Site) -> Call:
    parts, share = _parts(problem.C, len(matrix.units), 1, site.threads)
    values: dict[Fill, Argument] = {
        Fill.INPUT: site.x.address,
        Fill.PLANE: site.x.planar.plane,
        Fill.CHANNELS: problem.C,
        Fill.SHIFTS: matrix.shifts,
        Fill.SHIFT_COUNT: matrix.shifts.size,
        Fill.UNITS: matrix.units,
        Fill.RUNS: matrix.fill_runs,
        Fill.MATRIX: at,
        Fill.PARTS: parts,
        Fill.SHARE: share,
    }
    arguments = tuple(values[slot] for slot in Fill)
    return Call(fill_kernel(problem.strides[1]), arguments, len(matrix.units) * parts)


def _multiply(problem: ConvProblem, matrix: Matrix, at: Address, mr: int, site: Site) -> Call:
    nv = int(matrix.panels[:, 2].max())
    w = blocked(problem, mr, natural=True)
    groups, blocks, _, taps = w.shape
    segment = -(-taps // -(-taps * nv * site.target.lanes * 4 // SEGMENT_BYTES))
    cuts = [
        w[..., tap : tap + segment].transpose(0, 1, 3, 2).reshape(groups, -1)
        for tap in range(0, taps, segment)
    ]
    parts, share = _parts(blocks * mr, len(matrix.panels), mr, site.threads)
    scratch = share * nv * site.target.lanes * 4
    residual = site.residual
    values: dict[Multiply, Argument] = {
        Multiply.MATRIX: at,
        Multiply.PANELS: matrix.panels,
        Multiply.OFFSETS: matrix.offsets,
        Multiply.RUNS: matrix.runs,
        Multiply.GROUPS: groups,
        Multiply.TAPS: taps,
        Multiply.SEGMENT: segment,
        Multiply.WEIGHTS: np.ascontiguousarray(np.concatenate(cuts, axis=1)),
        Multiply.ROWS: blocks * mr,
        Multiply.CHANNELS: problem.K // groups,
        Multiply.PARTS: parts,
        Multiply.SHARE: share,
        Multiply.BIAS: np.zeros(problem.K, np.float32) if problem.bias is None else problem.bias,
        Multiply.OUTPUT: site.y.address,
        Multiply.OUTPUT_PLANE: site.y.planar.plane,
        Multiply.RESIDUAL: residual.address if residual else Address(-1),
        Multiply.RESIDUAL_PLANE: residual.planar.plane if residual else 0,
        Multiply.SCRATCH: Scratch(),
        Multiply.SCRATCH_STRIDE: scratch,
    }
    product = Product(mr, nv, problem.activation, residual is not None)
    arguments = tuple(values[slot] for slot in Multiply)
    return Call(product.kernel(), arguments, len(matrix.panels) * parts, scratch)


def tiles(target: Target) -> list[tuple[int, int]]:
    """The register tiles to choose from."""
    return [tile for tile in TILES[target.registers] if target.holds(*tile)]


def too_large(size: int) -> str | None:
    """The refusal of a matrix of so many bytes, or None."""
    if size <= LARGEST:
        return None
    return f"the lowered matrix would take {size / 1e9:.1f} GB; its offsets are of 32 bits, up to 2 GB"


def cycles(problem: ConvProblem, mr: int, nv: int, target: Target, copied: int) -> float:
    """Predicted time: products at nine tenths of the peak, and `copied` floats into the second cache."""
    vectors = -(-problem.N * problem.P * problem.Q // target.lanes)
    per_group = problem.K // problem.groups
    rows = problem.groups * -(-per_group // mr) * mr
    taps = problem.w[0].size
    panels = -(-vectors // nv)
    products = max(rows * vectors / 2, rows / mr * (vectors + panels * (mr + 1)) / 2) * taps / 0.9
    runs = copied / min(problem.Q, nv * target.lanes)
    return float(products + copied / target.lanes * 4 + runs * 8 + problem.K * vectors * 10)
