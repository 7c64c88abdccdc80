"""The kernels of convolution by encoded activations: encode the map, then scatter every non-zero.

The encodings and their symbols are those of `zeroskip.encodings`: `strips` (geometry), `cscc`, `cpo`, `cps`.
Per image there are pointers ``Ptr[n][Ow + 1]``, values DA and index words IN; pattern t's lists begin where
they would begin if the map had no zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, epilogue_tag
from zeroskip.codegen.expr import Var
from zeroskip.conv.channel_vectors import Planes, Run, finish

GROUP = 4  # rows of a CPS group


class Encode(IntEnum):
    """Argument slots of the encoders; a task is one pattern of one image."""

    INPUT = 0  # pixel (0, 0) of the padded map
    PLANE = auto()  # bytes, as the next two
    IMAGE = auto()
    PITCH = auto()
    CHANNELS = auto()
    HEIGHT = auto()  # Ih
    KERNEL_WIDTH = auto()
    STEP = auto()  # Sw
    PATTERNS = auto()
    STRIPS = auto()  # Ow
    COLUMNS = auto()  # int32[n][Ow][2]: first column and number of those a strip stores in a pattern
    BASES = auto()  # int32[n][2]: where the pattern's values and index words begin
    POINTERS = auto()
    VALUES = auto()
    INDICES = auto()
    POINTER_BYTES = auto()  # of an image, as the next two
    VALUE_BYTES = auto()
    INDEX_BYTES = auto()


class Multiply(IntEnum):
    """Argument slots of the product; a task is an image and a chunk of output channels."""

    PATTERNS = 0
    STRIPS = auto()
    BASES = auto()
    POINTERS = auto()
    VALUES = auto()
    INDICES = auto()
    POINTER_BYTES = auto()
    VALUE_BYTES = auto()
    INDEX_BYTES = auto()
    HEIGHT = auto()
    KERNEL_HEIGHT = auto()
    KERNEL_WIDTH = auto()
    STEP = auto()  # Sw
    OUTPUT_HEIGHT = auto()  # Oh
    CHUNKS = auto()
    WEIGHTS = auto()  # float32[chunks][C][Kw][Kh][KV][LANES]
    WEIGHT_BYTES = auto()  # of a chunk
    BIAS = auto()  # float32[chunks][KV][LANES]
    K = auto()
    OUTPUT = auto()
    OUTPUT_PLANE = auto()
    PITCH = auto()
    IMAGE = auto()
    RESIDUAL = auto()
    RESIDUAL_PLANE = auto()
    SUMS_BYTES = auto()  # of scratch for the sums; the positions in IN follow
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


def encode_kernel(order: str) -> Kernel:
    """The encoder: "rows" (CSCC), "columns" (CPO) or "sets" (CPS)."""
    return Kernel(f"encode_{order}", lambda b: _Encoder(b, order).emit())


class _Encoder:
    def __init__(self, b: Builder, order: str) -> None:
        self.b, self.order = b, order
        patterns = b.arg(Encode.PATTERNS)
        self.image, self.pattern = b.task // patterns, b.task % patterns
        base = b.pointer(Encode.BASES) + self.pattern * 8
        self.values = b.pointer(Encode.VALUES) + self.image * b.arg(Encode.VALUE_BYTES) + b.load_i32(base) * 4
        self.indices = b.pointer(Encode.INDICES) + self.image * b.arg(Encode.INDEX_BYTES)
        self.indices = self.indices + b.load_i32(base + 4) * 4
        self.count, self.words = b.var(b.int(0)), b.var(b.int(0))

    def emit(self) -> None:
        """Strip by strip, channel by channel."""
        b = self.b
        strips, pitch = b.arg(Encode.STRIPS), b.arg(Encode.PITCH)
        height, width = b.arg(Encode.HEIGHT), b.arg(Encode.KERNEL_WIDTH)
        pointers = b.pointer(Encode.POINTERS) + self.image * b.arg(Encode.POINTER_BYTES)
        pointers = pointers + self.pattern * (strips + 1) * 4
        source = b.pointer(Encode.INPUT) + self.image * b.arg(Encode.IMAGE)
        with b.loop(0, strips) as strip:
            b.store_i32(self.count.get(), pointers + strip * 4)
            entry = b.pointer(Encode.COLUMNS) + (self.pattern * strips + strip) * 8
            first = b.load_i32(entry)
            inside = first - strip * b.arg(Encode.STEP)
            columns = b.load_i32(entry + 4)
            with b.loop(0, b.arg(Encode.CHANNELS)) as channel:
                plane = source + channel * b.arg(Encode.PLANE) + first * 4
                index = channel * height * width + inside
                if self.order == "rows":
                    with b.loop(0, height) as i, b.loop(0, columns) as j:
                        self.append(b.load_f32(plane + i * pitch + j * 4), index + i * width + j)
                elif self.order == "columns":
                    with b.loop(0, columns) as j, b.loop(0, height) as i:
                        self.append(b.load_f32(plane + i * pitch + j * 4), index + i * width + j)
                else:
                    with b.loop(0, columns) as j, b.loop(0, height, GROUP) as i:
                        self.append_group(plane + j * 4, index + j, i)
        b.store_i32(self.count.get(), pointers + strips * 4)

    def append(self, value: Expr, index: Expr) -> None:
        """Write value and index; they stay where the value is not zero (a NaN is not)."""
        count = self.count.get()
        self.b.store(value, self.values + count * 4)
        self.b.store_i32(index, self.indices + count * 4)
        self.count.set(count + self.b.select(value.equals(0.0), self.b.int(0), 1))

    def append_group(self, column: Expr, index: Expr, first: Expr) -> None:
        """Four rows: their values, and either their indices or, of three or four, prefix and set."""
        b = self.b
        last, width = b.arg(Encode.HEIGHT) - 1, b.arg(Encode.KERNEL_WIDTH)
        there = []
        for member in range(GROUP):
            row = first + member
            value = b.load_f32(column + b.minimum(row, last) * b.arg(Encode.PITCH))
            nonzero = b.select(value.equals(0.0), b.int(0), 1)
            there.append(b.select(row > last, b.int(0), nonzero))
            with b.when(there[-1] > 0):
                b.store(value, self.values + self.count.get() * 4)
                self.count.set(self.count.get() + 1)
        with b.choose(there[0] + there[1] + there[2] + there[3] > 2) as (folded, plain):
            with folded:
                at = self.indices + self.words.get() * 4
                b.store_i32(b.int(-1) - (index + first * width), at)
                mask = there[0] + there[1] * 2 + there[2] * 4 + there[3] * 8
                b.store_i32(mask, at + 4)
                self.words.set(self.words.get() + 2)
            with plain:
                for member, one in enumerate(there):
                    with b.when(one > 0):
                        b.store_i32(index + (first + member) * width, self.indices + self.words.get() * 4)
                        self.words.set(self.words.get() + 1)


@dataclass(frozen=True)
class Product:
    """The multiplying kernel: KV vectors of output channels, row stride, the form of IN, what is fused."""

    kv: int
    stride: int
    folded: bool
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        flags = ("_sets" if self.folded else "") + epilogue_tag(self.activation, self.residual)
        return Kernel(f"strips_{self.kv}_{self.stride}{flags}", lambda b: _Multiply(b, self).emit())


class _Multiply:
    def __init__(self, b: Builder, shape: Product) -> None:
        self.b, self.shape = b, shape
        self.vector = shape.kv * b.vector_bytes
        chunks = b.arg(Multiply.CHUNKS)
        self.image, self.chunk = b.task // chunks, b.task % chunks
        self.pointers, self.values, self.indices = (
            b.pointer(address) + self.image * b.arg(size)
            for address, size in (
                (Multiply.POINTERS, Multiply.POINTER_BYTES),
                (Multiply.VALUES, Multiply.VALUE_BYTES),
                (Multiply.INDICES, Multiply.INDEX_BYTES),
            )
        )
        self.weights = b.pointer(Multiply.WEIGHTS) + self.chunk * b.arg(Multiply.WEIGHT_BYTES)
        self.strips, self.patterns = b.arg(Multiply.STRIPS), b.arg(Multiply.PATTERNS)
        self.rows, self.width = b.arg(Multiply.OUTPUT_HEIGHT), b.arg(Multiply.KERNEL_WIDTH)
        self.sums = b.pointer(Multiply.SCRATCH) + b.thread * b.arg(Multiply.SCRATCH_STRIDE)
        self.positions = self.sums + b.arg(Multiply.SUMS_BYTES)

    def emit(self) -> None:
        """Strips in blocks of LANES; sums of strips beyond the block are carried over."""
        b = self.b
        strip_bytes = self.rows * self.vector
        carried = (self.patterns - 1) * strip_bytes
        block = strip_bytes * b.lanes
        self.zero(self.sums, carried)
        with b.loop(0, self.patterns) as t:
            b.store_i64(b.int(0), self.positions + t * 8)
        with b.loop(0, self.strips, b.lanes) as first:
            self.zero(self.sums + carried, block)
            last = b.minimum(first + b.lanes, self.strips)
            with b.loop(first, last) as strip, b.loop(0, self.patterns) as t:
                self.scatter(strip, t, self.sums + (strip - first) * strip_bytes)
            with b.loop(0, self.rows) as row, b.loop(0, self.shape.kv) as v:
                self.flush(first, row, v, strip_bytes)
            with b.loop(0, carried, b.vector_bytes) as byte:
                b.store(b.load_vector(self.sums + block + byte), self.sums + byte)

    def zero(self, start: Expr, size: Expr) -> None:
        """Zero some vectors."""
        with self.b.loop(0, size, self.b.vector_bytes) as byte:
            self.b.store(self.b.vector(), start + byte)

    def scatter(self, strip: Expr, t: Expr, sums: Expr) -> None:
        """All elements of pattern t whose first strip is `strip`."""
        b = self.b
        entry = self.pointers + (t * (self.strips + 1) + strip) * 4
        first, last = b.load_i32(entry), b.load_i32(entry + 4)
        base = b.pointer(Multiply.BASES) + t * 8
        values, indices = self.values + b.load_i32(base) * 4, self.indices + b.load_i32(base + 4) * 4
        position, mask, prefix = b.var(b.load_i64(self.positions + t * 8)), b.var(b.int(0)), b.var(b.int(0))
        with b.loop(first, last) as i:
            index = (
                b.load_i32(indices + i * 4)
                if not self.shape.folded
                else self.unfold(indices, position, mask, prefix)
            )
            self.element(b.broadcast(values + i * 4), index, t, sums)
        b.store_i64(position.get(), self.positions + t * 8)

    def unfold(self, indices: Expr, position: Var, mask: Var, prefix: Var) -> Expr:
        """The next index of IN, whose words are indices, or pairs of prefix and set."""
        b = self.b
        with b.when(mask.get().equals(0)):
            word = b.load_i32(indices + position.get() * 4)
            position.set(position.get() + 1)
            with b.choose(word < 0) as (folded, plain):
                with folded:
                    prefix.set(b.int(-1) - word)
                    mask.set(b.load_i32(indices + position.get() * 4))
                    position.set(position.get() + 1)
                with plain:
                    prefix.set(word)
                    mask.set(b.int(1))
        lowest = mask.get() & (b.int(0) - mask.get())
        mask.set(mask.get() - lowest)
        member = (lowest >> 1) - (lowest >> 3)  # 1, 2, 4, 8: 0, 1, 2, 3
        return prefix.get() + member * self.width

    def element(self, x: Expr, index: Expr, t: Expr, sums: Expr) -> None:
        """``O[k][y][f + s] += x * W[k][c][l][col - s*Sw]``, s = 0 ... t, where kernel row l meets x."""
        b, stride = self.b, self.shape.stride
        window = b.arg(Multiply.HEIGHT) * self.width
        channel, inside = index // window, index % window
        row, col = inside // self.width, inside % self.width
        kernel_rows = b.arg(Multiply.KERNEL_HEIGHT)
        first = b.maximum(row - (self.rows - 1) * stride, row % stride)
        last = b.minimum(kernel_rows, row + 1)
        with b.loop(0, t + 1) as s:
            column = channel * self.width + col - s * b.arg(Multiply.STEP)
            weights = self.weights + column * kernel_rows * self.vector
            to = sums + s * self.rows * self.vector
            with b.loop(first, last, stride) as kernel_row:
                w, at = weights + kernel_row * self.vector, to + (row - kernel_row) // stride * self.vector
                for v in range(0, self.vector, b.vector_bytes):
                    b.store(b.fma(x, b.load_vector(w + v), b.load_vector(at + v)), at + v)

    def flush(self, first: Expr, row: Expr, v: Expr, strip_bytes: Expr) -> None:
        """LANES strips by LANES output channels of an output row: transposed, finished, stored."""
        b = self.b
        k = (self.chunk * self.shape.kv + v) * b.lanes
        bias = b.load_vector(b.pointer(Multiply.BIAS) + k * 4)
        at = self.sums + row * self.vector + v * b.vector_bytes
        columns = [b.load_vector(at + strip_bytes * i) + bias for i in range(b.lanes)]
        mask = b.lanes_below(self.strips - first)
        place = self.image * b.arg(Multiply.IMAGE) + row * b.arg(Multiply.PITCH) + first * 4
        planes = Planes(
            b.pointer(Multiply.OUTPUT),
            b.arg(Multiply.OUTPUT_PLANE),
            b.pointer(Multiply.RESIDUAL) if self.shape.residual else None,
            b.arg(Multiply.RESIDUAL_PLANE),
            b.arg(Multiply.K),
            self.shape.activation,
        )
        finish(b, planes, columns, k, [Run(place, mask)])
