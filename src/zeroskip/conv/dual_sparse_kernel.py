"""The kernel of `dual_sparse`: test the runs of pixels, copy the weights that meet any, multiply those."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, activate, tag

UNROLLED = 4  # weights copied at a time
WORTH = 10  # copying costs as much as a product with a tenth of a run


class Arg(IntEnum):
    """The kernel's argument slots; a task is a run of pixels and a part of a group's output channels."""

    INPUT = 0  # address of pixel (0, 0) of the first input plane
    OUTPUT = auto()  # the same of the output
    RESIDUAL = auto()
    OUTPUT_PLANE = auto()  # bytes from one output plane to the next
    RESIDUAL_PLANE = auto()
    BIAS = auto()  # float32[K]
    MASKS = auto()  # one bit per lane and vector of a plane: is it a pixel?
    GROUPS = auto()
    FILTERS = auto()  # output channels of a group
    PARTS = auto()  # of them
    TAPS = auto()  # of a group
    SEGMENT = auto()  # taps at a time
    OFFSETS = auto()  # int32[GROUPS][TAPS]: bytes from a pixel to its tap's pixel
    BOUNDS = auto()  # int32[segments][GROUPS][FILTERS][2]: first pair, last pair + 1
    PAIRS = auto()  # (int32 offset, float32 weight)[]: lists are filled up to multiples of UNROLLED
    NUMBERS = auto()  # uint16[]: of each pair the number of its tap in the segment; what fills up has SEGMENT
    PANELS = auto()  # runs of a plane, of which the first WIDE have NV vectors, the others NV-1
    WIDE = auto()
    COMPUTED = auto()  # bytes of a plane that the panels cover
    PLANE_END = auto()  # bytes of a plane in all; from COMPUTED on it is zero
    LEAD = auto()  # bytes of zeros before the first plane
    SUM_BYTES = auto()  # of scratch for partial sums; a byte per tap of the segment follows: is it live?
    LIVE_BYTES = auto()  # of those; the copied pairs follow
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


@dataclass(frozen=True)
class Tile:
    """The kernel's shape and epilogue."""

    nv: int
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        flags = ("_residual" if self.residual else "") + tag(self.activation)
        return Kernel(f"dual_sparse_{self.nv}{flags}", lambda b: _Emitter(b, self).emit())


