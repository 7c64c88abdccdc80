"""What row-wise kernels share: walking over planes, images and rows, reading at edges, zeroing borders.

A kernel's first argument slots (`Out`) describe its output; its own slots begin at `OWN`. The producer writes
the whole region of its output: the pixels, and zeros wherever there is none.

A task is some planes, or, where there are fewer planes than tasks, some rows of them (a *piece*). Within a
piece rows are written in ascending order, each from its last vector to its first, so the last one may spill
into the next row, which then overwrites it; only at the end of a piece is a masked store needed. (Masked
stores cost 20 cycles where AVX2 is the widest set, and a branch per lane below that.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum, auto
from math import prod

import numpy as np

from zeroskip.codegen import Argument, Builder, Expr, Layout, Operand, Plain

TASKS_PER_THREAD = 4
TASK_BYTES = 16 << 10  # a task's share of the output is at least this: about 1 us of work
# Rows of the input and of the output that are asked for ahead of time: the processor foresees neither every
# second row (half of the time of splitting a network's 3x224x224) nor short rows that are written from their
# ends (depth-to-space of 32x256x256 takes 0.5 ms so instead of 1.7).
READ_AHEAD, WRITE_AHEAD = 8, 16


@dataclass(frozen=True)
class View:
    """A layout as rows of floats: counts, and distances in bytes; `body` is where a plane's images end."""

    planes: int
    images: int
    height: int
    width: int
    rows: int
    pitch: int
    image: int
    plane: int
    body: int
    lead: int


