"""Depthwise convolution: down the rows of a column of vectors, each input row loaded once.

An input row is a tap of several output rows, whose sums are in registers: with each step down (as many input
rows as the stride) one output row is finished and one begins, and the others move on by one. A 3x3 kernel so
takes 3 loads for 9 multiply-adds, with stride 2 8 loads: an input row is then loaded in pairs of vectors that
are separated into even and odd columns in registers, so the input need not be split beforehand. Where the
input's zero borders are as wide as the padding, the kernel reads straight through them; otherwise it masks
columns and skips rows (1.5 times slower).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from math import gcd

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Planar, Target
from zeroskip.codegen.activations import Activation, activate, epilogue_tag
from zeroskip.codegen.expr import Var
from zeroskip.ops import planes
from zeroskip.ops.planes import Image, In, Out

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]

MAX_TAPS = 49
"""All taps are unrolled; beyond 7x7 the code would outgrow what it saves."""


class Arg(IntEnum):
    """The kernel's own slots."""

    WEIGHTS = planes.MORE  # float32[C*M][R][S]
    BIAS = auto()  # float32[C*M]
    MULTIPLIER = auto()  # M: output channels per input channel
    TOP = auto()  # rows of padding
    LEFT = auto()  # columns of padding
    RESIDUAL = auto()
    RESIDUAL_PITCH = auto()  # bytes, as the next two
    RESIDUAL_IMAGE = auto()
    RESIDUAL_PLANE = auto()


@dataclass(frozen=True)
class _Shape:
    """What the kernel's code depends on."""

    taps: Pair
    strides: Pair
    dilations: Pair
    borders: bool
    activation: Activation | None
    residual: bool

    @property
    def name(self) -> str:
        numbers = "_".join(map(str, (*self.taps, *self.strides, *self.dilations)))
        flags = ("_borders" if self.borders else "") + epilogue_tag(self.activation, self.residual)
        return f"depthwise_{numbers}{flags}"


def refuses(weight_shape: tuple[int, ...]) -> str | None:
    """Why the kernel cannot be made for weights (C, R, S), in words, or None."""
    taps = weight_shape[1] * weight_shape[2]
    return f"{taps} taps; at most {MAX_TAPS} are unrolled" if taps > MAX_TAPS else None


def depthwise(
    x: Operand,
    y: Operand,
    *,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    strides: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilations: Pair = (1, 1),
    activation: Activation | None = None,
    residual: Operand | None = None,
    target: Target,
    threads: int = 1,
) -> Call:
    """The call for ``y = activation(conv(x, weight) + bias + residual)``, with a weight plane per channel.

    `weight` is (C*M, R, S) for C input channels: output channel k reads input channel ``k // M``. `pads` are
    top, left, bottom, right.
    """
    channels, *size = weight.shape
    reason = refuses(weight.shape)
    assert reason is None, reason
    source, out = x.planar, y.planar
    assert channels == out.channels and channels % source.channels == 0, (
        f"{weight.shape} from {source} to {out}"
    )
    taps = (size[0], size[1])
    shape = _Shape(
        taps,
        strides,
        dilations,
        reads_through(source, out, taps, strides, pads, dilations),
        activation,
        residual is not None,
    )
    other = planes.view((residual or y).layout)
    own: dict[int, Argument] = {
        **planes.source(x),
        Arg.WEIGHTS: np.ascontiguousarray(weight, np.float32),
        Arg.BIAS: np.zeros(channels, np.float32) if bias is None else np.ascontiguousarray(bias, np.float32),
        Arg.MULTIPLIER: channels // source.channels,
        Arg.TOP: pads[0],
        Arg.LEFT: pads[1],
        Arg.RESIDUAL: residual.address if residual else 0,
        Arg.RESIDUAL_PITCH: other.pitch,
        Arg.RESIDUAL_IMAGE: other.image,
        Arg.RESIDUAL_PLANE: other.plane,
    }
    work = out.planes * max(out.image, source.image) * out.images
    arguments, tasks = planes.arguments(y, own, threads, work)
    return Call(Kernel(shape.name, lambda b: _Emitter(b, shape).emit()), arguments, tasks)


def reads_through(x: Planar, y: Planar, taps: Pair, strides: Pair, pads: Pads, dilations: Pair) -> bool:
    """Whether `x` has zeros wherever a window of `y` leaves the image, and room for reading whole vectors.

    From stride 3 on, the lanes past a row's end would read too far.
    """
    below, right = (
        (count - 1) * stride - pad + (tap - 1) * dilation - (size - 1)
        for count, stride, pad, tap, dilation, size in zip(
            (y.height, y.width), strides, pads[:2], taps, dilations, (x.height, x.width), strict=True
        )
    )
    top, left = pads[:2]
    enough_rows = x.rows >= x.height + max(0, below, top)
    enough_columns = x.pitch >= x.width + max(0, right, left)
    return strides[1] <= 2 and enough_rows and enough_columns and x.lead_floats >= top * x.pitch + left


