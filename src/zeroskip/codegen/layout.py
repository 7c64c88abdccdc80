"""How tensors lie in memory: the agreement between kernels about borders, pitch and order.

`Planar` is the layout of convolutions. A tensor of N images, C channels, H rows and W columns is C *planes*,
one after the other; a plane holds the channel's N images below each other; an image is `rows` >= H rows of
`pitch` >= W floats. What is not a pixel is zero: the columns right of a row serve as the left padding of the
next row, the rows below an image as the top padding of the next image, and the end of a plane as the top
padding of the next plane (Park et al. 2017 pad this way). A *lead* of zeros precedes the first plane.

So a shift by (r, s) is an offset of ``r*pitch + s`` floats, batches are more rows, and joining tensors by
channel is putting planes after each other.

    plane c:  image 0:  x x x x 0      pitch = W+1
                        x x x x 0
                        0 0 0 0 0      rows = H+1
              image 1:  x x x x 0
                        ...

`Plain` is the row-major array of NumPy and ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import prod

import numpy as np

LINE = 64  # bytes of a cache line; also the widest vector
SLACK = 64 * LINE  # bytes that kernels may read, and ignore, past a buffer's end


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def odd_lines(size: int) -> int:
    """Bytes of an odd number of lines, at least `size`: what lies so far apart spreads over cache sets."""
    return (-(-size // LINE) | 1) * LINE


@dataclass(frozen=True)
class Planar:
    """Planes of padded images; all sizes in floats unless they say bytes.

    `step` and `phases` describe an input split for strides: with step (2, 2), plane ``c*len(phases) + i``
    holds the pixels of the *padded* image whose row and column are `phases[i]` modulo the step.
    """

    images: int
    channels: int
    height: int
    width: int
    pitch: int
    rows: int
    lead_floats: int
    step: tuple[int, int] = (1, 1)
    phases: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return self.channels * len(self.phases)

    @cached_property
    def plane(self) -> int:
        """Bytes from one plane to the next: an odd number of cache lines, to spread planes over cache sets.

        After the last vector with pixels there is room for the next plane's lead.
        """
        covered = max(4 * self.images * self.rows * self.pitch, round_up(4 * self.computed, LINE) + self.lead)
        return (round_up(covered, LINE) // LINE | 1) * LINE

    @property
    def lead(self) -> int:
        """Bytes of zeros before the first plane."""
        return round_up(4 * self.lead_floats, LINE)

    @property
    def bytes(self) -> int:
        """The buffer's size."""
        return self.lead + self.planes * self.plane

    @property
    def origin(self) -> int:
        """Bytes from the buffer's start to pixel (0, 0) of the first plane."""
        return self.lead

    @property
    def image(self) -> int:
        """Bytes from one image to the next within a plane."""
        return 4 * self.rows * self.pitch

    @cached_property
    def computed(self) -> int:
        """Floats from a plane's start to the end of its last pixel."""
        return ((self.images - 1) * self.rows + self.height - 1) * self.pitch + self.width

    def masks(self, lanes: int) -> np.ndarray:
        """Of each float of a plane, by vectors: is it a pixel? A bit in uint16 where `lanes` is 16.

        Else int32, all bits of it where it is one, which AVX2 would need five instructions to make of a bit.
        """
        return _masks(self, lanes)

    def same_geometry(self, other: Layout) -> bool:
        """Whether equal positions in a plane are equal pixels."""
        return isinstance(other, Planar) and (
            (self.images, self.pitch, self.rows, self.height, self.width, self.step, self.phases)
            == (other.images, other.pitch, other.rows, other.height, other.width, other.step, other.phases)
        )


@cache
def _masks(layout: Planar, lanes: int) -> np.ndarray:
    position = np.arange(layout.plane // 4)
    row, column = np.divmod(position, layout.pitch)
    pixel = (
        (column < layout.width) & (row % layout.rows < layout.height) & (row < layout.images * layout.rows)
    )
    if lanes != 16:
        return -pixel.astype(np.int32)
    bits = np.packbits(pixel.reshape(-1, lanes), axis=1, bitorder="little")
    return np.ascontiguousarray(bits).view(np.uint16)


@dataclass(frozen=True)
class Plain:
    """A row-major array of float32."""

    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The buffer's size."""
        return 4 * prod(self.shape)

    @property
    def origin(self) -> int:
        """Bytes from the buffer's start to the first element."""
        return 0


Layout = Planar | Plain


@dataclass(frozen=True)
class Address:
    """A place in a buffer of the plan, known when the plan's memory is."""

    buffer: int
    offset: int = 0


@dataclass(frozen=True)
class Operand:
    """A tensor as a kernel sees it: a buffer, where in it the tensor's own buffer begins, and its layout."""

    buffer: int
    layout: Layout
    offset: int = 0

    @property
    def address(self) -> Address:
        """Where the first element (pixel (0, 0) of plane 0) is."""
        return Address(self.buffer, self.offset + self.layout.origin)

    @property
    def planar(self) -> Planar:
        """The layout, which must be planar."""
        assert isinstance(self.layout, Planar)
        return self.layout
