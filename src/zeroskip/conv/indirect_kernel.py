"""The kernels of indirect convolution: planes to NHWC, then products that read through the buffer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, activate, epilogue_tag
from zeroskip.conv.channel_vectors import load_pixels
from zeroskip.conv.transpose import transpose
from zeroskip.ops.planes import zero


class Turn(IntEnum):
    """Argument slots of the re-layout; a task is a row of an image, or the row of zeros after its last."""

    INPUT = 0
    PLANE = auto()  # bytes, as the next two
    IMAGE = auto()
    PITCH = auto()
    CHANNELS = auto()
    HEIGHT = auto()
    WIDTH = auto()
    PIXELS = auto()  # float32[N][H*W + 1][C]
    PIXELS_IMAGE = auto()  # bytes of an image of it


class Multiply(IntEnum):
    """Argument slots of the product; a task is some blocks of LANES pixels of an image and some chunks."""

    PIXELS = 0
    PIXELS_IMAGE = auto()
    FIRST_ENTRIES = auto()  # int32[tiles+1]
    ENTRIES = auto()  # int32[][1+MR]: a cell; from an image's start to what it reads, for each pixel
    CELLS = auto()  # R*S
    TILES = auto()
    BLOCKS = auto()  # of an image
    BLOCK_PARTS = auto()  # tasks that share them
    BLOCK_SHARE = auto()
    CHUNK_PARTS = auto()  # tasks that share the chunks
    CHUNK_SHARE = auto()
    CHUNKS = auto()  # in all
    GROUP_CHUNKS = auto()  # of a group of the convolution
    GROUP_INPUTS = auto()  # input channels of a group
    GROUP_OUTPUTS = auto()
    WEIGHTS = auto()  # float32[CHUNKS][CELLS][GROUP_INPUTS][NV][LANES]
    BIAS = auto()  # float32[CHUNKS][NV][LANES]
    FIRST_RUNS = auto()  # int32[BLOCKS+1]
    RUNS = auto()  # int32[][3]: first pixel within the block, pixels, bytes from an image's start in a plane
    OUTPUT = auto()
    OUTPUT_PLANE = auto()
    OUTPUT_IMAGE = auto()
    RESIDUAL = auto()
    RESIDUAL_PLANE = auto()
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


def turn_kernel() -> Kernel:
    """The re-layout, and zeros for the pixels that padding stands for."""
    return Kernel("planes_to_pixels", _emit_turn)


def _emit_turn(b: Builder) -> None:
    height, width, channels = b.arg(Turn.HEIGHT), b.arg(Turn.WIDTH), b.arg(Turn.CHANNELS)
    image, row = b.task // (height + 1), b.task % (height + 1)
    to = b.pointer(Turn.PIXELS) + image * b.arg(Turn.PIXELS_IMAGE) + row * width * channels * 4
    with b.choose(row.equals(height)) as (padding, pixels):
        with padding:
            zero(b, to, channels * 4)
        with pixels:
            source = b.pointer(Turn.INPUT) + image * b.arg(Turn.IMAGE) + row * b.arg(Turn.PITCH)
            with b.loop(0, width, b.lanes) as column, b.loop(0, channels, b.lanes) as channel:
                values = load_pixels(b, source + column * 4, b.arg(Turn.PLANE), channel, channels)
                for i, value in enumerate(values):
                    with b.when(column + i < width):
                        _store_channels(
                            b, value, to + ((column + i) * channels + channel) * 4, channels - channel
                        )


def _store_channels(b: Builder, value: Expr, place: Expr, left: Expr) -> None:
    with b.choose(left >= b.lanes) as (whole, tail):
        with whole:
            b.store(value, place)
        with tail:
            b.store_masked(value, place, b.lanes_below(left))


@dataclass(frozen=True)
class Product:
    """The multiplying kernel: MR pixels by NV vectors of output channels, and what is fused."""

    mr: int
    nv: int
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        flags = epilogue_tag(self.activation, self.residual)
        return Kernel(f"indirect_{self.mr}x{self.nv}{flags}", lambda b: _Multiply(b, self).emit())

    def scratch(self, lanes: int) -> int:
        """Bytes for the sums of a block of pixels, and for LANES of its channels transposed."""
        return 4 * lanes * lanes * (self.nv + 1)


class _Multiply:
    def __init__(self, b: Builder, shape: Product) -> None:
        self.b, self.shape = b, shape
        self.pixel_bytes = shape.nv * b.vector_bytes
        self.sums = b.pointer(Multiply.SCRATCH) + b.thread * b.arg(Multiply.SCRATCH_STRIDE)
        self.turned = self.sums + b.lanes * self.pixel_bytes

    def emit(self) -> None:
        """Chunks outermost: the weights of one stay in the second cache while all pixels pass."""
        b = self.b
        chunk_parts, block_parts = b.arg(Multiply.CHUNK_PARTS), b.arg(Multiply.BLOCK_PARTS)
        image, part = b.task // (chunk_parts * block_parts), b.task % (chunk_parts * block_parts)
        first_chunk = part // block_parts * b.arg(Multiply.CHUNK_SHARE)
        last_chunk = b.minimum(first_chunk + b.arg(Multiply.CHUNK_SHARE), b.arg(Multiply.CHUNKS))
        first = part % block_parts * b.arg(Multiply.BLOCK_SHARE)
        last = b.minimum(first + b.arg(Multiply.BLOCK_SHARE), b.arg(Multiply.BLOCKS))
        pixels = b.pointer(Multiply.PIXELS) + image * b.arg(Multiply.PIXELS_IMAGE)
        cells, inputs = b.arg(Multiply.CELLS), b.arg(Multiply.GROUP_INPUTS)
        per_block = b.lanes // self.shape.mr
        with b.loop(first_chunk, last_chunk) as chunk:
            group = chunk // b.arg(Multiply.GROUP_CHUNKS)
            weights = b.pointer(Multiply.WEIGHTS) + chunk * cells * inputs * self.pixel_bytes
            channels = pixels + group * inputs * 4
            with b.loop(first, last) as block:
                tile = block * per_block
                tiles = b.minimum(b.int(per_block), b.arg(Multiply.TILES) - tile)
                with b.loop(0, tiles) as i:
                    self.tile(
                        channels, tile + i, weights, chunk, self.sums + i * self.shape.mr * self.pixel_bytes
                    )
                self.flush(image, block, chunk, group)

    def tile(self, pixels: Expr, tile: Expr, weights: Expr, chunk: Expr, to: Expr) -> None:
        """MR pixels by NV vectors: bias, then cell by cell what the indirection buffer points at."""
        b, mr, nv = self.b, self.shape.mr, self.shape.nv
        inputs = b.arg(Multiply.GROUP_INPUTS)
        bias = b.pointer(Multiply.BIAS) + chunk * self.pixel_bytes
        start = [b.load_vector(bias + v * b.vector_bytes) for v in range(nv)]
        acc = [[b.var(value) for value in start] for _ in range(mr)]
        bounds, entries = b.pointer(Multiply.FIRST_ENTRIES) + tile * 4, b.pointer(Multiply.ENTRIES)
        with b.loop(b.load_i32(bounds), b.load_i32(bounds + 4)) as number:
            entry = entries + number * (4 * (1 + mr))
            rows = [pixels + b.load_i32(entry + 4 * (1 + m)) for m in range(mr)]
            w = weights + b.load_i32(entry) * inputs * self.pixel_bytes
            with b.loop(0, inputs) as c:
                vectors = [b.load_vector(w + c * self.pixel_bytes + v * b.vector_bytes) for v in range(nv)]
                for row, sums in zip(rows, acc, strict=True):
                    x = b.broadcast(row + c * 4)
                    for vector, total in zip(vectors, sums, strict=True):
                        total.set(b.fma(x, vector, total.get()))
        for m, sums in enumerate(acc):
            for v, total in enumerate(sums):
                b.store(total.get(), to + m * self.pixel_bytes + v * b.vector_bytes)

    def flush(self, image: Expr, block: Expr, chunk: Expr, group: Expr) -> None:
        """Sums of a block of pixels to planes: LANES channels at a time, run by run of pixels in a row."""
        b = self.b
        outputs = b.arg(Multiply.GROUP_OUTPUTS)
        bounds = b.pointer(Multiply.FIRST_RUNS) + block * 4
        first, last = b.load_i32(bounds), b.load_i32(bounds + 4)
        inside = (chunk - group * b.arg(Multiply.GROUP_CHUNKS)) * (self.shape.nv * b.lanes)
        with b.loop(0, self.shape.nv) as v:
            at = self.sums + v * b.vector_bytes
            pixels = [b.load_vector(at + i * self.pixel_bytes) for i in range(b.lanes)]
            for i, row in enumerate(transpose(b, pixels, 1, lambda _, t: t, lambda i, _: i)):
                b.store(row, self.turned + i * b.vector_bytes)
            k = inside + v * b.lanes
            with (
                b.loop(0, b.minimum(b.int(b.lanes), outputs - k)) as channel,
                b.loop(first, last) as run,
            ):
                row = self.turned + channel * b.vector_bytes
                self.finish(row, image, group * outputs + k + channel, b.pointer(Multiply.RUNS) + run * 12)

    def finish(self, row: Expr, image: Expr, channel: Expr, run: Expr) -> None:
        """Residual and activation of a run of pixels."""
        b = self.b
        place, pixels, at = (b.load_i32(run + 4 * i) for i in range(3))
        at = at + image * b.arg(Multiply.OUTPUT_IMAGE)
        mask = b.lanes_below(pixels)
        y = b.load_vector(row + place * 4)
        if self.shape.residual:
            residual = b.pointer(Multiply.RESIDUAL) + channel * b.arg(Multiply.RESIDUAL_PLANE)
            y = y + b.load_masked(residual + at, mask)
        to = b.pointer(Multiply.OUTPUT) + channel * b.arg(Multiply.OUTPUT_PLANE) + at
        b.store_masked(activate(b, y, self.shape.activation), to, mask)
