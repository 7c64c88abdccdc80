"""Windows over planes, down the rows, each input row loaded once.

An input row is a *tap* of several output rows, whose results are in registers: with each step down (as many
input rows as the stride) one output row is finished and one begins, and the others move on by one. With
stride 2 a row is loaded in pairs of vectors, which are separated into even and odd columns in registers, so
the input need not be split beforehand. A column whose windows leave the image on a side is masked; rows
outside are skipped. Where the input has zeros wherever a window leaves the image, and these count as zeros,
neither is needed.

One column of vectors is walked after the other, or with stride 2 several *side by side*: they share what they
load, and the processor foresees rows that are read on, not those below each other (a third less time of 64
channels of 112x112, a fifth where the input is near; with stride 1 nothing).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from math import gcd

from zeroskip.codegen import SLACK, Argument, Builder, Expr, Operand, Plain, Planar, Target
from zeroskip.codegen.expr import Var
from zeroskip.ops import planes
from zeroskip.ops.planes import Image, In, Out

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
"""Top, left, bottom, right, as in ONNX."""

# Vectors side by side, and sums of theirs that wait for rows: more than there are registers for is no gain.
SIDE_AT_MOST, SUMS_AT_MOST = 8, 21
# Lanes of 128 bits.
PART = 4


class Arg(IntEnum):
    """The first own slots of kernels that walk so; what else they take begins at `MORE`."""

    TOP = planes.MORE  # rows of padding
    LEFT = auto()  # columns of padding
    WHOLE = auto()  # vectors of outputs that begin up to this column need no masks on the right


MORE = planes.MORE + len(Arg)


@dataclass(frozen=True)
class Windows:
    """The windows' shape; each pair is (rows, columns). With `borders` the image has zeros around it.

    So many vectors are walked `side` by side.
    """

    taps: Pair
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    borders: bool = False
    side: int = 1

    @property
    def name(self) -> str:
        """For names of kernels."""
        numbers = "_".join(map(str, (*self.taps, *self.strides, *self.dilations)))
        side = f"_{self.side}" if self.side > 1 else ""
        return numbers + ("_borders" if self.borders else "") + side

    @property
    def columns(self) -> list[int]:
        """The columns of a window's taps, from the first on."""
        return [s * self.dilations[1] for s in range(self.taps[1])]

    @property
    def apart(self) -> int:
        """Output rows that share input rows are so many rows apart."""
        return self.dilations[0] // gcd(self.strides[0], self.dilations[0])

    @property
    def step(self) -> int:
        """Input rows of a step, of those `dilation` apart."""
        return self.strides[0] // gcd(self.strides[0], self.dilations[0])

    @property
    def ahead(self) -> int:
        """Input rows that complete a window's to whole steps."""
        return -self.taps[0] % self.step

    @property
    def depth(self) -> int:
        """Steps from a window's first to its last."""
        return (self.taps[0] + self.ahead) // self.step - 1


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


