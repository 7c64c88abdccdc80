"""Windows over planes, down the rows of a column of vectors, each input row loaded once.

An input row is a *tap* of several output rows, whose results are in registers: with each step down (as many
input rows as the stride) one output row is finished and one begins, and the others move on by one. With
stride 2 a row is loaded in pairs of vectors, which are separated into even and odd columns in registers, so
the input need not be split beforehand. A column whose windows leave the image on a side is masked; rows
outside are skipped. Where the input has zeros wherever a window leaves the image, and these count as zeros,
neither is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from math import gcd

from zeroskip.codegen import SLACK, Argument, Builder, Expr, Operand, Plain, Planar
from zeroskip.codegen.expr import Var
from zeroskip.ops import planes
from zeroskip.ops.planes import Image, In, Out

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
"""Top, left, bottom, right, as in ONNX."""


class Arg(IntEnum):
    """The first own slots of kernels that walk so; what else they take begins at `MORE`."""

    TOP = planes.MORE  # rows of padding
    LEFT = auto()  # columns of padding
    WHOLE = auto()  # vectors of outputs that begin up to this column need no masks on the right


MORE = planes.MORE + len(Arg)


@dataclass(frozen=True)
class Windows:
    """The windows' shape; each pair is (rows, columns). With `borders` the image has zeros around it."""

    taps: Pair
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    borders: bool = False

    @property
    def name(self) -> str:
        """For names of kernels."""
        numbers = "_".join(map(str, (*self.taps, *self.strides, *self.dilations)))
        return numbers + ("_borders" if self.borders else "")

    @property
    def columns(self) -> list[int]:
        """The columns of a window's taps, from the first on."""
        return [s * self.dilations[1] for s in range(self.taps[1])]


def reads_through(x: Planar, y: Planar, windows: Windows, pads: Pads) -> bool:
    """Whether `x` has zeros wherever a window of `y` leaves the image, and room for reading whole vectors.

    From stride 3 on, the lanes past a row's end would read too far.
    """
    below, right = (
        (count - 1) * stride - pad + (tap - 1) * dilation - (size - 1)
        for count, stride, pad, tap, dilation, size in zip(
            (y.height, y.width),
            windows.strides,
            pads[:2],
            windows.taps,
            windows.dilations,
            (x.height, x.width),
            strict=True,
        )
    )
    top, left = pads[:2]
    enough_rows = x.rows >= x.height + max(0, below, top)
    enough_columns = x.pitch >= x.width + max(0, right, left)
    enough_before = x.lead_floats >= top * x.pitch + left
    return windows.strides[1] <= 2 and enough_rows and enough_columns and enough_before


def slots(x: Operand, y: Operand, windows: Windows, pads: Pads, lanes: int) -> dict[int, Argument]:
    """The slots that describe the input and where windows lie in it."""
    return {
        **planes.source(x),
        Arg.TOP: pads[0],
        Arg.LEFT: pads[1],
        Arg.WHOLE: _whole(x, y, windows, pads[1], lanes),
    }


def _whole(x: Operand, y: Operand, windows: Windows, left: int, lanes: int) -> int:
    """See `Arg.WHOLE`: what planes have right of their pixels may be read where no output wants it."""
    width, outputs, stride = planes.view(x.layout).width, planes.view(y.layout).width, windows.strides[1]
    reach = windows.columns[-1] + 1
    loaded = reach - 1 + lanes * stride
    inside = (width + left - reach) // stride + 1
    if inside >= outputs and 4 * loaded <= SLACK and not isinstance(x.layout, Plain):
        return outputs
    return (width + left - loaded) // stride


