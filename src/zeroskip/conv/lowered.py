"""Convolution by lowering: pixels are copied into a matrix with a row per tap, which the filters multiply.

What differs between lowerings is the `Matrix`: which shifts of the input are copied, where, and where a panel
of output pixels finds its taps. The workspace is exactly the matrix: no pitch, no padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Plain, Planar, Scratch, Target
from zeroskip.conv import lowered_copy
from zeroskip.conv.algorithm import PEAK, Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.lowered_copy import Runs, Shape, Units
from zeroskip.conv.lowered_kernel import Multiplication, Multiply, Product
from zeroskip.conv.lowered_turned import Turned
from zeroskip.conv.panels import Panels
from zeroskip.conv.problem import Array, ConvProblem, blocked
from zeroskip.conv.sharing import shares, tasks_for
from zeroskip.ops.planes import view

# (MR, NV) by number of registers.
TILES = {32: ((8, 3), (6, 4), (12, 2)), 16: ((4, 3), (6, 2), (2, 4))}
TURNED = {32: (13, 2), 16: (6, 2)}
TURNED_PANEL = 4  # vectors of pixels
TURN_AT = 0.1  # of the lanes would be lost
SEGMENT_BYTES = 24 << 10  # of a panel, half the first cache
LARGEST = 2**31 - 2**20


@dataclass(frozen=True)
class Tile:
    """A register tile: MR output channels by NV vectors of pixels; `turned`, pixels by channels."""

    mr: int
    nv: int
    turned: bool = False

    def __str__(self) -> str:
        return f"{self.mr}x{self.nv}{'t' if self.turned else ''}"

    @property
    def panel(self) -> int:
        """Vectors of pixels of a panel, at most."""
        return TURNED_PANEL if self.turned else self.nv

    def block(self, lanes: int) -> int:
        """Output channels."""
        return self.nv * lanes if self.turned else self.mr


def tile_of(text: str) -> Tile:
    """The tile that a variant's text begins with."""
    mr, nv = text.partition("/")[0].removesuffix("t").split("x")
    return Tile(int(mr), int(nv), "t" in text)


@dataclass(frozen=True, eq=False)
class Matrix:
    """A lowered matrix: its bytes, what is copied, and the tables that the product reads (see `Multiply`).

    `by_panel` where the units of the copy are the panels.
    """

    bytes: int
    by_panel: bool
    units: Units
    panels: Array
    offsets: Array
    runs: Array


def rows_of_pixels(problem: ConvProblem, bounds: Array, images_inside: bool = False) -> tuple[Runs, Array]:
    """The runs of all panels, and the first run of each; panel i holds pixels bounds[i] to bounds[i+1].

    Pixels are numbered image by image or, with `images_inside`, row by row and within a row image by image.
    """
    Q = problem.Q
    cuts = np.unique(np.concatenate([np.arange(0, bounds[-1], Q), bounds]))
    start, pixels = cuts[:-1], np.diff(cuts)
    line, column = np.divmod(start, Q)
    outer, inner = np.divmod(line, problem.N if images_inside else problem.P)
    image, row = (inner, outer) if images_inside else (outer, inner)
    first = np.searchsorted(start, bounds)
    place = start - np.repeat(bounds[:-1], np.diff(first))
    return Runs(image, row, column, pixels, place), first


