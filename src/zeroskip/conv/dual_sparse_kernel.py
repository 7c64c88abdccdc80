"""The kernel of `dual_sparse`: the micro-kernel on shifted panels, without the taps whose runs are zero."""

from __future__ import annotations

from enum import IntEnum

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.expr import Var
from zeroskip.conv.microkernel import AHEAD, GROUP, Tile
from zeroskip.conv.microkernel import Arg as Common
from zeroskip.conv.shifted_panel import ShiftedEmitter

WORTH = 3  # copying a list costs as much as the products with a third of it


class Arg(IntEnum):
    """Argument slots after the micro-kernel's."""

    LIVE = len(
        Common
    )  # bytes from the scratch to a byte per vector of the panel: is any pixel of its run there?
    PAIRS = len(Common) + 1  # and to (int32 offset, float32 weight)[]: a list without the others


def kernel(tile: Tile) -> Kernel:
    """The kernel to be compiled."""
    return Kernel(f"dual_{tile.name}", lambda b: _Emitter(b, tile).emit())


class _Emitter(ShiftedEmitter):
    def __init__(self, b: Builder, tile: Tile) -> None:
        super().__init__(b, tile)
        self.live, self.pairs = (self.pixels + b.arg(slot) for slot in (Arg.LIVE, Arg.PAIRS))

    def fetch(self, nv: int, segment: Expr, group: Expr | None) -> None:
        """Copy the runs, and test those of all taps."""
        super().fetch(nv, segment, group)
        assert group is not None
        b = self.b
        bounds = b.pointer(Common.RUN_BOUNDS) + (group * self.segments + segment) * 4
        runs = b.load_i32(bounds + 4) - b.load_i32(bounds)
        heights = b.arg(Common.REACH) + 1
        zeros = b.var(b.int(0))
        with b.loop(0, runs) as run, b.loop(0, heights) as below:
            number = run * (b.arg(Common.RUN_BYTES) // b.vector_bytes) + below
            source = self.pixels + number * b.vector_bytes
            found = b.nonzero(b.load_vector(source))
            for v in range(1, nv):
                found = found | b.nonzero(b.load_vector(source + v * b.vector_bytes))
            there = b.select(b.any(found), b.int(1), 0)
            b.store_i8(there, self.live + number)
            zeros.set(zeros.get() + 1 - there)
        self.copying = zeros.get() * WORTH > runs * heights

    def grouped_taps(self, at: Expr, taps: Expr, pixels: Expr, acc: list[list[Var]]) -> None:
        """The taps of one output channel: all, or those whose runs are not zero."""
        with self.b.choose(self.copying) as (some, all_of_them):
            with some:
                self.live_taps(at, taps, pixels, acc[0])
            with all_of_them:
                super().grouped_taps(at, taps, pixels, acc)

    def live_taps(self, at: Expr, taps: Expr, pixels: Expr, acc: list[Var]) -> None:
        """Copy the list without a branch: what is not live is overwritten by the next."""
        b, width = self.b, self.tile.offset_bytes
        whole, size = taps & -GROUP, 4 + width
        live = self.live + b.distance(self.pixels, pixels) // b.vector_bytes
        count = b.var(b.int(0))

        def append(weight: Expr, offset: Expr) -> None:
            # in one store: a load of two stores waits until both are in the cache
            b.store_i64((b.load_i32(weight) << 32) | offset, self.pairs + count.get() * 8)
            count.set(count.get() + b.load_u8(live + (offset >> b.vector_bytes.bit_length() - 1)))

        with b.loop(0, whole, GROUP) as j:
            group = at + j * size
            b.prefetch(group + AHEAD)
            for i, offset in enumerate(self.group_offsets(group)):
                append(group + 4 * i, offset)
        rest, left = at + whole * size, taps - whole
        with b.loop(0, left) as number:
            offset = b.load_i32(rest + left * 4 + number * width)
            append(rest + number * 4, (offset & 0xFFFF) * self.tile.unit if self.tile.unit else offset)
        with b.loop(0, count.get()) as j:
            offset, w = b.unpack_pair(b.load_i64(self.pairs + j * 8), 32)
            for v, var in enumerate(acc):
                var.set(b.fma(w, b.load_vector(pixels + offset + v * b.vector_bytes), var.get()))