class Walk:
    """Emits the walk; kernels say what windows become by overriding the methods below `emit`.

    Rows of the input are counted `dilation` apart; output rows that share any are `apart` rows apart. Step q
    ends with input row ``stride*q + stride - 1 - ahead``, where `ahead` completes R to whole steps: the last
    tap of output row ``q - depth``.
    """

    outside = 0.0
    """What a cell outside of the image counts as."""

    def __init__(self, b: Builder, windows: Windows) -> None:
        self.b, self.windows = b, windows
        rows, (stride, _), (dilation, _) = windows.taps[0], windows.strides, windows.dilations
        common = gcd(stride, dilation)
        self.apart, self.stride = dilation // common, stride // common
        self.ahead = -rows % self.stride
        self.depth = (rows + self.ahead) // self.stride - 1

    def emit(self) -> None:
        """All planes of the task."""
        planes.for_images(self.b, self.image, self.on_plane)

    def on_plane(self, plane: Expr) -> None:
        """What is done once per plane of the output."""

    def source_plane(self, plane: Expr) -> Expr:
        """The input plane that a plane of the output reads."""
        return plane

    def initial(self) -> Expr:
        """An output vector before its first tap."""
        return self.b.vector(self.outside)

    def absorb(self, users: list[tuple[Var, int]], taps: list[Expr]) -> None:
        """Add the taps of an input row to the output vectors, of each of which it is row r."""
        raise NotImplementedError

    def finish(self, part: Image, row: Expr, column: Expr, value: Expr) -> Expr:
        """The output of windows that came to `value`."""
        return value

    def image(self, part: Image) -> None:
        """Vectors from the last column to the first: what spills into the next row is overwritten later."""
        b, columns = self.b, self.b.arg(Out.COLUMNS)
        vectors = planes.vectors_of_pixels(b)
        with b.loop(vectors * b.lanes, columns, b.lanes) as column, b.loop(part.first, part.last) as row:
            place = part.pointer + (row * columns + column) * 4
            b.store_masked(b.vector(), place, b.lanes_below(columns - column))
        with b.loop(0, self.apart) as shift, b.loop(0, vectors) as i:
            first = part.first + shift
            count = b.maximum(part.last - first + (self.apart - 1), 0) // self.apart
            with b.when(count > 0):
                self.columns(part, first, count, (vectors - 1 - i) * b.lanes)

    def columns(self, part: Image, first: Expr, count: Expr, j: Expr) -> None:
        """A vector of columns of every `apart`-th output row from `first` on, `count` of them."""
        b, windows = self.b, self.windows
        column = j * windows.strides[1] - b.arg(Arg.LEFT)
        if windows.borders:
            self.column(part, first, count, j, column, {})
            return
        with b.choose((column >= 0) & (j <= b.arg(Arg.WHOLE))) as (whole, edge):
            with whole:
                self.column(part, first, count, j, column, {})
            with edge:
                self.column(part, first, count, j, column, self.masks(column))

    def column(
        self, part: Image, first: Expr, count: Expr, j: Expr, column: Expr, masks: dict[int, Expr]
    ) -> None:
        """The same; `column` is that of the first window's first tap."""
        b = self.b
        top = first * self.windows.strides[0] - b.arg(Arg.TOP)
        source = planes.input_image(b, self.source_plane(part.plane), part.image)
        source = source + top * b.arg(In.PITCH) + column * 4
        pixels, inside = (b.lanes_below(b.arg(end) - j) for end in (Out.WIDTH, Out.COLUMNS))
        sums = [b.var(self.initial()) for _ in range(self.depth + 1)]
        for q in range(self.depth):
            self.step(sums[: q + 1], source, top, b.int(q), masks)
            self.move(sums)
        with b.loop(0, count) as number:
            self.step(sums, source, top, number + self.depth, masks)
            row = first + number * self.apart
            y = b.select(pixels, self.finish(part, row, j, sums[-1].get()), 0.0)
            place = part.pointer + (row * b.arg(Out.COLUMNS) + j) * 4
            # other tasks' rows, and those between, are not done after this one: nothing may spill into them
            room = (part.last - row) * b.arg(Out.COLUMNS) - j
            with b.choose((room >= b.lanes) & b.int(self.apart).equals(1)) as (spill, exact):
                with spill:
                    b.store(y, place)
                with exact:
                    b.store_masked(y, place, inside)
            self.move(sums)

    def move(self, sums: list[Var]) -> None:
        """The sums of an output row are those of the next one at the next step."""
        for after, before in zip(sums[:0:-1], sums[-2::-1], strict=True):
            after.set(before.get())
        sums[0].set(self.initial())

    def step(self, sums: list[Var], source: Expr, top: Expr, q: Expr, masks: dict[int, Expr]) -> None:
        """The input rows of step q, added to the sums that they are taps of."""
        b, windows = self.b, self.windows
        for u in range(self.stride):
            taps = [(var, d * self.stride + u - self.ahead) for d, var in enumerate(sums)]
            users = [(var, r) for var, r in taps if 0 <= r < windows.taps[0]]
            if not users:
                continue
            below = (q * self.stride + (u - self.ahead)) * windows.dilations[0]
            row = source + below * b.arg(In.PITCH)
            if windows.borders:
                self.absorb(users, self.load(row, masks))
            else:
                with b.when((top + below >= 0) & (top + below < b.arg(In.HEIGHT))):
                    self.absorb(users, self.load(row, masks))

    def offsets(self) -> list[int]:
        """The columns, from a window's first on, at which vectors are loaded."""
        columns = self.windows.columns
        if self.windows.strides[1] != 2:
            return columns
        bases = {o - o % 2 for o in columns}
        return sorted(bases | {o + self.b.lanes for o in bases})

    def masks(self, column: Expr) -> dict[int, Expr]:
        """For each vector to be loaded, which of its lanes are in the row."""
        b, width = self.b, self.b.arg(In.WIDTH)
        stride = 1 if self.windows.strides[1] == 2 else self.windows.strides[1]
        return {o: b.lanes_between(b.int(0) - column - o, width - column - o, stride) for o in self.offsets()}

    def load(self, row: Expr, masks: dict[int, Expr]) -> list[Expr]:
        """The inputs of each tap of one row of the window."""
        b, columns, stride = self.b, self.windows.columns, self.windows.strides[1]
        if stride == 2 and not masks and columns[-1] <= 3:
            return self.load_pairs(row)
        own = 1 if stride == 2 else stride
        vectors = {o: b.load_strided(row + 4 * o, own, masks.get(o), self.outside) for o in self.offsets()}
        if stride != 2:
            return [vectors[o] for o in columns]
        return [
            b.shuffle(vectors[o - o % 2], vectors[o - o % 2 + b.lanes], range(o % 2, 2 * b.lanes, 2))
            for o in columns
        ]

    def load_pairs(self, row: Expr) -> list[Expr]:
        """The same with stride 2 and up to four columns: the third is the first one, moved by a lane.

        (Layers wait for loads that straddle cache lines: two of four less are 4-9 % of 3x3 windows.)
        """
        b, columns, lanes = self.b, self.windows.columns, self.b.lanes
        first, second = b.load_vector(row), b.load_vector(row + b.vector_bytes)
        pairs = {o % 2: b.shuffle(first, second, range(o % 2, 2 * lanes, 2)) for o in columns}
        last = {o: b.broadcast(row + 4 * (2 * lanes + o - 2)) for o in columns if o >= 2}
        moved = {o: b.shuffle(pairs[o % 2], number, range(1, lanes + 1)) for o, number in last.items()}
        return [moved.get(o, pairs[o % 2]) for o in columns]
