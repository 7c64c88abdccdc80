"""The one micro-kernel: a register tile of MR output channels by NV vectors of pixels, taps in a loop.

A convolution is a sum of shifted planes: on planes of equal pitch, a tap (c, r, s) of the weights is one
*offset* into the input, and its work is one vector-scalar multiply-add per output channel over a run of
pixels. Hence one loop serves dense and sparse weights alike:

    acc[m][v]  = bias[m]
    for each tap j of the block of MR output channels:
        for v: x[v] = input[pixel(v) + offset[j]]
        for m: acc[m][v] += value[j][m] * x[v]
    output[m][v] = mask(pixel(v)) * activation(acc[m][v] + residual[m][v])

Dense weights list every tap, and all blocks share one offset list; CSR is MR = 1 with a list per output
channel (Park et al. 2017, "stretched" rows); blocks of 2, 4 or 8 output channels lie between (Elsen et al.
2020). Lists may run side by side, four or two: a block is then so many output channels, and a group of four
taps one or two of each.

Taps may be split into *segments* (runs of input channels) so that one segment's share of the input stays in
the first cache while all output channels pass over it; partial sums then wait in scratch memory.

A *shifted* panel first copies the rows of pixels that the segment's taps read into scratch memory, once for
each shift in width (`shifted_panel`). All loads of the taps are then aligned and near: worth it when many
output channels pass over them, for loads that straddle two cache lines take half as long again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr
from zeroskip.codegen.activations import Activation, activate, epilogue_tag
from zeroskip.codegen.expr import Var
from zeroskip.codegen.layout import LINE

# The taps of one output channel come in groups: their weights, then their offsets, fetched by one load.
# They stream from the last cache: what is this many bytes ahead is asked for (2 % of a ResNet-50; 512 bytes
# were too few).
GROUP = 4
AHEAD = 2048
# Lists side by side read their offsets so many groups before the taps: loads wait in line, and behind one
# whose address is not known yet they wait in vain (a tenth of the loop's time).
OFFSETS_AHEAD = 2


class Arg(IntEnum):
    """The kernel's argument slots."""

    INPUT = 0  # address of pixel (0, 0) of the first input plane
    OUTPUT = auto()  # the same of the output
    RESIDUAL = auto()
    BIAS = auto()  # float32[rows]
    ROWS = auto()  # int32[rows]: the output channel of each row of each block; CHANNELS where there is none
    # int32[segments][blocks][4]: first value's byte, first offset (MR = 1: base), taps, number of the block;
    # of lists side by side not this number, but the row of each
    BLOCKS = auto()
    OFFSETS = auto()  # int32[]: bytes from a pixel to its tap's pixel (MR > 1)
    # float32[taps][MR]; MR = 1: groups of float32 weights[4], offsets[4], the last of a list of fewer;
    # of lists side by side each group holds a tap of each in turn
    VALUES = auto()
    MASKS = auto()  # which lanes of each vector of a plane are pixels: see `Planar.masks`
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()  # bytes of scratch per thread
    CHANNELS = auto()  # K
    OUTPUT_PLANE = auto()  # bytes from one output plane to the next
    RESIDUAL_PLANE = auto()
    PANELS = auto()  # panels of a plane, of which the first WIDE have NV vectors, the others `Tile.less`
    WIDE = auto()
    PANELS_PER_TASK = auto()
    GROUPS = auto()  # tasks over output channels
    GROUP_BOUNDS = auto()  # int32[groups+1]: block numbers
    SEGMENTS = auto()
    TOTAL_BLOCKS = auto()
    ASK = auto()  # what later calls read, see `Asking`: its first byte
    ASK_TASK = auto()  # bytes for each task
    ASK_TURN = auto()  # bytes for each block
    COMPUTED = auto()  # bytes of a plane that the panels cover
    PLANE_END = auto()  # bytes of a plane in all; from COMPUTED on it is zero
    LEAD = auto()  # bytes of zeros before the first plane
    # of shifted panels only:
    CONV_GROUP = auto()  # blocks of one group of the convolution
    PLACES = auto()  # int32[panels][row groups][4]: see `shifted_panel.places`
    RUN_BOUNDS = auto()  # int32[groups of the convolution * segments + 1]: which of RUNS a segment copies
    RUNS = auto()  # int32[]: bytes from a pixel to the first pixel of a run
    REACH = auto()  # rows that taps reach down
    RUN_BYTES = auto()  # scratch for a run
    CHANNEL_RUNS = auto()  # runs of an input channel
    FAR = auto()  # 1 where the input lies so far that its rows are asked for ahead, else 0
    INPUT_STEP = auto()  # bytes from the pixels under a row of the output to those under the next
    OUTPUT_PITCH = auto()  # bytes
    PACKED_BYTES = auto()  # scratch for the copied rows; the partial sums follow


