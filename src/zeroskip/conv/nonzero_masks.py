"""Where a map is not zero: one bit per activation, the channels of a pixel side by side.

The encoding of the algorithms that skip zero activations. It moves nothing: a word's bits are found with a
comparison and an OR per vector of the map, 32 times fewer bytes are written than read. A block of more than
32 channels has two words, in planes of their own. What a product reads are these words put together: for a
row of the output and a column of the map, 64 bits of a block's channels in some of the kernel's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Address, Argument, Builder, Call, Kernel
from zeroskip.codegen.layout import round_up
from zeroskip.conv.algorithm import Site
from zeroskip.conv.problem import ConvProblem

WORD = 32  # channels per word, at most
BITS = 64  # of a mask, as a register holds them


@dataclass(frozen=True)
class Part:
    """What a mask of 64 bits covers: so many channels of a group, in so many kernel rows."""

    channels: int
    rows: int

    @property
    def words(self) -> int:
        """Words of its channels."""
        return -(-self.channels // WORD)

    def blocks(self, problem: ConvProblem) -> int:
        """Parts of a group's channels."""
        return -(-problem.C // problem.groups // self.channels)

    def bands(self, problem: ConvProblem) -> int:
        """Parts of the kernel's rows."""
        return -(-problem.R // self.rows)


class Find(IntEnum):
    """Argument slots; a task is a row of an image."""

    INPUT = 0  # column 0 of the padded map in row 0 of the map
    PLANE = auto()  # bytes, as the next two
    IMAGE = auto()
    PITCH = auto()
    HEIGHT = auto()
    WIDTH = auto()  # of the padded map, rounded up to LANES
    GROUPS = auto()
    CHANNELS = auto()  # of a group
    BLOCK = auto()  # channels
    BLOCKS = auto()  # of a group
    WORDS = auto()  # of a block
    FOUND = auto()  # uint32[images][GROUPS][BLOCKS][WORDS][HEIGHT][WIDTH]


class Join(IntEnum):
    """Argument slots; a task is a row of the output, of a block."""

    FOUND = 0
    HEIGHT = auto()
    WIDTH = auto()
    COLUMNS = auto()  # of the padded map
    BLOCK = auto()
    WORDS = auto()
    BANDS = auto()
    ROWS = auto()  # of a band
    KERNEL_HEIGHT = auto()
    STRIDE = auto()
    DILATION = auto()
    TOP = auto()
    P = auto()
    MASKS = auto()  # uint64[images][GROUPS][BLOCKS][BANDS][P][MASK_WIDTH]
    MASK_WIDTH = auto()


@dataclass(frozen=True)
class Masks:
    """Masks in memory, and the calls that write them.

    They are uint64[images][groups][blocks][bands][P][width]; a row's columns are those of the padded map, and
    more, whose masks are zero.
    """

    address: Address
    width: int
    calls: tuple[Call, ...]


def find_nonzeros(problem: ConvProblem, part: Part, beyond: int, site: Site) -> Masks:
    """The masks of the map, with `beyond` columns past its last."""
    lanes, columns = site.target.lanes, problem.W + problem.pads[1] + problem.pads[3]
    width, mask_width = round_up(columns, lanes), round_up(columns + beyond, lanes)
    blocks = problem.N * problem.groups * part.blocks(problem)
    found = Address(site.allocate(4 * blocks * part.words * problem.H * width))
    masks = Address(site.allocate(8 * blocks * part.bands(problem) * problem.P * mask_width))
    origin, layout = site.x.address, site.x.planar
    finding: dict[Find, Argument] = {
        Find.INPUT: Address(origin.buffer, origin.offset - 4 * problem.pads[1]),
        Find.PLANE: layout.plane,
        Find.IMAGE: layout.image,
        Find.PITCH: 4 * layout.pitch,
        Find.HEIGHT: problem.H,
        Find.WIDTH: width,
        Find.GROUPS: problem.groups,
        Find.CHANNELS: problem.C // problem.groups,
        Find.BLOCK: part.channels,
        Find.BLOCKS: part.blocks(problem),
        Find.WORDS: part.words,
        Find.FOUND: found,
    }
    joining: dict[Join, Argument] = {
        Join.FOUND: found,
        Join.HEIGHT: problem.H,
        Join.WIDTH: width,
        Join.COLUMNS: columns,
        Join.BLOCK: part.channels,
        Join.WORDS: part.words,
        Join.BANDS: part.bands(problem),
        Join.ROWS: part.rows,
        Join.KERNEL_HEIGHT: problem.R,
        Join.STRIDE: problem.strides[0],
        Join.DILATION: problem.dilations[0],
        Join.TOP: problem.pads[0],
        Join.P: problem.P,
        Join.MASKS: masks,
        Join.MASK_WIDTH: mask_width,
    }
    find = Call(Kernel("find_nonzeros", _find), tuple(finding[slot] for slot in Find), problem.N * problem.H)
    join = Call(Kernel("join_nonzeros", _join), tuple(joining[slot] for slot in Join), blocks * problem.P)
    return Masks(masks, mask_width, (find, join))


def _find(b: Builder) -> None:
    height, width, blocks = b.arg(Find.HEIGHT), b.arg(Find.WIDTH), b.arg(Find.BLOCKS)
    groups, channels, size = b.arg(Find.GROUPS), b.arg(Find.CHANNELS), b.arg(Find.BLOCK)
    image, row = b.task // height, b.task % height
    source = b.pointer(Find.INPUT) + image * b.arg(Find.IMAGE) + row * b.arg(Find.PITCH)
    words = b.arg(Find.WORDS)
    with b.loop(0, groups) as group, b.loop(0, blocks) as block, b.loop(0, words) as word:
        begin, end = group * channels + block * size, (group + 1) * channels
        first = begin + word * WORD
        last = b.minimum(b.minimum(first + WORD, begin + size), end)
        plane = ((image * groups + group) * blocks + block) * words + word
        to = b.pointer(Find.FOUND) + (plane * height + row) * width * 4
        with b.loop(0, width, b.lanes) as column:
            found, bit = b.var(b.lane_numbers() * 0), b.var(b.lane_numbers() * 0 + 1)
            with b.loop(first, last) as channel:
                pixels = b.load_vector(source + channel * b.arg(Find.PLANE) + column * 4)
                found.set(found.get() | b.select(b.nonzero(pixels), bit.get(), 0))
                bit.set(bit.get() << 1)
            b.store(found.get(), to + column * 4)


def _join(b: Builder) -> None:
    height, width, words = b.arg(Join.HEIGHT), b.arg(Join.WIDTH), b.arg(Join.WORDS)
    bands, rows, mask_width = b.arg(Join.BANDS), b.arg(Join.ROWS), b.arg(Join.MASK_WIDTH)
    block, row = b.task // b.arg(Join.P), b.task % b.arg(Join.P)
    none = b.splat(b.int(0))
    with b.loop(0, bands) as band:
        to = b.pointer(Join.MASKS) + ((block * bands + band) * b.arg(Join.P) + row) * mask_width * 8
        with b.loop(0, mask_width, b.lanes) as column:
            mask = b.var(none)
            with b.when(column < width), b.loop(0, rows) as r:
                kernel_row = band * rows + r
                line = row * b.arg(Join.STRIDE) + kernel_row * b.arg(Join.DILATION) - b.arg(Join.TOP)
                inside = (line >= 0) & (line < height) & (kernel_row < b.arg(Join.KERNEL_HEIGHT))
                with b.loop(0, b.select(inside, words, 0)) as word:
                    at = ((block * words + word) * height + line) * width + column
                    found = b.load_u32s(b.pointer(Join.FOUND) + at * 4)
                    mask.set(mask.get() | found << r * b.arg(Join.BLOCK) + word * WORD)
            there = b.lanes_below(b.arg(Join.COLUMNS) - column)
            b.store(b.select(there, mask.get(), 0), to + column * 8)