class _Emitter:
    """Rows of the input are counted `dilation` apart; output rows that share any are `apart` rows apart.

    Step q ends with input row ``stride*q + stride - 1 - ahead``, where `ahead` completes R to whole steps:
    the last tap of output row ``q - depth``.
    """

    def __init__(self, b: Builder, shape: _Shape) -> None:
        self.b, self.shape = b, shape
        common = gcd(shape.strides[0], shape.dilations[0])
        self.apart, self.stride = shape.dilations[0] // common, shape.strides[0] // common
        self.ahead = -shape.taps[0] % self.stride
        self.depth = (shape.taps[0] + self.ahead) // self.stride - 1
        self.weights: list[list[Expr]] = []

    def emit(self) -> None:
        """Weights are loaded once per plane; the register allocator keeps what fits."""
        planes.for_images(self.b, self.image, self.load_weights)

    def load_weights(self, plane: Expr) -> None:
        """The plane's taps and bias, one vector each."""
        b, (R, S) = self.b, self.shape.taps
        start = b.pointer(Arg.WEIGHTS) + plane * (4 * R * S)
        self.weights = [[b.broadcast(start + 4 * (r * S + s)) for s in range(S)] for r in range(R)]
        self.bias = b.broadcast(b.pointer(Arg.BIAS) + plane * 4)

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
                self.column(part, first, count, (vectors - 1 - i) * b.lanes)

    def column(self, part: Image, first: Expr, count: Expr, j: Expr) -> None:
        """A vector of columns of every `apart`-th output row from `first` on, `count` of them."""
        b, pitch = self.b, self.b.arg(In.PITCH)
        top = first * self.shape.strides[0] - b.arg(Arg.TOP)
        column = j * self.shape.strides[1] - b.arg(Arg.LEFT)
        plane = part.plane // b.arg(Arg.MULTIPLIER)
        source = planes.input_image(b, plane, part.image) + top * pitch + column * 4
        masks = {} if self.shape.borders else self.masks(column)
        pixels, inside = (b.lanes_below(b.arg(end) - j) for end in (Out.WIDTH, Out.COLUMNS))
        sums = [b.var(self.bias) for _ in range(self.depth + 1)]
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
        sums[0].set(self.bias)

    def step(self, sums: list[Var], source: Expr, top: Expr, q: Expr, masks: dict[int, Expr]) -> None:
        """The input rows of step q, added to the sums that they are taps of."""
        b, R = self.b, self.shape.taps[0]
        for u in range(self.stride):
            taps = [(d, d * self.stride + u - self.ahead) for d in range(len(sums))]
            users = [(sums[d], self.weights[r]) for d, r in taps if 0 <= r < R]
            if not users:
                continue
            below = (q * self.stride + (u - self.ahead)) * self.shape.dilations[0]
            row = source + below * b.arg(In.PITCH)

            def work(row: Expr = row, users: list[tuple[Var, list[Expr]]] = users) -> None:
                for s, x in enumerate(self.load(row, masks)):
                    for var, weights in users:
                        var.set(b.fma(weights[s], x, var.get()))

            if self.shape.borders:
                work()
            else:
                with b.when((top + below >= 0) & (top + below < b.arg(In.HEIGHT))):
                    work()

    def offsets(self) -> list[int]:
        """The columns, from a window's first on, at which vectors are loaded."""
        shape = self.shape
        columns = [s * shape.dilations[1] for s in range(shape.taps[1])]
        if shape.strides[1] != 2:
            return columns
        bases = {o - o % 2 for o in columns}
        return sorted(bases | {o + self.b.lanes for o in bases})

    def masks(self, column: Expr) -> dict[int, Expr]:
        """For each vector to be loaded, which of its lanes are in the row."""
        b, width = self.b, self.b.arg(In.WIDTH)
        stride = 1 if self.shape.strides[1] == 2 else self.shape.strides[1]
        return {o: b.lanes_between(b.int(0) - column - o, width - column - o, stride) for o in self.offsets()}

    def load(self, row: Expr, masks: dict[int, Expr]) -> list[Expr]:
        """The inputs of each tap of one row of the window."""
        b, shape = self.b, self.shape
        stride = shape.strides[1]
        load_stride = 1 if stride == 2 else stride
        vectors = {o: b.load_strided(row + 4 * o, load_stride, masks.get(o)) for o in self.offsets()}
        columns = [s * shape.dilations[1] for s in range(shape.taps[1])]
        if stride != 2:
            return [vectors[o] for o in columns]
        return [
            b.shuffle(vectors[o - o % 2], vectors[o - o % 2 + b.lanes], range(o % 2, 2 * b.lanes, 2))
            for o in columns
        ]

    def finish(self, part: Image, row: Expr, column: Expr, value: Expr) -> Expr:
        """Residual and activation."""
        b = self.b
        if self.shape.residual:
            place = b.pointer(Arg.RESIDUAL) + part.plane * b.arg(Arg.RESIDUAL_PLANE)
            place = place + part.image * b.arg(Arg.RESIDUAL_IMAGE) + row * b.arg(Arg.RESIDUAL_PITCH)
            value = value + b.load_vector(place + column * 4)
        return activate(b, value, self.shape.activation)
