"""Panels whose rows are copied, shifted in width, so that every tap's vectors are aligned and near.

As in MEC (Cho & Brand 2017) only shifts in width are copied, but for one panel and one segment of the input
channels at a time, so that the copies stay in the first cache. A vector holds LANES pixels of one row of the
output or, where fewer columns are left, of several *row groups*: row y, y + h, y + 2h ... side by side. So 28
columns are a *strip* of 16, one of 8 (two rows to a vector) and one of 4 (four rows): 49 vectors, not 56. A
panel is NV such vectors below each other, and a *run* is NV + reach of them: what one shift in width of one
input plane gives to the taps of all heights. A tap (c, r, s) reads its run from vector r on. (Dilated rows
further apart than panels are high have nothing in common: each has a run of its own, without reach.)

    panel (NV = 3)     run (reach = 2), copied from column x + s - left
    y      a a a a     y-top    . . . .   <- vectors 0-2 are read by r = 0
    y + 1  a a a a     y-top+1  . . . .      vectors 1-3 by r = 1
    y + 2  a a a a     y-top+2  . . . .      vectors 2-4 by r = 2
                       y-top+3  . . . .
                       y-top+4  . . . .
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import numpy as np

from zeroskip.codegen import Builder, Expr, Kernel, Planar
from zeroskip.codegen.activations import activate
from zeroskip.codegen.expr import Var
from zeroskip.codegen.layout import LINE, SLACK
from zeroskip.conv.microkernel import Arg, Emitter, Tile
from zeroskip.conv.panels import Panels
from zeroskip.conv.problem import Array, ConvProblem

# Vectors of every third pixel would take gathering, those of every fourth reach too far behind the last row.
LARGEST_STRIDE = 2
# Rows of a kernel so far from each other have runs of their own.
APART = 8
# A strip more costs as much as so many vectors: copies of the rows around it, and starts of blocks.
STRIP_COSTS = 2


@dataclass(frozen=True)
class Strip:
    """Columns of the output, with the rows of `groups` runs of rows to a vector, and the `rows` of a run."""

    first: int
    width: int
    groups: int
    rows: int

    def side(self, lanes: int) -> int:
        """Vectors side by side."""
        return -(-self.width * self.groups // lanes)


@cache
def strips(width: int, height: int, pitch: int, lanes: int, cell: int = 1) -> tuple[Strip, ...]:
    """The columns of the output in strips that leave few lanes empty; rows are multiples of `cell`."""
    whole = width // lanes * lanes
    rest = _narrow_strips(whole, width - whole, height, pitch, lanes, cell) if whole < width else ()
    if whole and rest and rest[0].groups == 1:
        return (Strip(0, width, 1, height),)
    return (Strip(0, whole, 1, height), *rest) if whole else rest


def _narrow_strips(
    first: int, width: int, height: int, pitch: int, lanes: int, cell: int
) -> tuple[Strip, ...]:
    """Columns for less than a vector: in one strip, or in a filled one and what is then left."""
    groups = row_groups(width, height // cell, cell * pitch, lanes)
    one = (Strip(first, width, groups, cell * -(-height // cell // groups)),)
    share = 1 << width.bit_length() - 1
    if share == width:
        return one
    filled = _narrow_strips(first, share, height, pitch, lanes, cell)
    two = (*filled, *_narrow_strips(first + share, width - share, height, pitch, lanes, cell))
    return min(one, two, key=lambda cut: sum(strip.rows + STRIP_COSTS for strip in cut))


def row_groups(width: int, height: int, pitch: int, lanes: int) -> int:
    """How many rows of an image share a vector; what is read beside and below them must be in memory."""
    groups = max(1, lanes >> max(0, width - 1).bit_length())
    while groups > 1:
        rows = -(-height // groups)
        below = (groups * rows - height) * 4 * pitch
        if groups <= height and rows * pitch >= lanes // groups and below <= SLACK - LINE:
            break
        groups //= 2
    return groups


@dataclass(frozen=True)
class Shifts:
    """Which runs a layer's taps read: of every stride-th row and column of the input as it is."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]

    @cached_property
    def cells(self) -> tuple[Array, Array, Array]:
        """Of every cell (r, s) of the kernel: first row and column of its run, and its row within the run."""
        r, s = np.indices(self.kernel) * np.reshape(self.dilations, (2, 1, 1))
        if self.dilations[0] >= APART:
            return r, s, np.zeros_like(r)
        return r % self.strides[0], s, r // self.strides[0]

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(row, column) at which the runs of an input channel begin, from the padding's corner."""
        rows, columns, _ = self.cells
        return sorted(set(zip(rows.reshape(-1).tolist(), columns.reshape(-1).tolist(), strict=True)))

    @cached_property
    def reach(self) -> int:
        """Rows from the first to the last that taps of one run read."""
        return int(self.cells[2].max())

    def channel_vectors(self, nv: int) -> int:
        """Vectors that an input channel takes in a panel of `nv`."""
        return len(self.runs) * (nv + self.reach)

    def places(self, nv: int) -> Array:
        """Vectors from an input channel's first one to those of its taps (r, s)."""
        rows, columns, within = self.cells
        number = {run: i for i, run in enumerate(self.runs)}
        runs = [number[cell] for cell in zip(rows.flat, columns.flat, strict=True)]
        vectors: Array = np.asarray(runs, np.int64) * (nv + self.reach) + within.reshape(-1)
        return vectors

    def sources(self, x: Planar, pads: tuple[int, int, int, int]) -> Array:
        """Bytes from the pixel under an output pixel to the first pixel of its runs: (C, runs)."""
        top, left = pads[:2]
        runs: Array = np.array(self.runs)
        pixels = (runs[:, 0] - top) * x.pitch + runs[:, 1] - left
        return np.asarray(np.arange(x.channels)[:, None] * x.plane + 4 * pixels)