class _Emitter:
    def __init__(self, b: Builder, tile: Tile) -> None:
        self.b, self.tile = b, tile
        self.parts, self.filters = b.arg(Arg.PARTS), b.arg(Arg.FILTERS)
        self.groups, rest = b.arg(Arg.GROUPS), b.task // self.parts
        self.part, self.group, self.panel = b.task % self.parts, rest % self.groups, rest // self.groups
        self.first, self.last = (
            (self.part + end) * self.filters // self.parts for end in (0, 1)
        )  # output channels of the group
        self.sums = b.pointer(Arg.SCRATCH) + b.thread * b.arg(Arg.SCRATCH_STRIDE)
        self.live = self.sums + b.arg(Arg.SUM_BYTES)
        self.copied = self.live + b.arg(Arg.LIVE_BYTES)

    def emit(self) -> None:
        """One run of pixels."""
        b, nv = self.b, self.tile.nv
        wide = b.arg(Arg.WIDE)
        if nv == 1:
            self.run(self.panel, 1)
        else:
            with b.choose(self.panel < wide) as (full, rest):
                with full:
                    self.run(self.panel * nv, nv)
                with rest:
                    self.run(wide * nv + (self.panel - wide) * (nv - 1), nv - 1)
        with b.when((self.panel + 1).equals(b.arg(Arg.PANELS))):
            self.zero_borders()

    def run(self, slot: Expr, nv: int) -> None:
        """Segment by segment: which taps meet any pixel, then output channel by output channel."""
        b = self.b
        pixels = b.pointer(Arg.INPUT) + slot * b.vector_bytes
        taps, size = b.arg(Arg.TAPS), b.arg(Arg.SEGMENT)
        with b.loop(0, (taps + size - 1) // size) as segment:
            first = segment * size
            last = b.minimum(first + size, taps)
            dead = self.test(pixels, first, last, nv)
            copying = dead * WORTH > last - first
            with b.loop(self.first, self.last) as k:
                entry = (segment * self.groups + self.group) * self.filters + k
                pairs, count = self.live_pairs(b.pointer(Arg.BOUNDS) + entry * 8, copying)
                self.multiply(pixels, segment, k, slot, pairs, count, nv)

    def test(self, pixels: Expr, first: Expr, last: Expr, nv: int) -> Expr:
        """One byte per tap: has its run a pixel that is not zero? How many have none."""
        b = self.b
        dead = b.var(b.int(0))
        offsets = b.pointer(Arg.OFFSETS) + self.group * b.arg(Arg.TAPS) * 4
        with b.loop(first, last) as tap:
            source = pixels + b.load_i32(offsets + tap * 4)
            found = b.nonzero(b.load_vector(source))
            for v in range(1, nv):
                found = found | b.nonzero(b.load_vector(source + v * b.vector_bytes))
            live = b.select(b.any(found), b.int(1), 0)
            b.store_i8(live, self.live + (tap - first))
            dead.set(dead.get() + 1 - live)
        b.store_i8(b.int(0), self.live + b.arg(Arg.SEGMENT))
        return dead.get()

    def live_pairs(self, bounds: Expr, copying: Expr) -> tuple[Expr, Expr]:
        """The pairs to be multiplied, and how many; copied, only those of live taps, side by side."""
        b = self.b
        first, last = b.load_i32(bounds), b.load_i32(bounds + 4)
        pairs, numbers = b.pointer(Arg.PAIRS), b.pointer(Arg.NUMBERS)
        source, count = b.var(pairs + first * 8), b.var(last - first)
        with b.when(copying):
            source.set(self.copied)
            count.set(b.int(0))
            with b.loop(first, last, UNROLLED) as j:
                for i in range(UNROLLED):
                    b.store_i64(b.load_i64(pairs + (j + i) * 8), self.copied + count.get() * 8)
                    count.set(count.get() + b.load_u8(self.live + b.load_u16(numbers + (j + i) * 2)))
        return source.get(), count.get()

    def multiply(
        self, pixels: Expr, segment: Expr, k: Expr, slot: Expr, pairs: Expr, count: Expr, nv: int
    ) -> None:
        """Sums begin with the bias or go on; after the last segment comes the epilogue."""
        b = self.b
        channel = self.group * self.filters + k
        partial = self.sums + (k - self.first) * (self.tile.nv * b.vector_bytes)
        places = range(0, nv * b.vector_bytes, b.vector_bytes)
        bias = b.broadcast(b.pointer(Arg.BIAS) + channel * 4)
        acc = [b.var(bias) for _ in places]
        with b.when(segment > 0):
            for var, at in zip(acc, places, strict=True):
                var.set(b.load_vector(partial + at))
        with b.loop(0, count) as j:
            offset, w = b.unpack_pair(b.load_i64(pairs + j * 8), 32)
            for var, at in zip(acc, places, strict=True):
                var.set(b.fma(w, b.load_vector(pixels + offset + at), var.get()))
        more = (segment + 1) * b.arg(Arg.SEGMENT) < b.arg(Arg.TAPS)
        with b.choose(more) as (otherwise, last):
            with otherwise:
                for var, at in zip(acc, places, strict=True):
                    b.store(var.get(), partial + at)
            with last:
                self.finish([var.get() for var in acc], channel, slot)

    def finish(self, sums: list[Expr], channel: Expr, slot: Expr) -> None:
        """Residual, activation, borders to zero, store."""
        b = self.b
        out = b.pointer(Arg.OUTPUT) + channel * b.arg(Arg.OUTPUT_PLANE) + slot * b.vector_bytes
        residual = b.pointer(Arg.RESIDUAL) + channel * b.arg(Arg.RESIDUAL_PLANE) + slot * b.vector_bytes
        for v, y in enumerate(sums):
            at = v * b.vector_bytes
            if self.tile.residual:
                y = y + b.load_vector(residual + at)
            mask = b.mask_bits(b.pointer(Arg.MASKS) + (slot + v) * (2 if b.lanes == 16 else 1))
            b.store(b.select(mask, activate(b, y, self.tile.activation), 0.0), out + at)

    def zero_borders(self) -> None:
        """Zeros from the last computed vector to the end of each plane, and before the first plane."""
        b = self.b
        output, channel = b.pointer(Arg.OUTPUT), self.group * self.filters
        with b.loop(channel + self.first, channel + self.last) as k:
            plane = output + k * b.arg(Arg.OUTPUT_PLANE)
            with b.loop(b.arg(Arg.COMPUTED), b.arg(Arg.PLANE_END), b.vector_bytes) as byte:
                b.store(b.vector(), plane + byte)
        with b.when((self.group + self.part).equals(0)):
            lead = b.arg(Arg.LEAD)
            with b.loop(0, lead, b.vector_bytes) as byte:
                b.store(b.vector(), output + (byte - lead))
