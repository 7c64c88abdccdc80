"""Sums, means and maxima over channels: each pixel of the one output plane combines all input planes'."""

from __future__ import annotations

from enum import IntEnum, auto

from zeroskip.codegen import Builder, Call, Expr, Kernel, Operand, Target
from zeroskip.ops import runs
from zeroskip.ops.runs import Values


class Arg(IntEnum):
    """The kernel's own slots."""

    INPUT = runs.OWN
    PLANE = auto()  # bytes from one input plane to the next
    CHANNELS = auto()


def reduce_channels(x: Operand, y: Operand, kind: str, *, target: Target, threads: int = 1) -> Call:
    """The call for the ``"sum"``, ``"mean"`` or ``"max"`` of the channels: (N, C, H, W) to (N, 1, H, W).

    Both are planar, of one geometry.
    """
    assert x.planar.same_geometry(y.planar) and y.planar.planes == 1, f"{x.layout} to {y.layout}"
    own = (x.address, x.planar.plane, x.planar.planes)
    arguments, tasks = runs.arguments(y, own, target, threads)
    return Call(Kernel(f"reduce_channels_{kind}", lambda b: _emit(b, kind)), arguments, tasks)


def _emit(b: Builder, kind: str) -> None:
    plane, channels = b.arg(Arg.PLANE), b.arg(Arg.CHANNELS)
    start = b.vector(float("-inf") if kind == "max" else 0.0)

    def combined(i: Expr, mask: Expr | None) -> Expr:
        source, total = b.pointer(Arg.INPUT) + i * 4, b.var(start)
        with b.loop(0, channels) as c:
            x = b.load_vector(source + c * plane)
            total.set(b.maximum(x, total.get()) if kind == "max" else total.get() + x)
        return total.get() / b.splat(b.float_of(channels)) if kind == "mean" else total.get()

    def on_plane(plane: Expr) -> Values:
        return combined

    runs.for_vectors(b, True, on_plane)
