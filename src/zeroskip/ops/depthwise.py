"""Depthwise convolution, row by row: a tile of output rows shares the loads of their common input rows.

At stride 2 an input row is loaded in pairs of vectors that are separated into even and odd columns in
registers, so the input need not be split beforehand. Where the input's zero borders are as wide as the
padding, the kernel reads straight through them; otherwise it masks columns and skips rows (1.5 times slower).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Planar, Target
from zeroskip.codegen.activations import Activation, activate, tag
from zeroskip.codegen.expr import Var
from zeroskip.ops import planes
from zeroskip.ops.planes import In, Row

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
    tile: int
    borders: bool
    activation: Activation | None
    residual: bool

    @property
    def name(self) -> str:
        numbers = "_".join(map(str, (*self.taps, *self.strides, *self.dilations, self.tile)))
        flags = ("_borders" if self.borders else "") + ("_residual" if self.residual else "")
        return f"depthwise_{numbers}{flags}{tag(self.activation)}"


def refuses(weight_shape: tuple[int, ...]) -> str | None:
    """Why the kernel cannot be made for weights (C, R, S), in words, or None."""
    taps = weight_shape[1] * weight_shape[2]
    return f"{taps} taps; at most {MAX_TAPS} are unrolled" if taps > MAX_TAPS else None


def default_tile(taps: Pair, strides: Pair, target: Target) -> int:
    """Output rows per tile; fitted on an AMD EPYC 9005 with 3x3 and 5x5 kernels at 7 to 112 rows."""
    small = taps[0] * taps[1] <= 9
    if strides[0] > 1:
        return 2 if small else 1
    return 3 if small and target.registers >= 32 else 2


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
    tile: int | None = None,
    target: Target,
    threads: int = 1,
) -> Call:
    """The call for ``y = activation(conv(x, weight) + bias + residual)``, with a weight plane per channel.

    `weight` is (C*M, R, S) for C input channels: output channel k reads input channel ``k // M``. `pads` are
    top, left, bottom, right; `tile` is how many output rows are computed together.
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
        tile or default_tile(taps, strides, target),
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
    arguments, tasks = planes.arguments(y, own, threads, work, shape.tile)
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
    def __init__(self, b: Builder, shape: _Shape) -> None:
        self.b, self.shape = b, shape
        self.weights: list[list[Expr]] = []

    def emit(self) -> None:
        """Weights are loaded once per plane; the register allocator keeps what fits."""
        planes.for_rows(self.b, self.rows, self.shape.tile, self.load_weights)

    def load_weights(self, plane: Expr) -> None:
        """The plane's taps and bias, one vector each."""
        b, (R, S) = self.b, self.shape.taps
        start = b.pointer(Arg.WEIGHTS) + plane * (4 * R * S)
        self.weights = [[b.broadcast(start + 4 * (r * S + s)) for s in range(S)] for r in range(R)]
        self.bias = b.broadcast(b.pointer(Arg.BIAS) + plane * 4)

    def rows(self, rows: list[Row]) -> None:
        """A tile of output rows."""
        b, first, stride = self.b, rows[0], self.shape.strides
        top = first.row * stride[0] - b.arg(Arg.TOP)
        plane = first.plane // b.arg(Arg.MULTIPLIER)
        source = planes.input_image(b, plane, first.image) + top * b.arg(In.PITCH)
        with planes.columns(b, rows) as j:
            column = j * stride[1] - b.arg(Arg.LEFT)
            acc = [b.var(self.bias) for _ in rows]
            self.accumulate(acc, source + column * 4, top, column)
            for row, var in zip(rows, acc, strict=True):
                planes.store(b, row, j, self.finish(row, j, var.get()))

    def accumulate(self, acc: list[Var], source: Expr, top: Expr, column: Expr) -> None:
        """All taps of all rows of the tile, input row by input row."""
        b, shape = self.b, self.shape
        masks = {} if shape.borders else self.masks(column)
        uses: dict[int, list[Pair]] = {}
        for t in range(len(acc)):
            for r in range(shape.taps[0]):
                uses.setdefault(t * shape.strides[0] + r * shape.dilations[0], []).append((t, r))
        for offset, users in sorted(uses.items()):
            row = source + b.arg(In.PITCH) * offset

            def work(row: Expr = row, users: list[Pair] = users) -> None:
                for s, x in enumerate(self.load(row, masks)):
                    for t, r in users:
                        acc[t].set(b.fma(self.weights[r][s], x, acc[t].get()))

            if shape.borders:
                work()
            else:
                with b.when((top + offset >= 0) & (top + offset < b.arg(In.HEIGHT))):
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

    def finish(self, row: Row, column: Expr, value: Expr) -> Expr:
        """Residual and activation."""
        b = self.b
        if self.shape.residual:
            place = b.pointer(Arg.RESIDUAL) + row.plane * b.arg(Arg.RESIDUAL_PLANE)
            place = place + row.image * b.arg(Arg.RESIDUAL_IMAGE) + row.row * b.arg(Arg.RESIDUAL_PITCH)
            value = value + b.load_vector(place + column * 4)
        return activate(b, value, self.shape.activation)
