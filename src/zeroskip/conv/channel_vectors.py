"""Between planes and vectors over channels: pixels on their way in, sums on their way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zeroskip.codegen import Builder, Expr
from zeroskip.codegen.activations import Activation, activate
from zeroskip.conv.transpose import transpose


@dataclass(frozen=True)
class Planes:
    """Where finished pixels go: planes, and bytes from one to the next; where channels end; what is fused."""

    output: Expr
    output_plane: Expr
    residual: Expr | None
    residual_plane: Expr
    channels: Expr
    activation: Activation | None


@dataclass(frozen=True)
class Run:
    """Which lanes are `pixels` of a row: where lane 0 would lie, in bytes; zeros are `written` to more."""

    place: Expr
    pixels: Expr
    written: Expr | None = None


def finish(b: Builder, planes: Planes, columns: Sequence[Expr], k: Expr, runs: Sequence[Run]) -> None:
    """Store LANES pixels, a vector each in `columns` with the bias included, in the LANES planes from `k`."""
    rows = transpose(b, columns, 1, lambda _, t: t, lambda i, _: i)

    def store(i: int) -> None:
        channel = k + i
        for run in runs:
            y, to = rows[i], planes.output + channel * planes.output_plane + run.place
            if planes.residual is not None:
                residual = planes.residual + channel * planes.residual_plane + run.place
                y = y + b.load_masked(residual, run.pixels)
            y = activate(b, y, planes.activation)
            if run.written is None:
                b.store_masked(y, to, run.pixels)
            else:
                b.store_masked(b.select(run.pixels, y, 0.0), to, run.written)

    with b.choose(k + b.lanes <= planes.channels) as (whole, otherwise):
        with whole:
            for i in range(b.lanes):
                store(i)
        with otherwise:
            for i in range(b.lanes):
                with b.when(k + i < planes.channels):
                    store(i)


def load_pixels(
    b: Builder, source: Expr, plane: Expr, channel: Expr, channels: Expr, mask: Expr | None = None
) -> list[Expr]:
    """LANES pixels at `source` of plane 0, each a vector of the LANES channels from `channel`.

    Channels past the last are zero, as are pixels outside of `mask`. `plane` are bytes from plane to plane.
    """
    rows = []
    for i in range(b.lanes):
        there = b.minimum(channel + i, channels - 1)
        value = b.load_vector(source + there * plane)
        inside = b.lanes_below((channels - channel - i) * b.lanes)
        rows.append(b.select(inside if mask is None else inside & mask, value, 0.0))
    return transpose(b, rows, 1, lambda _, t: t, lambda i, _: i)
