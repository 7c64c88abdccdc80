"""Convolution by encoded activations: what CSCC, CPO and CPS have in common.

The map is encoded at run time, one image and pattern per task; then every non-zero is multiplied by the
filters' weights for each place it has in a window, with vectors over output channels. The sums of LANES
strips and a chunk of output channels wait in scratch memory, strip by strip and row by row, and are
transposed into planes. The published prototypes have one channel and one filter; here many filters share
an element's decoding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Scratch, Target
from zeroskip.conv.algorithm import DENSITY, Algorithm, Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.problem import Array, ConvProblem
from zeroskip.conv.strip_kernels import Encode, Multiply, Product, encode_kernel
from zeroskip.encodings import lowering
from zeroskip.encodings.strips import Strips

# Vectors of output channels at a time: as many as there are, up to four.
WIDEST = 4


@dataclass(frozen=True)
class Form:
    """An encoding: the order in which a strip's elements stand (see `encode_kernel`)."""

    order: str

    @property
    def folded(self) -> bool:
        """Whether index words are CPS's."""
        return self.order == "sets"


def strips_of(problem: ConvProblem) -> Strips:
    """The padded map's strips."""
    top, left, bottom, right = problem.pads
    height, width = problem.H + top + bottom, problem.W + left + right
    return Strips(problem.C, height, width, problem.R, problem.S, *problem.strides)


def refuses(problem: ConvProblem, target: Target) -> str | None:
    """Why the encodings cannot do a layer, or None."""
    if problem.dilations != (1, 1):
        return f"dilations {problem.dilations}; a strip is made of neighbouring columns"
    if problem.groups != 1:
        return f"{problem.groups} groups; an element meets all output channels"
    if problem.N * strips_of(problem).Ow * problem.S * strips_of(problem).Ih * problem.C >= 2**29:
        return "the encoded map may take more than 2 GB; its positions are of 32 bits"
    return None


def variants(problem: ConvProblem, target: Target) -> list[str]:
    """The one way, named by the vectors of output channels."""
    return [f"{min(WIDEST, -(-problem.K // target.lanes))}"]