def shifts(problem: ConvProblem) -> Shifts:
    """The shifts of a layer; equal ones are one, for selectors ask again and again."""
    return _shifts((problem.R, problem.S), problem.strides, problem.dilations)


_shifts = cache(Shifts)


@dataclass(frozen=True, eq=False)
class Places:
    """Where the panels of a strip lie."""

    # int32[panels][row groups][4]: bytes to the first input and output pixel; rows, columns of y
    table: Array
    nv: int
    wide: int
    groups: int

    @property
    def count(self) -> int:
        """Panels."""
        return len(self.table)


def places(
    x: Planar, y: Planar, strides: tuple[int, int], widest: int, lanes: int, bands: int = 1, cell: int = 1
) -> list[Places]:
    """Panels of at most `widest` vectors over all images of y, strip by strip, each in `bands` of rows.

    Panels below each other follow each other, for the processor foresees such rows. Threads have a band each:
    what one writes in a layer it reads in the next. A pixel of y is a `cell` of so many rows and columns of
    outputs: 2 of pooled layers.
    """
    cut = strips(cell * y.width, cell * y.height, x.pitch * strides[0], lanes, cell)
    return [_places(strip, x, y, strides, widest, lanes, bands, cell) for strip in cut]


def _places(
    strip: Strip,
    x: Planar,
    y: Planar,
    strides: tuple[int, int],
    widest: int,
    lanes: int,
    bands: int,
    cell: int,
) -> Places:
    """The panels of a strip; those of fewer vectors come last."""
    down, across = strides
    share = lanes // strip.groups
    cut = Panels(strip.rows, widest, cell)
    nv, end = cut.nv, strip.first + strip.width
    sizes = [nv] * cut.wide + [nv - cell] * (cut.count - cut.wide)
    runs = list(zip(np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True))
    band = -(-len(runs) // bands)
    panels: dict[int, list[list[tuple[int, int, int, int]]]] = {nv: [], nv - cell: []}
    beside = range(0, LINE // 4, share)  # columns of a cache line: of AVX2 two vectors
    columns = range(strip.first, end, share * len(beside))
    for image, first, column0 in product(range(y.images), range(0, len(runs), band), columns):
        for (start, size), right in product(runs[first : first + band], beside):
            if (column := column0 + right) < end:
                rows = [start + g * strip.rows for g in range(strip.groups)]
                panels[size].append(
                    [
                        (
                            4 * ((image * x.rows + row * down) * x.pitch + column * across),
                            4 * ((image * y.rows + row // cell) * y.pitch + column // cell),
                            min(size, cell * y.height - row) // cell,
                            min(share, end - column) // cell,
                        )
                        for row in rows
                    ]
                )
    table = np.array(panels[nv] + panels[nv - cell], np.int32)
    return Places(table, nv, len(panels[nv]), strip.groups)


def kernel(tile: Tile) -> Kernel:
    """The micro-kernel of a tile, on panels where they are or shifted ones."""
    emitter = ShiftedEmitter if tile.row_groups else Emitter
    return Kernel(tile.name, lambda b: emitter(b, tile).emit())


class ShiftedEmitter(Emitter):
    """Emits the micro-kernel on shifted panels."""

    def __init__(self, b: Builder, tile: Tile) -> None:
        super().__init__(b, tile)
        self.pixels = self.scratch
        self.scratch = self.pixels + b.arg(Arg.PACKED_BYTES)
        self.share = b.lanes // tile.row_groups

    def panel(self, number: Expr, slot: Expr, nv: int) -> None:
        """The blocks of each group of the convolution, which read pixels of their own."""
        b, groups = self.b, self.tile.row_groups
        table = b.pointer(Arg.PLACES) + number * (16 * groups)
        entries = [[b.load_i32(table + 16 * g + 4 * i) for i in range(4)] for g in range(groups)]
        # the pixels of group g are lanes from g*share on: count from where lane 0 would be
        back, stride = [4 * self.share * g for g in range(groups)], self.tile.stride
        self.sources = [self.input + (e[0] - skip * stride) for e, skip in zip(entries, back, strict=True)]
        self.outputs = [entry[1] - skip // self.tile.cell for entry, skip in zip(entries, back, strict=True)]
        self.entries = entries
        size = b.arg(Arg.CONV_GROUP)
        with b.loop(self.first_block // size, (self.last_block + size - 1) // size) as group:
            first = b.maximum(self.first_block, group * size)
            last = b.minimum(self.last_block, (group + 1) * size)
            self.segments_of(nv, first, last, group)

    def fetch(self, nv: int, segment: Expr, group: Expr | None) -> None:
        """Copy the runs of the segment; a run has room for the NV + reach vectors of the highest panels."""
        b = self.b
        assert group is not None
        bounds = b.pointer(Arg.RUN_BOUNDS) + (group * self.segments + segment) * 4
        first, last = b.load_i32(bounds), b.load_i32(bounds + 4)
        reach, runs = b.arg(Arg.REACH), b.pointer(Arg.RUNS)
        with b.loop(first, last) as run:
            offset = b.load_i32(runs + run * 4)
            to = self.pixels + (run - first) * b.arg(Arg.RUN_BYTES)
            unrolled = nv if self.tile.row_groups == 1 else 0  # several groups are too much code for that
            for row in range(unrolled):
                self.copy(offset, b.int(row), to)
            with b.loop(unrolled, reach + nv) as below:
                self.copy(offset, below, to)

    def look_ahead(
        self, nv: int, segment: Expr, blocks: Expr, group: Expr | None, ends: bool
    ) -> Callable[[Expr], None]:
        """Asks the second cache for rows of a few channels of the next segment, or of the panel below."""
        b, tile = self.b, self.tile
        assert group is not None
        later = super().look_ahead(nv, segment, blocks, group, ends)
        if tile.row_groups > 1:
            return later
        number = group * self.segments + (0 if ends else segment + 1)
        bounds = b.pointer(Arg.RUN_BOUNDS) + number * 4
        first, step, row = b.load_i32(bounds), b.arg(Arg.CHANNEL_RUNS), b.arg(Arg.INPUT_STEP)
        channels = (b.load_i32(bounds + 4) - first) // step
        share = (channels + blocks - 1) // blocks * b.arg(Arg.FAR)
        runs, top = b.pointer(Arg.RUNS) + first * 4, self.sources[0] + row * (nv if ends else 0)

        def ask(block: Expr) -> None:
            later(block)
            begin = b.minimum(block * share, channels)
            with b.loop(begin, b.minimum(begin + share, channels)) as channel:
                corner = top + b.load_i32(runs + channel * step * 4)
                with b.loop(0, b.arg(Arg.REACH) + nv) as below:
                    for line in range(tile.stride + 1):
                        b.prefetch(corner + row * below + line * b.vector_bytes, near=False)

        return ask

    def copy(self, offset: Expr, v: Expr, to: Expr) -> None:
        """One vector of a run, from the rows of all groups."""
        b, stride = self.b, self.tile.stride
        row = offset + v * b.arg(Arg.INPUT_STEP)
        pixels = b.load_strided(self.sources[0] + row, stride)
        for g, source in enumerate(self.sources[1:], 1):
            above = b.lanes_below(self.share * g)
            pixels = b.select(above, pixels, b.load_strided(source + row, stride))
        b.store(pixels, to + v * b.vector_bytes, align=b.vector_bytes)

    def pixel_masks(self, nv: int) -> list[list[Expr]]:
        """The lanes of each row group that are pixels, for each vector to be stored."""
        b, cell = self.b, self.tile.cell
        if self.tile.row_groups == 1 and cell == 1:
            return [[b.lanes_below(self.entries[0][3])] * nv]
        masks = []
        for g, (_, _, rows, columns) in enumerate(self.entries):
            first = self.share // cell * g
            ends = [b.select(rows > v, columns + first, first) for v in range(nv // cell)]
            masks.append([b.lanes_between(first, end) for end in ends])
        return masks

    def store(self, k: Expr, row: list[Var], masks: list[list[Expr]]) -> None:
        """Residual, activation, store of the pixels alone; of pooled layers of the maxima."""
        b, pitch, tile = self.b, self.b.arg(Arg.OUTPUT_PITCH), self.tile
        values = self.maxima(row) if tile.pooled else [var.get() for var in row]
        for start, of_group in zip(self.outputs, masks, strict=True):
            for v, (y, mask) in enumerate(zip(values, of_group, strict=True)):
                at = start + pitch * v
                if tile.residual:
                    y = y + b.load_masked(self.residual + k * self.residual_plane + at, mask)
                y = activate(b, y, tile.activation)
                b.store_masked(y, self.output + k * self.output_plane + at, mask)

    def maxima(self, row: list[Var]) -> list[Expr]:
        """Of every two rows and two columns, in the first half of the lanes.

        The activation comes after them, for it grows with its argument. A NaN loses, as in a pool.
        """
        b, lanes = self.b, self.b.lanes
        found = []
        for above, below in zip(row[::2], row[1::2], strict=True):
            y = b.maximum(below.get(), above.get())
            left, right = (b.shuffle(y, y, range(side, 2 * lanes, 2)) for side in (0, 1))
            found.append(b.maximum(right, left))
        return found

    def zero_borders(self, group: Expr) -> None:
        """Nothing: `borders.zero_borders` did it, for panels here write only pixels."""
