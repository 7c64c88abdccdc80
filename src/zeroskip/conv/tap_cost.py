"""A model of the tap micro-kernel's time, good enough to drop candidates that cannot win.

Lists side by side start while others run, and wait for far loads side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from zeroskip.codegen import Target
from zeroskip.conv.algorithm import PEAK
from zeroskip.conv.panels import Panels
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.shifted_panel import LARGEST_STRIDE, shifts, strips
from zeroskip.conv.tap_variant import Variant

FIRST_CACHE = 32 * 1024
# What shifted panels may take of first caches of 32 and of 48 KiB, beside weights and sums.
SHIFTED_BYTES = (24 * 1024, 40 * 1024)
# With fewer non-zeros per output channel and segment, partial sums cost more than they save.
TAPS_PER_SEGMENT = 4
EXPOSED = 0.3  # of the multiply-adds, or of the far loads, that the other does not hide


@dataclass(frozen=True)
class Costs:
    """Cycles that vectors and blocks take.

    Attributes:
        lists_cache: bytes that lists side by side read as if they were in the first cache.
        near, far: to read a vector from the first and from the second cache.
        near_across, far_across: the same where vectors may straddle cache lines.
        store, shifted_store: to write a vector of a plain and of a shifted panel.
        start, lists_start: to start a block of one list and of several.
        copy: to copy a vector into a shifted panel, for each vector it is picked from.
    """

    lists_cache: int
    near: float
    far: float
    near_across: float
    far_across: float
    store: float
    shifted_store: float
    start: float
    lists_start: float
    copy: float


# Fitted on a Zen 5 core: 48 KiB first cache, two loads and two multiply-adds of 512 bits per cycle.
WIDE = Costs(56 << 10, 0.5, 2.3, 0.8, 3.68, 5.0, 5.0, 20.0, 24.0, 2.0)
# Fitted on a Zen 3 core: as many of 256 bits, half of a cache line, which shifted panels write one by one.
NARROW = Costs(32 << 10, 0.7, 2.3, 0.7, 4.6, 2.6, 16.0, 60.0, 8.0, 4.0)


def costs(target: Target) -> Costs:
    """Those of targets whose vectors are cache lines, or of the others."""
    return WIDE if target.lanes == 16 else NARROW


def pixel_vectors(problem: ConvProblem, target: Target) -> int:
    """About how many vectors of a plane hold pixels."""
    pitch = problem.Q + problem.pads[1]
    return -(-problem.N * problem.P * pitch // target.lanes)


def plain_variants(
    problem: ConvProblem,
    tiles: Sequence[tuple[int, int]],
    segments: Sequence[int],
    target: Target,
    lists: int = 1,
) -> list[Variant]:
    """Tiles (MR, NV) with segments of so many input channels, where these are fewer than there are (0: all).

    Of the widths NV that cut a plane into equally many panels, which are then equal, one is enough.
    """
    vectors, channels = pixel_vectors(problem, target), problem.C // problem.groups
    distinct = {(mr, Panels(vectors, nv).count): (mr, nv) for mr, nv in tiles}.values()
    return [
        Variant(mr, nv, segment, lists=lists)
        for mr, nv in distinct
        for segment in segments
        if segment < channels
    ]


def shifted_panels(problem: ConvProblem, widest: int, target: Target) -> list[Panels]:
    """The panels of a layer, if shifted, in the order of `strips`, images and columns side by side."""
    pitch, cell = (problem.W + problem.pads[1]) * problem.strides[0], problem.cell
    width, height = problem.Q // cell * cell, problem.P // cell * cell
    cut = strips(width, height, pitch, target.lanes, cell)
    sides = [(strip, problem.N * strip.side(target.lanes)) for strip in cut]
    return [Panels(strip.rows, widest, cell) for strip, side in sides for _ in range(side)]


def shifted_variants(
    problem: ConvProblem, mr: int, widths: Sequence[int], target: Target, lists: int = 1
) -> list[Variant]:
    """Shifted panels of different heights, with as many input channels a segment as fill the first cache.

    Where no tap is shifted there are none: to copy every second pixel costs more than to split the input.
    """
    if not problem.misaligned or problem.strides[1] > LARGEST_STRIDE:
        return []
    per_channel = problem.density * problem.R * problem.S
    return [
        Variant(mr, nv, segment, shifted=True, lists=lists)
        for nv, segment in shifted_sizes(problem, widths, SHIFTED_BYTES, target)
        if segment == 0 or segment * per_channel >= TAPS_PER_SEGMENT
    ]


def shifted_sizes(
    problem: ConvProblem, widths: Sequence[int], sizes: Sequence[int], target: Target
) -> list[tuple[int, int]]:
    """Vectors of a panel, and how many input channels of it (0: all) so many bytes hold, one at least."""
    channels, layer = problem.C // problem.groups, shifts(problem)
    found: dict[tuple[int, int], None] = {}
    for widest, size in product(widths, sizes):
        nv = max(cut.nv for cut in shifted_panels(problem, widest, target))
        fitting = max(1, size // (layer.channel_vectors(nv) * target.lanes * 4))
        found[nv, 0 if fitting >= channels else fitting] = None
    return list(found)


def tap_cycles(problem: ConvProblem, variant: Variant, taps: float, target: Target) -> float:
    """Predicted cycles when blocks of `variant.mr` output channels have `taps` taps in all."""
    panels = (
        shifted_panels(problem, variant.nv, target)
        if variant.shifted
        else [Panels(pixel_vectors(problem, target), variant.nv)]
    )
    vectors, count = sum(cut.vectors for cut in panels), sum(cut.count for cut in panels)
    nv, mr = max(cut.nv for cut in panels), variant.mr
    channels = problem.C // problem.groups
    segment = min(variant.segment or channels, channels)
    segments = -(-channels // segment)
    blocks = -(-problem.K // (mr * variant.lists))
    lines = nv + (1 if problem.S > 1 else 0)
    rows = problem.R if nv * target.lanes < 2 * (problem.Q + 1) * problem.R else 1
    footprint = segment * lines * min(problem.R, rows + 1) * target.lanes * 4
    cost = costs(target)
    near = FIRST_CACHE if variant.lists == 1 else cost.lists_cache
    far = 0.0 if variant.shifted else 1.0 - min(1.0, near / footprint)
    across = problem.misaligned and not variant.shifted
    close, distant = (cost.near_across, cost.far_across) if across else (cost.near, cost.far)
    load = close + (distant - close) * far
    copies = 0.0
    if variant.shifted:
        copies = cost.copy * problem.strides[1] * problem.C * count * shifts(problem).channel_vectors(nv)
    multiply = taps * vectors * mr / 2 / PEAK
    loads = taps * (vectors * load + count * (mr + 1) * cost.near)
    spill = problem.K * vectors * 2.0 * (segments - 1)
    start = cost.start if variant.lists == 1 else cost.lists_start
    stores = vectors / problem.cell**2 * cost.shifted_store if variant.shifted else vectors * cost.store
    overhead = problem.K * stores + start * blocks * count * segments
    return copies + max(multiply, loads) + EXPOSED * far * min(multiply, loads) + overhead + spill