def shape4(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(N, C, H, W) of a plain tensor: (N, C, L) has one row, (N, C) one pixel; further axes join in H."""
    n, c = (*shape[:2], 1, 1)[:2]
    spatial = shape[2:]
    return n, c, prod(spatial[:-1]), spatial[-1] if spatial else 1


def view(layout: Layout) -> View:
    """How `layout` lies in memory; a `Plain` one is read as (N, C, H, W)."""
    if isinstance(layout, Plain):
        n, c, h, w = shape4(layout.shape)
        return View(c, n, h, w, h, 4 * w, 4 * c * h * w, 4 * h * w, 4 * h * w, 0)
    return View(
        layout.planes,
        layout.images,
        layout.height,
        layout.width,
        layout.rows,
        4 * layout.pitch,
        layout.image,
        layout.plane,
        layout.images * layout.image,
        layout.lead,
    )


def aligned(x: Layout, y: Layout) -> bool:
    """Whether equal distances from the first pixel are equal pixels in both."""
    if isinstance(x, Plain) or isinstance(y, Plain):
        return x == y
    return x.same_geometry(y) and x.plane == y.plane


class Out(IntEnum):
    """The argument slots that describe the output."""

    ADDRESS = 0
    PLANES = auto()
    IMAGES = auto()
    HEIGHT = auto()
    WIDTH = auto()
    ROWS = auto()
    COLUMNS = auto()  # floats from one row to the next
    IMAGE = auto()  # bytes from one image to the next
    PLANE = auto()  # bytes from one plane to the next
    BODY = auto()  # bytes of a plane before its end, which is zero
    LEAD = auto()
    PLANES_PER_TASK = auto()
    PIECES = auto()  # tasks that share the rows of a plane
    ROWS_PER_PIECE = auto()


OWN = len(Out)
"""The first argument slot of the kernel's own."""


class In(IntEnum):
    """The first own slots of kernels that read planes; what else they take begins at `MORE`."""

    ADDRESS = OWN
    HEIGHT = auto()
    WIDTH = auto()
    PITCH = auto()  # bytes, as the next two
    IMAGE = auto()
    PLANE = auto()


MORE = OWN + len(In)


def source(x: Operand) -> dict[int, Argument]:
    """The slots that describe the planes of `x`."""
    v = view(x.layout)
    return {
        In.ADDRESS: x.address,
        In.HEIGHT: v.height,
        In.WIDTH: v.width,
        In.PITCH: v.pitch,
        In.IMAGE: v.image,
        In.PLANE: v.plane,
    }


def input_image(b: Builder, plane: Expr, image: Expr) -> Expr:
    """Where an image of an input plane begins."""
    return b.pointer(In.ADDRESS) + plane * b.arg(In.PLANE) + image * b.arg(In.IMAGE)


def task_count(work_bytes: int, threads: int) -> int:
    """How many tasks to make of so much work."""
    return 1 if threads == 1 else max(1, min(TASKS_PER_THREAD * threads, work_bytes // TASK_BYTES))


def task_bounds(work: np.ndarray, tasks: int) -> np.ndarray:
    """Where runs of pieces of so much work begin and end, int32[tasks + 1]: at equal shares of all work."""
    done = np.cumsum(work)
    cuts = np.searchsorted(done, done[-1] * np.arange(1, tasks) / tasks)
    return np.array([0, *cuts, len(work)], np.int32)


def arguments(
    y: Operand, own: Mapping[int, Argument], threads: int, work_bytes: int = 0
) -> tuple[tuple[Argument, ...], int]:
    """The argument block of a kernel that writes `y`, with its own slots, and the number of tasks.

    `work_bytes` is what the kernel reads and writes, by default the output.
    """
    v = view(y.layout)
    tasks = task_count(work_bytes or v.planes * v.images * v.image, threads)
    planes_per_task = -(-v.planes // tasks)
    pieces = -(-tasks // v.planes)
    rows_per_piece = -(-v.rows // pieces)
    pieces = -(-v.rows // rows_per_piece)
    slots: dict[int, Argument] = {
        Out.ADDRESS: y.address,
        Out.PLANES: v.planes,
        Out.IMAGES: v.images,
        Out.HEIGHT: v.height,
        Out.WIDTH: v.width,
        Out.ROWS: v.rows,
        Out.COLUMNS: v.pitch // 4,
        Out.IMAGE: v.image,
        Out.PLANE: v.plane,
        Out.BODY: v.body,
        Out.LEAD: v.lead,
        Out.PLANES_PER_TASK: planes_per_task,
        Out.PIECES: pieces,
        Out.ROWS_PER_PIECE: rows_per_piece,
        **own,
    }
    return tuple(slots[i] for i in range(len(slots))), -(-v.planes // planes_per_task) * pieces


@dataclass(frozen=True)
class Image:
    """A task's part of an image of a plane: the rows of pixels from `first` to before `last`.

    The rows from `last` to before `end` are the border below, which is zeroed after them.
    """

    plane: Expr
    image: Expr
    pointer: Expr
    first: Expr
    last: Expr
    end: Expr


def for_images(
    b: Builder, body: Callable[[Image], None], on_plane: Callable[[Expr], None] | None = None
) -> None:
    """Emit the walk over the task's images, and zeros around them.

    `on_plane` emits what is done once per plane.
    """
    height, rows, columns = b.arg(Out.HEIGHT), b.arg(Out.ROWS), b.arg(Out.COLUMNS)
    pieces = b.arg(Out.PIECES)
    group, piece = b.task // pieces, b.task % pieces
    first = piece * b.arg(Out.ROWS_PER_PIECE)
    end = b.minimum(first + b.arg(Out.ROWS_PER_PIECE), rows)
    last = b.minimum(end, height)
    first_plane = group * b.arg(Out.PLANES_PER_TASK)
    last_plane = b.minimum(first_plane + b.arg(Out.PLANES_PER_TASK), b.arg(Out.PLANES))
    with b.loop(first_plane, last_plane) as plane:
        base = b.pointer(Out.ADDRESS) + plane * b.arg(Out.PLANE)
        if on_plane:
            on_plane(plane)
        with b.loop(0, b.arg(Out.IMAGES)) as image:
            origin = base + image * b.arg(Out.IMAGE)
            body(Image(plane, image, origin, first, last, end))
            border = b.maximum(first, height)
            zero(b, origin + border * columns * 4, (end - border) * columns * 4)
        with b.when(piece.equals(0)):
            zero(b, base + b.arg(Out.BODY), b.arg(Out.PLANE) - b.arg(Out.BODY))
    with b.when(b.task.equals(0)):
        lead = b.arg(Out.LEAD)
        zero(b, b.pointer(Out.ADDRESS) + (b.int(0) - lead), lead)


@dataclass(frozen=True)
class Row:
    """A row of the output: where it is, and how many floats from its start may be overwritten."""

    plane: Expr
    image: Expr
    row: Expr
    pointer: Expr
    room: Expr


def for_rows(b: Builder, body: Callable[[Row], None]) -> None:
    """Emit the walk over the task's rows, one by one."""
    for_images(b, lambda part: for_rows_of(b, part, body))


def for_rows_of(b: Builder, part: Image, body: Callable[[Row], None]) -> None:
    """Emit the walk over the rows of a part of an image."""
    columns = b.arg(Out.COLUMNS)
    with b.loop(part.first, part.last) as row:
        place, room = part.pointer + row * columns * 4, (part.end - row) * columns
        body(Row(part.plane, part.image, row, place, room))


def zero(b: Builder, start: Expr, size: Expr) -> None:
    """Emit the zeroing of `size` bytes, a multiple of four (nothing where it is negative)."""
    with b.loop(0, size, b.vector_bytes) as i, b.choose(size - i >= b.vector_bytes) as (whole, tail):
        with whole:
            b.store(b.vector(), start + i)
        with tail:
            b.store_masked(b.vector(), start + i, b.lanes_below((size - i) // 4))


@contextmanager
def columns(b: Builder, row: Row) -> Iterator[Expr]:
    """Zero the columns that no vector of pixels reaches; then loop over those vectors, from the last."""
    vectors = vectors_of_pixels(b)
    going = row.pointer + b.arg(Out.COLUMNS) * (4 * WRITE_AHEAD)
    with b.loop(vectors * b.lanes, b.arg(Out.COLUMNS), b.lanes) as column:
        _store_tail(b, row, column, b.vector())
    with b.loop(0, vectors) as i:
        column = (vectors - 1 - i) * b.lanes
        b.prefetch(going + column * 4)
        yield column


def vectors_of_pixels(b: Builder) -> Expr:
    """How many vectors hold pixels of a row."""
    return (b.arg(Out.WIDTH) + (b.lanes - 1)) // b.lanes


def store(b: Builder, row: Row, column: Expr, value: Expr) -> None:
    """Write a vector of pixels at `column` of `row`: zeros from the width on, no other row's."""
    left = b.arg(Out.WIDTH) - column
    with b.choose(left >= b.lanes) as (whole, tail):
        with whole:
            b.store(value, row.pointer + column * 4)
        with tail:
            _store_tail(b, row, column, b.select(b.lanes_below(left), value, 0.0))


def _store_tail(b: Builder, row: Row, column: Expr, value: Expr) -> None:
    place, room = row.pointer + column * 4, row.room - column
    with b.choose(room >= b.lanes) as (spill, exact):
        with spill:
            b.store(value, place)
        with exact:
            b.store_masked(value, place, b.lanes_below(b.minimum(room, b.arg(Out.COLUMNS) - column)))


def load_columns(
    b: Builder, row: Expr, column: Expr, width: Expr, stride: int = 1, outside: float = 0.0
) -> Expr:
    """The floats `column`, ``column + stride`` ... of a row of `width` at `row`; `outside` elsewhere.

    Reads nothing outside the row.
    """
    value = b.var(b.vector(outside))
    place = row + column * 4
    inside = (column >= 0) & (column + b.lanes * stride <= width)
    with b.choose(inside) as (whole, edge):
        with whole:
            value.set(b.load_strided(place, stride))
        with edge:
            value.set(load_edge(b, place, column, width, stride, outside))
    return value.get()


def load_edge(b: Builder, place: Expr, column: Expr, width: Expr, stride: int, outside: float) -> Expr:
    """As `load_columns`, for a vector of which some part may be outside the row."""
    if stride == 2:
        low, high = (
            b.load_masked(place + i * b.vector_bytes, inside_row(b, column + i * b.lanes, width), outside)
            for i in range(2)
        )
        return b.shuffle(low, high, range(0, 2 * b.lanes, 2))
    mask = b.lanes_between(b.int(0) - column, width - column, stride)
    return b.load_strided(place, stride, mask, outside)


def inside_row(b: Builder, column: Expr, width: Expr) -> Expr:
    """The mask of the lanes, from `column` on, that are columns of a row of `width`."""
    return b.lanes_between(b.int(0) - column, width - column)
