"""What kernels over *runs* share: walking over the vectors of whole planes, borders included.

A planar tensor is as many runs as planes, each written under the layout's mask and zero from its last pixel
on; a plain one is a single run, whose last vector is masked. A task is some runs, or a piece of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum, auto
from math import prod

from zeroskip.codegen import Argument, Builder, Expr, Operand, Planar, Target
from zeroskip.ops import planes


class Run(IntEnum):
    """The argument slots that describe the output; a kernel's own follow from `OWN` on."""

    OUTPUT = 0
    PLANES = auto()
    FLOATS = auto()  # from a plane's start to its last pixel's end
    PLANE = auto()  # bytes from one output plane to the next
    LEAD = auto()
    MASKS = auto()
    PLANES_PER_TASK = auto()
    PIECES = auto()  # tasks that share a plane
    FLOATS_PER_PIECE = auto()


OWN = len(Run)

Values = Callable[[Expr, Expr | None], Expr]
"""The output's vector from float number `i` of the plane on; the second argument is the mask of a tail."""


def arguments(
    y: Operand, own: Sequence[Argument], target: Target, threads: int, whole_planes: bool = False
) -> tuple[tuple[Argument, ...], int]:
    """The argument block of a kernel that writes `y`, and the number of tasks.

    With `whole_planes` a task does its piece of all planes.
    """
    layout = y.layout
    count, floats, plane, lead = (
        (layout.planes, layout.computed, layout.plane, layout.lead)
        if isinstance(layout, Planar)
        else (1, prod(layout.shape), layout.bytes, 0)
    )
    tasks = planes.task_count(4 * count * floats, threads)
    per_task = count if whole_planes else -(-count // tasks)
    pieces = tasks if whole_planes else -(-tasks // count)
    share = -(-floats // (pieces * target.lanes)) * target.lanes or target.lanes
    pieces = max(1, -(-floats // share))
    masks: Argument = layout.masks(target.lanes) if isinstance(layout, Planar) else 0
    slots = (y.address, count, floats, plane, lead, masks, per_task, pieces, share, *own)
    return slots, -(-count // per_task) * pieces


def piece(b: Builder) -> tuple[Expr, Expr]:
    """The first and the last float of a plane that are the task's."""
    first = b.task % b.arg(Run.PIECES) * b.arg(Run.FLOATS_PER_PIECE)
    return first, b.minimum(first + b.arg(Run.FLOATS_PER_PIECE), b.arg(Run.FLOATS))


def for_vectors(b: Builder, planar: bool, on_plane: Callable[[Expr], Values]) -> None:
    """Emit the walk over the task's vectors; `on_plane` emits what is done once per plane."""
    group = b.task // b.arg(Run.PIECES)
    first, last = piece(b)
    first_plane = group * b.arg(Run.PLANES_PER_TASK)
    last_plane = b.minimum(first_plane + b.arg(Run.PLANES_PER_TASK), b.arg(Run.PLANES))
    with b.loop(first_plane, last_plane) as plane:
        values = on_plane(plane)
        out = b.pointer(Run.OUTPUT) + plane * b.arg(Run.PLANE)
        if planar:
            with b.loop(first, last, b.lanes) as i:
                store(b, out, i, values(i, None))
        else:
            whole = first + (last - first) // b.lanes * b.lanes
            with b.loop(first, whole, b.lanes) as i:
                b.store(values(i, None), out + i * 4)
            with b.when(whole < last):
                tail = b.lanes_below(last - whole)
                b.store_masked(values(whole, tail), out + whole * 4, tail)
    if planar:
        zero_borders(b, first_plane, last_plane)


def store(b: Builder, plane: Expr, i: Expr, value: Expr) -> None:
    """Write a vector of a plane, zero where it is no pixel."""
    b.store(b.kept(value, b.pixels(b.pointer(Run.MASKS), i // b.lanes)), plane + i * 4)


def zero_borders(b: Builder, first_plane: Expr, last_plane: Expr) -> None:
    """Zero what follows the last vector with pixels, if the task has that; the first task zeroes the lead."""
    floats, plane_bytes = b.arg(Run.FLOATS), b.arg(Run.PLANE)
    after = (floats + (b.lanes - 1)) // b.lanes * b.vector_bytes
    with b.when(piece(b)[1].equals(floats)), b.loop(first_plane, last_plane) as plane:
        planes.zero(b, b.pointer(Run.OUTPUT) + plane * plane_bytes + after, plane_bytes - after)
    with b.when(b.task.equals(0)):
        lead = b.arg(Run.LEAD)
        planes.zero(b, b.pointer(Run.OUTPUT) + (b.int(0) - lead), lead)
