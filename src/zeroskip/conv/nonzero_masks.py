"""Where a map is not zero: one bit per activation, the channels of a pixel side by side.

The encoding of the algorithms that skip zero activations. It moves nothing: a word's bits are found with a
comparison and an OR per vector of the map, 32 times fewer bytes are written than read. A block of more than
32 channels has two words, in planes of their own.
"""

from __future__ import annotations

from enum import IntEnum, auto

from zeroskip.codegen import Address, Argument, Builder, Call, Kernel, Operand
from zeroskip.codegen.layout import round_up
from zeroskip.conv.problem import ConvProblem

WORD = 32  # channels per word, at most
WORDS = 2  # per block, at most: what a 64-bit register holds


class Mask(IntEnum):
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
    MASKS = auto()  # uint32[images][GROUPS][BLOCKS][WORDS][HEIGHT][WIDTH]


def mask_width(problem: ConvProblem, lanes: int) -> int:
    """Words per row: a column of the padded map each, in whole vectors."""
    return round_up(problem.W + problem.pads[1] + problem.pads[3], lanes)


def mask_words(block: int) -> int:
    """Words per pixel of a block of channels."""
    return -(-block // WORD)


def mask_bytes(problem: ConvProblem, block: int, lanes: int) -> int:
    """Size of the masks with blocks of `block` channels."""
    words = -(-problem.C // problem.groups // block) * problem.groups * mask_words(block)
    return 4 * problem.N * words * problem.H * mask_width(problem, lanes)


def find_nonzeros(problem: ConvProblem, x: Operand, masks: Address, block: int, lanes: int) -> Call:
    """The call that writes the masks of `x`."""
    channels = problem.C // problem.groups
    origin, layout = x.address, x.planar
    values: dict[Mask, Argument] = {
        Mask.INPUT: Address(origin.buffer, origin.offset - 4 * problem.pads[1]),
        Mask.PLANE: layout.plane,
        Mask.IMAGE: layout.image,
        Mask.PITCH: 4 * layout.pitch,
        Mask.HEIGHT: problem.H,
        Mask.WIDTH: mask_width(problem, lanes),
        Mask.GROUPS: problem.groups,
        Mask.CHANNELS: channels,
        Mask.BLOCK: block,
        Mask.BLOCKS: -(-channels // block),
        Mask.WORDS: mask_words(block),
        Mask.MASKS: masks,
    }
    kernel = Kernel("find_nonzeros", _emit)
    return Call(kernel, tuple(values[slot] for slot in Mask), problem.N * problem.H)


def _emit(b: Builder) -> None:
    height, width, blocks = b.arg(Mask.HEIGHT), b.arg(Mask.WIDTH), b.arg(Mask.BLOCKS)
    groups, channels, size = b.arg(Mask.GROUPS), b.arg(Mask.CHANNELS), b.arg(Mask.BLOCK)
    image, row = b.task // height, b.task % height
    source = b.pointer(Mask.INPUT) + image * b.arg(Mask.IMAGE) + row * b.arg(Mask.PITCH)
    words = b.arg(Mask.WORDS)
    with b.loop(0, groups) as group, b.loop(0, blocks) as block, b.loop(0, words) as word:
        begin, end = group * channels + block * size, (group + 1) * channels
        first = begin + word * WORD
        last = b.minimum(b.minimum(first + WORD, begin + size), end)
        plane = ((image * groups + group) * blocks + block) * words + word
        to = b.pointer(Mask.MASKS) + (plane * height + row) * width * 4
        with b.loop(0, width, b.lanes) as column:
            found, bit = b.var(b.lane_numbers() * 0), b.var(b.lane_numbers() * 0 + 1)
            with b.loop(first, last) as channel:
                pixels = b.load_vector(source + channel * b.arg(Mask.PLANE) + column * 4)
                found.set(found.get() | b.select(b.nonzero(pixels), bit.get(), 0))
                bit.set(bit.get() << 1)
            b.store(found.get(), to + column * 4)