def cycles(problem: ConvProblem, form: Form, target: Target) -> float:
    """Predicted time with `DENSITY` non-zeros: encoding, and a store per product and vector."""
    strips, vectors = strips_of(problem), -(-problem.K // target.lanes)
    stored = strips.Ow * strips.Kw if form.order == "rows" else strips.Iw
    encoding = 2.0 * problem.N * stored * strips.Ih * strips.Ic
    products = 1.6 * DENSITY * problem.N * problem.P * problem.Q * problem.C * problem.R * problem.S * vectors
    elements = DENSITY * problem.N * stored * strips.Ih * strips.Ic * 20 * -(-vectors // WIDEST)
    return encoding + products + elements + 5 * problem.N * problem.P * problem.Q * vectors


def columns_of(strips: Strips, form: Form) -> Array:
    """`Encode.COLUMNS`: of each pattern and strip, the first column stored and how many."""
    strip = np.arange(strips.Ow)
    if form.order == "rows":
        return np.stack([strip * strips.Sw, np.full_like(strip, strips.Kw)], axis=1)[None]
    table = np.zeros((strips.n, strips.Ow, 2), int)
    pattern, first = strips.pattern, strips.first
    read = np.flatnonzero(pattern >= 0)
    np.add.at(table[..., 1], (pattern[read], first[read]), 1)
    # neighbours of equal pattern and first strip: the last assignment, of the leftmost, stays
    table[pattern[read[::-1]], first[read[::-1]], 0] = read[::-1]
    return table


def algorithm(name: str, order: str, description: str, source: str) -> Algorithm:
    """The row of the encoding called `name`, whose elements stand in `order` (see `Form`)."""
    form = Form(order)
    return Algorithm(
        name,
        description,
        source,
        refuses,
        variants,
        lambda problem, variant, target: cycles(problem, form, target),
        lambda problem, variant, site: build(problem, form, variant, site),
        shifted=False,
        skips="activations",
    )


def build(problem: ConvProblem, form: Form, variant: str, site: Site) -> tuple[Call, ...]:
    """Encode, multiply, and zero what is not a pixel."""
    strips = strips_of(problem)
    columns = columns_of(strips, form)
    full, tail = divmod(strips.Ih, lowering.GROUP)
    per_column = 2 * full + min(tail, 2) if form.folded else strips.Ih
    stored = columns[..., 1].sum(axis=1)
    sizes = strips.Ic * stored[:, None] * np.array([strips.Ih, per_column])
    bases = np.concatenate([[[0, 0]], np.cumsum(sizes, axis=0)[:-1]])
    pointers, values, indices = (
        4 * int(words) for words in (len(columns) * (strips.Ow + 1), sizes[:, 0].sum(), sizes[:, 1].sum())
    )
    buffer = site.allocate(problem.N * (pointers + values + indices))
    shared: dict[str, Argument] = {
        "PATTERNS": len(columns),
        "STRIPS": strips.Ow,
        "HEIGHT": strips.Ih,
        "KERNEL_WIDTH": strips.Kw,
        "STEP": strips.Sw,
        "BASES": bases.astype(np.int32),
        "POINTERS": Address(buffer),
        "VALUES": Address(buffer, problem.N * pointers),
        "INDICES": Address(buffer, problem.N * (pointers + values)),
        "POINTER_BYTES": pointers,
        "VALUE_BYTES": values,
        "INDEX_BYTES": indices,
    }
    encode = _encode(problem, form, columns, shared, site)
    return encode, _multiply(problem, form, int(variant), shared, site), zero_borders(site.y, site.threads)


def _encode(
    problem: ConvProblem, form: Form, columns: Array, shared: dict[str, Argument], site: Site
) -> Call:
    x, (top, left) = site.x.planar, problem.pads[:2]
    origin = site.x.address
    values: dict[str, Argument] = shared | {
        "INPUT": Address(origin.buffer, origin.offset - 4 * (top * x.pitch + left)),
        "PLANE": x.plane,
        "IMAGE": x.image,
        "PITCH": 4 * x.pitch,
        "CHANNELS": problem.C,
        "COLUMNS": columns.astype(np.int32),
    }
    arguments = tuple(values[slot.name] for slot in Encode)
    return Call(encode_kernel(form.order), arguments, problem.N * len(columns))


def _multiply(problem: ConvProblem, form: Form, kv: int, shared: dict[str, Argument], site: Site) -> Call:
    y, residual, lanes = site.y.planar, site.residual, site.target.lanes
    chunk = kv * lanes
    chunks = -(-problem.K // chunk)
    w = np.zeros((chunks * chunk, problem.C, problem.R, problem.S), np.float32)
    w[: problem.K] = problem.w
    bias = np.zeros(chunks * chunk, np.float32)
    if problem.bias is not None:
        bias[: problem.K] = problem.bias
    patterns = int(np.asarray(shared["PATTERNS"]))
    sums = (lanes + patterns - 1) * problem.P * chunk * 4
    scratch = sums + -(-8 * patterns // 64) * 64
    product = Product(kv, problem.strides[0], form.folded, problem.activation, residual is not None)
    values: dict[str, Argument] = shared | {
        "KERNEL_HEIGHT": problem.R,
        "OUTPUT_HEIGHT": problem.P,
        "CHUNKS": chunks,
        "WEIGHTS": np.ascontiguousarray(w.reshape(chunks, chunk, *w.shape[1:]).transpose(0, 2, 4, 3, 1)),
        "WEIGHT_BYTES": 4 * chunk * w[0].size,
        "BIAS": bias,
        "K": problem.K,
        "OUTPUT": site.y.address,
        "OUTPUT_PLANE": y.plane,
        "PITCH": 4 * y.pitch,
        "IMAGE": y.image,
        "RESIDUAL": residual.address if residual else Address(-1),
        "RESIDUAL_PLANE": residual.planar.plane if residual else 0,
        "SUMS_BYTES": sums,
        "SCRATCH": Scratch(),
        "SCRATCH_STRIDE": scratch,
    }
    arguments = tuple(values[slot.name] for slot in Multiply)
    return Call(product.kernel(), arguments, problem.N * chunks, scratch)