@dataclass(frozen=True)
class Tile:
    """A micro-kernel's shape and epilogue: everything its code depends on besides the target.

    With MR = 1, `unit` says how offsets are held: 0, in bytes as int32; else as uint16 multiples of so many
    bytes from a base, one for each block and segment: a quarter less to stream from memory. `row_groups` says
    how many runs of rows a vector of a shifted panel holds (0: panels are read where they are), `stride` how
    many pixels of the input a pixel of such a panel stands for. Where panels are `even`, all of NV vectors,
    the code is half as long. With several `lists` a block is so many output channels, each with its own taps.
    Shifted panels may be `pooled`: the maximum of every 2x2 outputs is written.
    """

    mr: int
    nv: int
    activation: Activation | None = None
    residual: bool = False
    segmented: bool = False
    row_groups: int = 0
    unit: int = 0
    stride: int = 1
    even: bool = False
    lists: int = 1
    pooled: bool = False

    @property
    def name(self) -> str:
        """E.g. ``taps_8x3_residual_relu``."""
        flags = f"{'_segmented' if self.segmented else ''}{'_pooled' if self.pooled else ''}"
        flags += epilogue_tag(self.activation, self.residual)
        shifted = f"_shifted{self.row_groups}by{self.stride}" if self.row_groups else ""
        unit = f"_unit{self.unit}" if self.unit else ""
        lists = f"{self.lists}of" if self.lists > 1 else ""
        return f"taps_{lists}{self.mr}x{self.nv}{'_even' if self.even else ''}{unit}{shifted}{flags}"

    @property
    def offset_bytes(self) -> int:
        """Bytes of an offset beside its weight (MR = 1)."""
        return 2 if self.unit else 4

    @property
    def cell(self) -> int:
        """Rows and columns of outputs that one number is written for, as `ConvProblem.cell`."""
        return 2 if self.pooled else 1

    @property
    def less(self) -> int:
        """Vectors of the panels that are not wide."""
        return self.nv - self.cell

    @property
    def rows(self) -> int:
        """Output channels of a block."""
        return self.mr * self.lists

    @property
    def entry_bytes(self) -> int:
        """Bytes of a block's entry in `Arg.BLOCKS`."""
        return 4 * (3 + self.lists)


