"""The kernel of `channel_direct`: MR neighbouring pixels by NV vectors of output channels in registers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from zeroskip.codegen import Builder, Expr, Kernel
from zeroskip.codegen.activations import Activation, epilogue_tag
from zeroskip.conv.channel_vectors import Planes, Run, finish


class Arg(IntEnum):
    """Argument slots; a task is some rows of an image and some chunks of NV vectors of output channels."""

    INPUT = 0  # what the first tap of the first output pixel reads
    PLANE = auto()  # bytes, as the next two
    IMAGE = auto()
    ROW = auto()  # from what an output row reads to what the next one does
    CELLS = auto()  # int32[CELL_COUNT]: bytes from the first cell of the kernel to each
    CELL_COUNT = auto()
    GROUP_INPUTS = auto()  # input channels of a group
    WEIGHTS = auto()  # float32[CHUNKS][CELL_COUNT][GROUP_INPUTS][NV][LANES]
    BIAS = auto()  # float32[CHUNKS][NV][LANES]
    CHUNKS = auto()  # in all
    CHUNK_PARTS = auto()  # tasks that share them
    CHUNK_SHARE = auto()
    GROUP_CHUNKS = auto()  # of a group of the convolution
    GROUP_OUTPUTS = auto()
    P = auto()
    Q = auto()
    ROW_PARTS = auto()  # tasks that share the rows of an image
    ROW_SHARE = auto()
    OUTPUT = auto()
    OUTPUT_PLANE = auto()  # bytes, as the next two
    OUTPUT_IMAGE = auto()
    PITCH = auto()
    RIGHT = auto()  # zeros right of a row to be written with its pixels: a number of floats
    RESIDUAL = auto()
    RESIDUAL_PLANE = auto()
    SCRATCH = auto()
    SCRATCH_STRIDE = auto()


@dataclass(frozen=True)
class Piece:
    """LANES pixels that are transposed together: tiles of `mr` in each of some `rows` of the output.

    The pixels of a row begin at lane 0, `share`, 2 `share` ...; `tiles` lie side by side.
    """

    mr: int
    tiles: int
    rows: int
    share: int

    @classmethod
    def of(cls, mr: int, width: int, lanes: int) -> Piece:
        """The piece for output rows of `width` pixels; narrow ones share it."""
        across = -(-width // mr)
        rows = max(1, lanes // (mr * across))
        share = lanes // rows
        return cls(mr, min(across, share // mr), rows, share)

    @property
    def columns(self) -> int:
        """Pixels of one of its rows."""
        return self.mr * self.tiles

    def right(self, width: int) -> int:
        """Lanes that are left beside the last pixels of an output row of `width`."""
        return self.share - (width - 1) % self.columns - 1


@dataclass(frozen=True)
class Product:
    """The kernel: pieces, NV vectors of channels, the stride in width, what is fused."""

    piece: Piece
    nv: int
    stride: int
    activation: Activation | None
    residual: bool

    def kernel(self) -> Kernel:
        """The kernel to be compiled."""
        piece, flags = self.piece, epilogue_tag(self.activation, self.residual)
        name = f"channels_{piece.mr}x{self.nv}_{piece.tiles}_{piece.rows}_{piece.share}by{self.stride}{flags}"
        return Kernel(name, lambda b: _Emitter(b, self).emit())

    def scratch(self, lanes: int) -> int:
        """Bytes for the sums of a piece."""
        return 4 * lanes * lanes * self.nv


class _Emitter:
    def __init__(self, b: Builder, shape: Product) -> None:
        self.b, self.shape = b, shape
        self.pixel_bytes = shape.nv * b.vector_bytes  # of a pixel's sums
        self.sums = b.pointer(Arg.SCRATCH) + b.thread * b.arg(Arg.SCRATCH_STRIDE)

    def emit(self) -> None:
        """Chunks outermost: the weights of one stay in the second cache while all pixels pass."""
        b, piece = self.b, self.shape.piece
        chunk_parts, row_parts = b.arg(Arg.CHUNK_PARTS), b.arg(Arg.ROW_PARTS)
        self.image, part = b.task // (chunk_parts * row_parts), b.task % (chunk_parts * row_parts)
        first_chunk = part // row_parts * b.arg(Arg.CHUNK_SHARE)
        last_chunk = b.minimum(first_chunk + b.arg(Arg.CHUNK_SHARE), b.arg(Arg.CHUNKS))
        first = part % row_parts * b.arg(Arg.ROW_SHARE)
        self.end = b.minimum(first + b.arg(Arg.ROW_SHARE), b.arg(Arg.P))
        rows, columns = b.loop(first, self.end, piece.rows), b.loop(0, b.arg(Arg.Q), piece.columns)
        with b.loop(first_chunk, last_chunk) as chunk, rows as row, columns as column:
            self.piece(chunk, row, column)

    def piece(self, chunk: Expr, row: Expr, column: Expr) -> None:
        """The sums of a piece's tiles, then their pixels in planes."""
        b, piece, plane = self.b, self.shape.piece, self.b.arg(Arg.PLANE)
        inputs, group = b.arg(Arg.GROUP_INPUTS), chunk // b.arg(Arg.GROUP_CHUNKS)
        source = b.pointer(Arg.INPUT) + self.image * b.arg(Arg.IMAGE) + group * inputs * plane
        weights = b.pointer(Arg.WEIGHTS) + chunk * b.arg(Arg.CELL_COUNT) * inputs * self.pixel_bytes
        bias = b.pointer(Arg.BIAS) + chunk * self.pixel_bytes
        with b.loop(0, piece.rows) as down, b.loop(0, piece.columns, piece.mr) as across:
            y, x = row + down, column + across
            with b.when((y < self.end) & (x < b.arg(Arg.Q))):
                at = source + y * b.arg(Arg.ROW) + x * (4 * self.shape.stride)
                self.tile(at, weights, bias, self.sums + (down * piece.share + across) * self.pixel_bytes)
        with b.loop(0, self.shape.nv) as v:
            self.flush(chunk, group, row, column, v)

    def tile(self, source: Expr, weights: Expr, bias: Expr, to: Expr) -> None:
        """MR pixels by NV vectors, over all cells of the kernel and all channels.

        The weights of the next chunk are asked for (a tenth of layers of 7x7, whose weights come from afar).
        """
        b, mr, nv = self.b, self.shape.piece.mr, self.shape.nv
        plane, inputs = b.arg(Arg.PLANE), b.arg(Arg.GROUP_INPUTS)
        following = b.arg(Arg.CELL_COUNT) * inputs * self.pixel_bytes
        start = [b.load_vector(bias + v * b.vector_bytes) for v in range(nv)]
        acc = [[b.var(value) for value in start] for _ in range(mr)]
        with b.loop(0, b.arg(Arg.CELL_COUNT)) as cell:
            at = source + b.load_i32(b.pointer(Arg.CELLS) + cell * 4)
            w = weights + cell * inputs * self.pixel_bytes
            with b.loop(0, inputs) as c:
                pixels, factors = at + c * plane, w + c * self.pixel_bytes
                for v in range(nv):
                    b.prefetch(factors + following + v * b.vector_bytes, near=False)
                vectors = [b.load_vector(factors + v * b.vector_bytes) for v in range(nv)]
                for m, sums in enumerate(acc):
                    x = b.broadcast(pixels + 4 * self.shape.stride * m)
                    for vector, total in zip(vectors, sums, strict=True):
                        total.set(b.fma(x, vector, total.get()))
        for m, sums in enumerate(acc):
            for v, total in enumerate(sums):
                b.store(total.get(), to + m * self.pixel_bytes + v * b.vector_bytes)

    def flush(self, chunk: Expr, group: Expr, row: Expr, column: Expr, v: Expr) -> None:
        """LANES channels of the piece's pixels; lanes between its tiles hold nothing."""
        b, piece = self.b, self.shape.piece
        outputs = b.arg(Arg.GROUP_OUTPUTS)
        inside = ((chunk - group * b.arg(Arg.GROUP_CHUNKS)) * self.shape.nv + v) * b.lanes
        at = self.sums + v * b.vector_bytes
        columns = [b.load_vector(at + i * self.pixel_bytes) for i in range(b.lanes)]
        planes = Planes(
            b.pointer(Arg.OUTPUT),
            b.arg(Arg.OUTPUT_PLANE),
            b.pointer(Arg.RESIDUAL) if self.shape.residual else None,
            b.arg(Arg.RESIDUAL_PLANE),
            (group + 1) * outputs,
            self.shape.activation,
        )
        corner = self.image * b.arg(Arg.OUTPUT_IMAGE) + column * 4
        left = b.arg(Arg.Q) - column
        pixels = b.minimum(left, b.int(piece.columns))
        written = b.select(left > piece.columns, pixels, pixels + b.arg(Arg.RIGHT))
        runs = []
        for down in range(piece.rows):
            first, y = piece.share * down, row + down
            # the pixels of this row are lanes from `first` on: count from where lane 0 would be
            place = corner + y * b.arg(Arg.PITCH) - 4 * first
            ends = [b.select(y < self.end, count, 0) + first for count in (pixels, written)]
            runs.append(Run(place, *(b.lanes_between(b.int(first), end) for end in ends)))
        finish(b, planes, columns, group * outputs + inside, runs)