def panel_bounds(pixels: int, nv: int, lanes: int) -> tuple[Array, Array]:
    """Pixel numbers that cut `pixels` into panels, and the vectors of each panel."""
    panels = Panels(-(-pixels // lanes), nv)
    vectors = np.where(np.arange(panels.count) < panels.wide, panels.nv, panels.nv - 1)
    return np.minimum(np.concatenate([[0], np.cumsum(vectors)]) * lanes, pixels), vectors


def panel_table(
    rows: Runs, first: Array, start: Array, kind: Array, vectors: Array, site: Site, ordered: bool
) -> tuple[Array, Array]:
    """`Multiply.PANELS` and `Multiply.RUNS`; `ordered` where later pixels of a panel lie later in a plane."""
    lines = view(site.y.layout)
    place, pixels = 4 * rows.place, rows.pixels
    at = rows.image * lines.image + rows.row * lines.pitch + 4 * rows.column
    # runs that follow each other in a plane are one
    new = np.append(True, at[1:] != (at + 4 * pixels)[:-1])
    new[first[:-1]] = True
    number = np.cumsum(new) - 1
    pixels, place, at = np.bincount(number, pixels).astype(int), place[new], at[new]
    first = np.append(number[first[:-1]], len(at))
    # of a plain array, what comes after an image is another channel's
    spills = ordered and isinstance(site.y.layout, Planar)
    end = (at + 4 * pixels)[first[1:] - 1] if spills else np.zeros(len(vectors), int)
    whole = pixels[first[:-1]] == vectors * site.target.lanes
    counts = np.add.reduceat(pixels, first[:-1])
    panels = np.stack([start, kind, vectors, counts, first[:-1], first[1:], end, whole], axis=1)
    return panels.astype(np.int32), np.stack([place, pixels, at], axis=1).astype(np.int32)


def calls(problem: ConvProblem, matrix: Matrix, tile: Tile, site: Site) -> tuple[Call, ...]:
    """Lower, multiply, and zero the borders if there are any."""
    at = Address(site.allocate(matrix.bytes))
    steps = _multiply(problem, matrix, at, tile, site, *_copy(problem, matrix, at, site))
    if isinstance(site.y.layout, Plain):
        return steps
    return *steps, zero_borders(site.y, site.threads)


def _copy(problem: ConvProblem, matrix: Matrix, at: Address, site: Site) -> tuple[Shape, Call]:
    parts, share = shares(problem.C, tasks_for(site.threads, len(matrix.units.start)))
    return lowered_copy.copy(problem, matrix.units, site.x, at, parts, share, site.target.lanes)


def _multiply(
    problem: ConvProblem, matrix: Matrix, at: Address, tile: Tile, site: Site, shape: Shape, copy: Call
) -> tuple[Call, ...]:
    """The product, after the copy or, where its tasks are whole panels that are copied as such, with it."""
    widest, lanes = int(matrix.panels[:, 2].max()), site.target.lanes
    block = tile.block(lanes)
    w = blocked(problem, block, natural=True)
    groups, blocks, _, taps = w.shape
    # whole channels, as even as can be
    channels, cells = problem.C // groups, problem.R * problem.S
    segments = 1 if tile.turned else min(channels, -(-taps * widest * lanes * 4 // SEGMENT_BYTES))
    segment = -(-channels // segments) * cells
    cuts = [
        w[..., tap : tap + segment].transpose(0, 1, 3, 2).reshape(groups, -1)
        for tap in range(0, taps, segment)
    ]
    parts, share = shares(blocks * block, tasks_for(site.threads, len(matrix.panels)), block)
    scratch = share * widest * lanes * 4
    if tile.turned:
        scratch += (widest * lanes + tile.mr) * tile.nv * lanes * 4
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
        Multiply.ROWS: blocks * block,
        Multiply.CHANNELS: problem.K // groups,
        Multiply.PARTS: parts,
        Multiply.SHARE: share,
        Multiply.BIAS: np.zeros(problem.K, np.float32) if problem.bias is None else problem.bias,
        Multiply.OUTPUT: site.y.address,
        Multiply.OUTPUT_PLANE: view(site.y.layout).plane,
        Multiply.RESIDUAL: residual.address if residual else Address(-1),
        Multiply.RESIDUAL_PLANE: residual.planar.plane if residual else 0,
        Multiply.SCRATCH: Scratch(),
        Multiply.SCRATCH_STRIDE: scratch,
    }
    fused = matrix.by_panel and parts == 1
    nv = tile.nv if tile.turned else widest
    product = Product(tile.mr, nv, widest, problem.activation, residual is not None, shape if fused else None)
    arguments = tuple(values[slot] for slot in Multiply) + (copy.arguments if fused else ())
    multiply = Call(
        product.kernel(Turned if tile.turned else Multiplication),
        arguments,
        len(matrix.panels) * parts,
        scratch,
    )
    return (multiply,) if fused else (copy, multiply)


def tiles(pixels: int, target: Target) -> list[Tile]:
    """The register tiles to choose from for so many pixels."""
    straight = [Tile(*tile) for tile in TILES[target.registers] if target.holds(*tile)]
    lost = -(-pixels // target.lanes) * target.lanes / pixels - 1
    return [*straight, Tile(*TURNED[target.registers], turned=True)] if lost > TURN_AT else straight


def too_large(size: int) -> str | None:
    """The refusal of a matrix of so many bytes, or None."""
    if size <= LARGEST:
        return None
    return f"the lowered matrix would take {size / 1e9:.1f} GB; its offsets are of 32 bits, up to 2 GB"


def cycles(problem: ConvProblem, tile: Tile, pixels: int, target: Target, copied: int) -> float:
    """Predicted time: products near the peak (turned, a fifth longer), `copied` floats into the second cache.

    `pixels` are cut into panels, as often as there are so many.
    """
    groups, lanes, taps = problem.groups, target.lanes, problem.w[0].size
    times = problem.N * problem.P * problem.Q // pixels
    block = tile.block(lanes)
    blocks = times * groups * -(-problem.K // groups // block)
    if tile.turned:
        tiles = -(-pixels // tile.mr)
        products = 1.2 * max(tile.mr * tile.nv, tile.mr + tile.nv) * tiles * blocks
    else:
        vectors = -(-pixels // lanes)
        panels = -(-vectors // tile.nv)
        products = max(block * vectors, vectors + panels * (block + 1)) * blocks
    vectors = -(-problem.N * problem.P * problem.Q // lanes)
    runs = copied / min(problem.Q, tile.panel * lanes)
    return float(products / 2 * taps / PEAK + copied / lanes * 4 + runs * 8 + problem.K * vectors * 10)