class Emitter:
    """Emits the micro-kernel; its panels are read and written where they are."""

    def __init__(self, b: Builder, tile: Tile) -> None:
        self.b, self.tile = b, tile
        self.input, self.output, self.residual = (b.pointer(a) for a in (Arg.INPUT, Arg.OUTPUT, Arg.RESIDUAL))
        self.bias, self.masks, self.rows = (b.pointer(a) for a in (Arg.BIAS, Arg.MASKS, Arg.ROWS))
        self.blocks, self.offsets, self.values = (b.pointer(a) for a in (Arg.BLOCKS, Arg.OFFSETS, Arg.VALUES))
        self.scratch = b.pointer(Arg.SCRATCH) + b.thread * b.arg(Arg.SCRATCH_STRIDE)
        self.channels = b.arg(Arg.CHANNELS)
        self.output_plane, self.residual_plane = b.arg(Arg.OUTPUT_PLANE), b.arg(Arg.RESIDUAL_PLANE)
        self.total_blocks, self.segments = b.arg(Arg.TOTAL_BLOCKS), b.arg(Arg.SEGMENTS)

    def emit(self) -> None:
        """A task is some panels of pixels times a group of output-channel blocks."""
        b, nv, less = self.b, self.tile.nv, self.tile.less
        self.later, self.asked = b.pointer(Arg.ASK) + b.task * b.arg(Arg.ASK_TASK), b.var(b.int(0))
        groups = b.arg(Arg.GROUPS)
        group = b.task % groups
        bounds = b.pointer(Arg.GROUP_BOUNDS) + group * 4
        self.first_block, self.last_block = b.load_i32(bounds), b.load_i32(bounds + 4)
        panels, wide, share = b.arg(Arg.PANELS), b.arg(Arg.WIDE), b.arg(Arg.PANELS_PER_TASK)
        first = (b.task // groups) * share
        last = b.minimum(first + share, panels)
        with b.loop(first, b.minimum(last, wide)) as panel:
            self.panel(panel, panel * nv, nv)
        if not self.tile.even:
            with b.loop(b.maximum(first, wide), last) as panel:
                self.panel(panel, wide * nv + (panel - wide) * less, less)
        with b.when(last.equals(panels)):
            self.zero_borders(group)

    def panel(self, number: Expr, slot: Expr, nv: int) -> None:
        """All blocks of the task's group over the panel's `nv` vectors, which begin at vector `slot`."""
        b = self.b
        self.pixels, self.slot = self.input + slot * b.vector_bytes, slot
        self.segments_of(nv, self.first_block, self.last_block)

    def segments_of(self, nv: int, first: Expr, last: Expr, group: Expr | None = None) -> None:
        """The blocks from `first` to `last`, of one group of the convolution or all, segment by segment.

        The last segment has a loop of its own, for what would be decided in every block (5 % of 1x1 layers).
        """
        b = self.b
        end = self.segments - 1 if self.tile.segmented else b.int(0)
        if self.tile.segmented:
            with b.loop(0, end) as segment:
                self.segment(nv, segment, first, last, group, ends=False)
        self.segment(nv, end, first, last, group, ends=True)

    def segment(self, nv: int, number: Expr, first: Expr, last: Expr, group: Expr | None, ends: bool) -> None:
        """The blocks over one segment, the last one if this `ends`."""
        b = self.b
        self.fetch(nv, number, group)
        size = self.tile.entry_bytes
        entries = self.blocks + number * self.total_blocks * size
        if self.tile.lists > 1:
            look = self.look_ahead(nv, number, last - first, group, ends)
            self.blocks_of_lists(nv, number, entries + first * size, last - first, ends, look)
            return
        with b.loop(first, last) as entry:
            self.block(nv, number, entries + entry * size, ends)

    def fetch(self, nv: int, segment: Expr, group: Expr | None) -> None:
        """Make the segment's pixels ready: here they are."""

    def block(self, nv: int, segment: Expr, entry: Expr, ends: bool) -> None:
        """The register tile: initialise, run over the taps, finish."""
        b, mr = self.b, self.tile.mr
        first_value, first_offset, taps, block = (b.load_i32(entry + 4 * i) for i in range(4))
        rows = [block * mr + m for m in range(mr)]
        acc = self.start(segment, rows, nv)
        if mr == 1:
            self.grouped_taps(self.values + first_value, taps, self.pixels + first_offset, acc)
        else:
            self.prefetch(self.values + first_value, taps * (4 * mr))
            with b.loop(0, taps) as j:
                offset = b.load_i32(self.offsets + (first_offset + j) * 4)
                weights = self.values + first_value + j * (4 * mr)
                self.tap([b.broadcast(weights + 4 * m) for m in range(mr)], self.pixels + offset, acc)
        self.end(acc, rows, ends)

    def look_ahead(
        self, nv: int, segment: Expr, blocks: Expr, group: Expr | None, ends: bool
    ) -> Callable[[Expr], None]:
        """What asks the second cache, in each block, for a share of what comes next: here of `Arg.ASK`."""
        b, turn, begin = self.b, self.b.arg(Arg.ASK_TURN), self.asked.get()
        turns = b.minimum(blocks, (b.arg(Arg.ASK_TASK) - begin) // turn)
        later = self.later + begin
        self.asked.set(begin + turns * turn)

        def ask(block: Expr) -> None:
            with b.when(block < turns), b.loop(0, turn, LINE) as byte:
                b.prefetch(later + block * turn + byte, near=False)

        return ask

    def blocks_of_lists(
        self, nv: int, segment: Expr, entry: Expr, count: Expr, ends: bool, look: Callable[[Expr], None]
    ) -> None:
        """So many blocks (at least one) of lists side by side, from `entry` on: one stream of groups."""
        b, size = self.b, self.tile.entry_bytes
        at, base, *numbers = (b.load_i32(entry + 4 * i) for i in range(size // 4))
        group = b.var(self.values + at)
        step = GROUP * (4 + self.tile.offset_bytes)
        ahead = [[b.var(word) for word in self.words(group.get() + step * i)] for i in range(OFFSETS_AHEAD)]
        coming = [b.var(number) for number in numbers]
        with b.loop(0, count) as number:
            taps, *rows = (var.get() for var in coming)
            following = entry + b.minimum(number + 1, count - 1) * size
            for i, var in enumerate(coming, 2):
                var.set(b.load_i32(following + 4 * i))
            look(number)
            acc = self.start(segment, rows, nv)
            with b.loop(0, taps, GROUP):
                here = group.get()
                words, *later = [
                    *([var.get() for var in of] for of in ahead),
                    self.words(here + step * len(ahead)),
                ]
                for of, read in zip(ahead, later, strict=True):
                    for var, word in zip(of, read, strict=True):
                        var.set(word)
                group.set(here + step)
                self.group(here, self.offsets_of(words), self.pixels + base, acc)
            self.end(acc, rows, ends)

    def tap(self, weights: list[Expr], source: Expr, acc: list[list[Var]]) -> None:
        """One tap of a block: each input vector is loaded once and serves MR output channels.

        Every other vector goes first: in order they look like a stream, and the processor fetches from the
        second cache what would come next, in vain (5 % of a 1x1 layer).
        """
        b, nv = self.b, len(acc[0])
        order = (*range(0, nv, 2), *range(1, nv, 2))
        x = [b.load_vector(source + v * b.vector_bytes) for v in order]
        for w, row in zip(weights, acc, strict=True):
            for v, pixels in zip(order, x, strict=True):
                row[v].set(b.fma(w, pixels, row[v].get()))

    def prefetch(self, values: Expr, size: Expr) -> None:
        """Ask for the weights of the blocks to come, as many bytes as this block has."""
        b = self.b
        with b.loop(0, size, 64) as byte:
            b.prefetch(values + byte + AHEAD)

    def grouped_taps(self, at: Expr, taps: Expr, pixels: Expr, acc: list[list[Var]]) -> None:
        """All taps of one output channel, group by group."""
        b, width = self.b, self.tile.offset_bytes
        whole, size = taps & -GROUP, 4 + width
        with b.loop(0, whole, GROUP) as j:
            group = at + j * size
            self.group(group, self.group_offsets(group), pixels, acc)
        rest, left = at + whole * size, taps - whole
        with b.loop(0, left) as number:
            offset = b.load_i32(rest + left * 4 + number * width)
            offset = (offset & 0xFFFF) * self.tile.unit if self.tile.unit else offset
            self.tap([b.broadcast(rest + number * 4)], pixels + offset, acc)

    def group(self, at: Expr, offsets: list[Expr], pixels: Expr, acc: list[list[Var]]) -> None:
        """A group of taps, in turn of each list."""
        self.b.prefetch(at + AHEAD)
        for i, (weight, offset) in enumerate(zip(self.b.broadcasts(at), offsets, strict=True)):
            self.tap([weight], pixels + offset, [acc[i % len(acc)]])

    def group_offsets(self, at: Expr) -> list[Expr]:
        """The offsets of the group `at`, in bytes."""
        return self.offsets_of(self.words(at))

    def words(self, at: Expr) -> list[Expr]:
        """The offsets of the group `at` as they lie in memory."""
        return [self.b.load_i64(at + 4 * GROUP + i) for i in range(0, GROUP * self.tile.offset_bytes, 8)]

    def offsets_of(self, words: list[Expr]) -> list[Expr]:
        """Offsets in bytes."""
        bits, unit = 8 * self.tile.offset_bytes, self.tile.unit or 1
        return [((word >> i) & ((1 << bits) - 1)) * unit for word in words for i in range(0, 64, bits)]

    def start(self, segment: Expr, rows: list[Expr], nv: int) -> list[list[Var]]:
        """Accumulators holding the bias or, after the first segment, the partial sums."""
        b = self.b
        acc = [[b.var(b.vector()) for _ in range(nv)] for _ in rows]

        def from_bias() -> None:
            for row, sums in zip(rows, acc, strict=True):
                bias = b.broadcast(self.bias + row * 4)
                for var in sums:
                    var.set(bias)

        if not self.tile.segmented:
            from_bias()
            return acc
        with b.choose(segment.equals(0)) as (first, otherwise):
            with first:
                from_bias()
            with otherwise:
                for at, var in self.partial_sums(acc, rows):
                    var.set(b.load_vector(at))
        return acc

    def end(self, acc: list[list[Var]], rows: list[Expr], ends: bool) -> None:
        """Store the block's rows, or their partial sums; rows without a channel go."""
        b = self.b
        if not ends:
            for at, var in self.partial_sums(acc, rows):
                b.store(var.get(), at)
            return
        masks = self.pixel_masks(len(acc[0]))
        for m, (row, sums) in enumerate(zip(rows, acc, strict=True)):
            k = b.load_i32(self.rows + row * 4)
            if m == 0 and self.tile.lists == 1:  # there is always one
                self.store(k, sums, masks)
            else:
                with b.when(k < self.channels):
                    self.store(k, sums, masks)

    def partial_sums(self, acc: list[list[Var]], rows: list[Expr]) -> list[tuple[Expr, Var]]:
        """Where each of the accumulators waits between segments."""
        size = self.b.vector_bytes
        places = [self.scratch + row * (self.tile.nv * size) for row in rows]
        return [
            (at + v * size, var) for at, sums in zip(places, acc, strict=True) for v, var in enumerate(sums)
        ]

    def pixel_masks(self, nv: int) -> list[list[Expr]]:
        """The lanes of each vector of the panel that are pixels; a row group of them (here one) at a time."""
        b = self.b
        return [[b.pixels(self.masks, self.slot + v) for v in range(nv)]]

    def store(self, k: Expr, row: list[Var], masks: list[list[Expr]]) -> None:
        """Residual, activation, borders to zero, store."""
        b = self.b
        for v, (var, mask) in enumerate(zip(row, masks[0], strict=True)):
            at, y = (self.slot + v) * b.vector_bytes, var.get()
            if self.tile.residual:
                y = y + b.load_vector(self.residual + k * self.residual_plane + at)
            y = b.kept(activate(b, y, self.tile.activation), mask)
            b.store(y, self.output + k * self.output_plane + at)

    def zero_borders(self, group: Expr) -> None:
        """Zeros from the last computed vector to the end of each plane, and before the first plane."""
        b, rows = self.b, self.tile.rows
        with b.loop(self.first_block * rows, self.last_block * rows) as row:
            k = b.load_i32(self.rows + row * 4)
            plane = self.output + k * self.output_plane
            computed, end = b.arg(Arg.COMPUTED), b.arg(Arg.PLANE_END)
            with b.when(k < self.channels), b.loop(computed, end, b.vector_bytes) as i:
                b.store(b.vector(), plane + i)
        with b.when(group.equals(0)):
            lead = b.arg(Arg.LEAD)
            with b.loop(0, lead, b.vector_bytes) as i:
                b.store(b.vector(), self.output + (i - lead))
