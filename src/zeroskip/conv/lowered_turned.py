"""The product of lowering for few pixels: output channels in the lanes, pixels as factors.

49 pixels fill four vectors of sixteen to 77 %, and 25 two of them to 78 %; channels are a multiple of sixteen
nearly always. The sums are transposed on their way out.
"""

from __future__ import annotations

from zeroskip.codegen import Expr
from zeroskip.conv.lowered_copy import Copy, Unit
from zeroskip.conv.lowered_kernel import Multiplication, Multiply, Panel
from zeroskip.conv.transpose import transpose


class Turned(Multiplication):
    """Tiles of MR pixels by NV vectors of output channels."""

    straight = False

    def copy(self, unit: Unit) -> None:
        """Before all else."""
        unit.copy(self.b.int(0), self.b.arg(len(Multiply) + Copy.CHANNELS))

    def sum(self, panel: Panel, first: Expr, last: Expr) -> None:
        """The sums of rows `first` to `last`: chunk by chunk of channels, whose weights all pixels pass."""
        b, nv = self.b, self.shape.nv
        row = nv * b.vector_bytes
        turned = self.sums + (last - first) * self.row_bytes
        with b.loop(first, last, nv * b.lanes) as k:
            with b.loop(0, panel.pixels, self.shape.mr) as pixel:
                self.tile(panel, k, pixel, turned + pixel * row)
            with b.loop(0, panel.vectors) as block, b.loop(0, nv) as v:
                at = turned + block * b.lanes * row + v * b.vector_bytes
                pixels = [b.load_vector(at + i * row) for i in range(b.lanes)]
                to = self.sums + (k - first + v * b.lanes) * self.row_bytes + block * b.vector_bytes
                for i, channel in enumerate(transpose(b, pixels, 1, lambda _, t: t, lambda i, _: i)):
                    b.store(channel, to + i * self.row_bytes)

    def tile(self, panel: Panel, k: Expr, pixel: Expr, to: Expr) -> None:
        """MR pixels; what a last tile reads past the panel's end is for nobody."""
        b, mr, nv = self.b, self.shape.mr, self.shape.nv
        acc = [[b.var(b.vector()) for _ in range(nv)] for _ in range(mr)]
        w, matrix = panel.weights + k * self.taps * 4, panel.matrix + pixel * 4
        with b.loop(0, self.taps) as j:
            source = matrix + b.load_i32(panel.offsets + j * 4)
            weights = [b.load_vector(w + (j * nv + v) * b.vector_bytes) for v in range(nv)]
            for m, sums in enumerate(acc):
                x = b.broadcast(source + m * 4)
                for var, weight in zip(sums, weights, strict=True):
                    var.set(b.fma(x, weight, var.get()))
        for m, sums in enumerate(acc):
            for v, var in enumerate(sums):
                b.store(var.get(), to + (m * nv + v) * b.vector_bytes)