def side(x: Operand, y: Operand, windows: Windows, target: Target) -> int:
    """How many vectors to walk side by side: those of a row, or an equal share of them, or one.

    (Separating columns is one instruction there, and of AVX-512 any shuffle of two vectors. The last load may
    reach past a caller's array.)
    """
    if windows.strides[1] != 2 or target.lanes <= PART or windows.columns[-1] >= target.lanes:
        return 1
    if isinstance(x.layout, Plain):
        return 1
    vectors = -(-planes.view(y.layout).width // target.lanes)
    most = max(1, min(SIDE_AT_MOST, SUMS_AT_MOST // (windows.depth + 1)))
    return -(-vectors // -(-vectors // most))


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

    Rows of the input are counted `dilation` apart, see `Windows`. Step q ends with input row
    ``step*q + step - 1 - ahead``, the last tap of output row ``q - depth``.
    """

    outside = 0.0
    """What a cell outside of the image counts as."""

    def __init__(self, b: Builder, windows: Windows) -> None:
        self.b, self.windows = b, windows

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
        b, columns, apart, side = self.b, self.b.arg(Out.COLUMNS), self.windows.apart, self.windows.side
        vectors = planes.vectors_of_pixels(b)
        with b.loop(vectors * b.lanes, columns, b.lanes) as column, b.loop(part.first, part.last) as row:
            place = part.pointer + (row * columns + column) * 4
            b.store_masked(b.vector(), place, b.lanes_below(columns - column))
        with b.loop(0, apart) as shift, b.loop(0, vectors, side) as i:
            first = part.first + shift
            count = b.maximum(part.last - first + (apart - 1), 0) // apart
            with b.when(count > 0):
                self.columns(part, first, count, b.maximum(vectors - side - i, 0) * b.lanes)

    def columns(self, part: Image, first: Expr, count: Expr, j: Expr) -> None:
        """Vectors of columns of every `apart`-th output row from `first` on, `count` of them."""
        b, windows = self.b, self.windows
        column = j * windows.strides[1] - b.arg(Arg.LEFT)
        if windows.borders:
            self.column(part, first, count, j, column, {})
            return
        last = j + (windows.side - 1) * b.lanes
        with b.choose((column >= 0) & (last <= b.arg(Arg.WHOLE))) as (whole, edge):
            with whole:
                self.column(part, first, count, j, column, {})
            with edge:
                self.column(part, first, count, j, column, self.masks(column))

    def column(
        self, part: Image, first: Expr, count: Expr, j: Expr, column: Expr, masks: dict[int, Expr]
    ) -> None:
        """The same; `column` is that of the first window's first tap."""
        b, depth, apart = self.b, self.windows.depth, self.windows.apart
        top = first * self.windows.strides[0] - b.arg(Arg.TOP)
        source = planes.input_image(b, self.source_plane(part.plane), part.image)
        source = source + top * b.arg(In.PITCH) + column * 4
        edge = j + (self.windows.side - 1) * b.lanes  # the last vector, which may reach past the row
        pixels, inside = (b.lanes_below(b.arg(end) - edge) for end in (Out.WIDTH, Out.COLUMNS))
        sums = [[b.var(self.initial()) for _ in range(depth + 1)] for _ in range(self.windows.side)]
        for q in range(depth):
            self.step([of[: q + 1] for of in sums], source, top, b.int(q), masks)
            self.move(sums)
        with b.loop(0, count) as number:
            self.step(sums, source, top, number + depth, masks)
            row = first + number * apart
            ys = [
                self.finish(part, row, j + v * b.lanes, self.ordered(of[-1].get()))
                for v, of in enumerate(sums)
            ]
            start = part.pointer + row * b.arg(Out.COLUMNS) * 4
            place, y = start + edge * 4, b.select(pixels, ys.pop(), 0.0)
            # other tasks' rows, and those between, are not done after this one: nothing may spill into them
            room = (part.last - row) * b.arg(Out.COLUMNS) - edge
            with b.choose((room >= b.lanes) & b.int(apart).equals(1)) as (spill, exact):
                with spill:
                    b.store(y, place)
                with exact:
                    b.store_masked(y, place, inside)
            for v, y in enumerate(ys):
                b.store(y, start + (j + v * b.lanes) * 4)
            self.move(sums)

    def move(self, sums: list[list[Var]]) -> None:
        """The sums of an output row are those of the next one at the next step."""
        for of in sums:
            for after, before in zip(of[:0:-1], of[-2::-1], strict=True):
                after.set(before.get())
            of[0].set(self.initial())

    def step(self, sums: list[list[Var]], source: Expr, top: Expr, q: Expr, masks: dict[int, Expr]) -> None:
        """The input rows of step q, added to the sums that they are taps of."""
        b, windows = self.b, self.windows
        for u in range(windows.step):
            taps = [(d, d * windows.step + u - windows.ahead) for d in range(len(sums[0]))]
            users = [(d, r) for d, r in taps if 0 <= r < windows.taps[0]]
            if not users:
                continue
            below = (q * windows.step + (u - windows.ahead)) * windows.dilations[0]
            row = source + below * b.arg(In.PITCH)
            if windows.borders:
                self.add(sums, users, self.load(row, masks))
            else:
                with b.when((top + below >= 0) & (top + below < b.arg(In.HEIGHT))):
                    self.add(sums, users, self.load(row, masks))

    def add(self, sums: list[list[Var]], users: list[Pair], row: list[list[Expr]]) -> None:
        """An input row's taps, of each vector, to its sums d that it is row r of, `users` being (d, r)."""
        for of, taps in zip(sums, row, strict=True):
            self.absorb([(of[d], r) for d, r in users], taps)

    def offsets(self) -> list[int]:
        """The columns, from a window's first on, at which vectors are loaded."""
        columns, lanes, side = self.windows.columns, self.b.lanes, self.windows.side
        if self.windows.strides[1] != 2:
            return columns
        if side > 1 and not self.in_parts:
            return [i * lanes for i in range(2 * side + 1)]
        bases = {o - o % 2 + 2 * lanes * v for o in columns for v in range(side)}
        return sorted(bases | {o + lanes for o in bases})

    def masks(self, column: Expr) -> dict[int, Expr]:
        """For each vector to be loaded, which of its lanes are in the row."""
        b, width = self.b, self.b.arg(In.WIDTH)
        stride = 1 if self.windows.strides[1] == 2 else self.windows.strides[1]
        return {o: b.lanes_between(b.int(0) - column - o, width - column - o, stride) for o in self.offsets()}

    def load(self, row: Expr, masks: dict[int, Expr]) -> list[list[Expr]]:
        """The inputs of each tap of one row of the window, of each vector of windows."""
        b, columns, stride = self.b, self.windows.columns, self.windows.strides[1]
        if stride == 2 and not masks and columns[-1] <= 3 and self.windows.side == 1 and not self.in_parts:
            return [self.load_pairs(row)]
        own = 1 if stride == 2 else stride
        vectors = {o: b.load_strided(row + 4 * o, own, masks.get(o), self.outside) for o in self.offsets()}
        if stride != 2:
            return [[vectors[o] for o in columns]]
        if self.windows.side > 1 and not self.in_parts:
            return self.side_by_side(list(vectors.values()))

        order = self.every_second()

        def tap(column: int, v: int) -> Expr:
            at, odd = column - column % 2 + 2 * b.lanes * v, column % 2
            return b.shuffle(vectors[at], vectors[at + b.lanes], [odd + i for i in order])

        return [[tap(column, v) for column in columns] for v in range(self.windows.side)]

    @property
    def in_parts(self) -> bool:
        """Whether lanes are separated in each 128 bits alone, as AVX2 does in one instruction, not three.

        Until outputs are finished, then, lanes stand in another order.
        """
        return self.windows.strides[1] == 2 and self.b.lanes == 2 * PART

    def every_second(self) -> list[int]:
        """Every second lane of two vectors, of each part in turn where they are separated `in_parts`."""
        lanes = self.b.lanes
        if not self.in_parts:
            return list(range(0, 2 * lanes, 2))
        firsts = [vector * lanes + part for part in range(0, lanes, PART) for vector in range(2)]
        return [first + i for first in firsts for i in range(0, PART, 2)]

    def ordered(self, value: Expr) -> Expr:
        """The lanes of an output as they are stored."""
        if not self.in_parts:
            return value
        place = self.every_second()
        return self.b.shuffle(value, value, [place.index(2 * i) for i in range(self.b.lanes)])

    def side_by_side(self, row: list[Expr]) -> list[list[Expr]]:
        """The same from all that is read of a row: its even or odd columns, or parts of two vectors of them.

        Of the last vector that is read a few lanes are wanted.
        """
        b, lanes, columns = self.b, self.b.lanes, self.windows.columns
        pairs = [*zip(row[:-1:2], row[1::2], strict=True), (row[-1], row[-1])]
        phases = [[b.shuffle(*pair, range(p, p + 2 * lanes, 2)) for pair in pairs] for p in range(2)]

        def tap(column: int, v: int) -> Expr:
            vectors, by = phases[column % 2], column // 2
            return b.shuffle(vectors[v], vectors[v + 1], range(by, by + lanes)) if by else vectors[v]

        return [[tap(column, v) for column in columns] for v in range(self.windows.side)]

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
