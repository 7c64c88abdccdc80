"""Depthwise convolution: `down` the rows, with the sums of output rows in registers.

A 3x3 kernel so takes 3 loads for 9 multiply-adds, with stride 2 8 loads. Where the input's zero borders are
as wide as the padding, the kernel reads straight through them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, auto

import numpy as np

from zeroskip.codegen import Argument, Builder, Call, Expr, Kernel, Operand, Target
from zeroskip.codegen.activations import Activation, activate, epilogue_tag
from zeroskip.codegen.expr import Var
from zeroskip.ops import down, planes
from zeroskip.ops.down import Pads, Pair, Walk, Windows, reads_through
from zeroskip.ops.planes import Image

MAX_TAPS = 49
"""All taps are unrolled; beyond 7x7 the code would outgrow what it saves."""


class Arg(IntEnum):
    """The kernel's own slots."""

    WEIGHTS = down.MORE  # float32[C*M][R][S]
    BIAS = auto()  # float32[C*M]
    RESIDUAL = auto()
    RESIDUAL_PITCH = auto()  # bytes, as the next two
    RESIDUAL_IMAGE = auto()
    RESIDUAL_PLANE = auto()


@dataclass(frozen=True)
class _Shape:
    """What the kernel's code depends on."""

    windows: Windows
    multiplier: int  # output channels per input channel
    activation: Activation | None
    residual: bool

    @property
    def name(self) -> str:
        times = f"_times{self.multiplier}" if self.multiplier > 1 else ""
        return f"depthwise_{self.windows.name}{times}{epilogue_tag(self.activation, self.residual)}"


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
    windows = Windows((size[0], size[1]), strides, dilations)
    windows = replace(
        windows, borders=reads_through(source, out, windows, pads), side=down.side(x, y, windows, target)
    )
    shape = _Shape(windows, channels // source.channels, activation, residual is not None)
    other = planes.view((residual or y).layout)
    own: dict[int, Argument] = {
        **down.slots(x, y, windows, pads, target.lanes),
        Arg.WEIGHTS: np.ascontiguousarray(weight, np.float32),
        Arg.BIAS: np.zeros(channels, np.float32) if bias is None else np.ascontiguousarray(bias, np.float32),
        Arg.RESIDUAL: residual.address if residual else 0,
        Arg.RESIDUAL_PITCH: other.pitch,
        Arg.RESIDUAL_IMAGE: other.image,
        Arg.RESIDUAL_PLANE: other.plane,
    }
    work = out.planes * max(out.image, source.image) * out.images
    arguments, tasks = planes.arguments(y, own, threads, work)
    return Call(Kernel(shape.name, lambda b: _Emitter(b, shape).emit()), arguments, tasks)


class _Emitter(Walk):
    def __init__(self, b: Builder, shape: _Shape) -> None:
        super().__init__(b, shape.windows)
        self.shape = shape
        self.weights: list[list[Expr]] = []

    def on_plane(self, plane: Expr) -> None:
        """The plane's taps and bias, one vector each; the register allocator keeps what fits."""
        b, (R, S) = self.b, self.windows.taps
        start = b.pointer(Arg.WEIGHTS) + plane * (4 * R * S)
        self.weights = [[b.broadcast(start + 4 * (r * S + s)) for s in range(S)] for r in range(R)]
        self.bias = b.broadcast(b.pointer(Arg.BIAS) + plane * 4)

    def source_plane(self, plane: Expr) -> Expr:
        """M output channels read one input channel."""
        return plane // self.shape.multiplier if self.shape.multiplier > 1 else plane

    def initial(self) -> Expr:
        """The bias."""
        return self.bias

    def absorb(self, users: list[tuple[Var, int]], taps: list[Expr]) -> None:
        """Products with the weights of the row.

        All but the first are summed on their own: a window's taps one after the other would keep the
        processor waiting for sums (5x5 takes 5-10 % less time so, over 7x7 pixels up to 35 %).
        """
        b = self.b
        for var, r in users:
            first, *others = zip(self.weights[r], taps, strict=True)
            rest: Expr | None = None
            for weight, x in others:
                rest = weight * x if rest is None else b.fma(weight, x, rest)
            total = b.fma(*first, var.get())
            var.set(total if rest is None else total + rest)

    def finish(self, part: Image, row: Expr, column: Expr, value: Expr) -> Expr:
        """Residual and activation."""
        b = self.b
        if self.shape.residual:
            place = b.pointer(Arg.RESIDUAL) + part.plane * b.arg(Arg.RESIDUAL_PLANE)
            place = place + part.image * b.arg(Arg.RESIDUAL_IMAGE) + row * b.arg(Arg.RESIDUAL_PITCH)
            value = value + b.load_vector(place + column * 4)
        return activate(b, value, self.shape.activation)
