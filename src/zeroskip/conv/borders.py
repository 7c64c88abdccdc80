"""Zeros around the pixels of a convolution's output, for algorithms whose kernels write only the pixels."""

from __future__ import annotations

from enum import IntEnum, auto

from zeroskip.codegen import Argument, Builder, Call, Kernel, Operand
from zeroskip.conv.sharing import shares, tasks_for
from zeroskip.ops.planes import zero


class Arg(IntEnum):
    """The kernel's argument slots."""

    OUTPUT = 0
    PLANES = auto()
    PLANE = auto()  # bytes, as all that follow
    IMAGES_END = auto()  # from a plane's start to the end of its last image
    IMAGE = auto()
    PITCH = auto()
    PIXELS_END = auto()  # from an image's start to the end of its last row of pixels
    RIGHT_END = auto()  # to the end of the last row that is zeroed right of its pixels
    WIDTH = auto()
    LEAD = auto()
    SHARE = auto()  # planes per task


def zero_borders(y: Operand, threads: int, right: bool = True) -> Call:
    """The call that zeroes what is not a pixel in `y`; if not `right`, but for the rows of pixels."""
    layout = y.planar
    tasks, share = shares(layout.planes, tasks_for(threads))
    values: dict[Arg, Argument] = {
        Arg.OUTPUT: y.address,
        Arg.PLANES: layout.planes,
        Arg.PLANE: layout.plane,
        Arg.IMAGES_END: layout.images * layout.image,
        Arg.IMAGE: layout.image,
        Arg.PITCH: 4 * layout.pitch,
        Arg.PIXELS_END: 4 * layout.height * layout.pitch,
        Arg.RIGHT_END: 4 * layout.height * layout.pitch if right else 0,
        Arg.WIDTH: 4 * layout.width,
        Arg.LEAD: layout.lead,
        Arg.SHARE: share,
    }
    arguments = tuple(values[arg] for arg in Arg)
    return Call(Kernel("zero_borders", _emit), arguments, tasks)


def _emit(b: Builder) -> None:
    y, plane, pitch, image = b.pointer(Arg.OUTPUT), b.arg(Arg.PLANE), b.arg(Arg.PITCH), b.arg(Arg.IMAGE)
    pixels_end, width, images_end = b.arg(Arg.PIXELS_END), b.arg(Arg.WIDTH), b.arg(Arg.IMAGES_END)
    first = b.task * b.arg(Arg.SHARE)
    with b.loop(first, b.minimum(first + b.arg(Arg.SHARE), b.arg(Arg.PLANES))) as number:
        start = y + number * plane
        with b.loop(0, images_end, image) as at:
            with b.loop(0, b.arg(Arg.RIGHT_END), pitch) as row:
                zero(b, start + at + row + width, pitch - width)
            zero(b, start + at + pixels_end, image - pixels_end)
        zero(b, start + images_end, plane - images_end)
    with b.when(b.task.equals(0)):
        lead = b.arg(Arg.LEAD)
        zero(b, y + (b.int(0) - lead), lead)
