"""Sparse weights and skipped zero activations together: ours, SCNN's Cartesian product for a CPU.

SCNN (Parashar et al. 2017) multiplies the non-zero activations of a channel only by its non-zero weights. On
a CPU whose unit of work is a vector, activations come as runs of NV vectors of pixels, and a product is a tap
(k, c, r, s) times a run. For every run of the output, each tap's run of the input is tested once: is it all
zero? Then each output channel's list of non-zero weights (CSR, as in `sparse_direct`) is copied without the
taps that are: without a branch, about 1.5 cycles per weight. What remains is multiplied with the sums in
registers. Dead channels and regions cost a test per tap and run; runs with any non-zero pixel cost all.

The other order (SCNN's own: a run times all weights of its channel, sums in the first cache) needs no lists,
but a load and a store per product; it was 1.5 times slower than `sparse_direct` on maps without zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Scratch, Target
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.conv import taps
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.dual_sparse_kernel import UNROLLED, Arg, Tile
from zeroskip.conv.problem import Array, ConvProblem

RUNS = (4, 8, 14)  # vectors of pixels: short ones are all zero more often, long ones share a weight's loads
SEGMENTS = (32, 64, 128)  # input channels at a time: their pixels stay in the first cache
LARGEST = 65535  # taps of a segment: what 16 bits hold
# Predictions take this share of the runs to be all zero; measurements tell.
ALL_ZERO = 0.3


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    taps_of_segment = min(SEGMENTS[0], problem.C // problem.groups) * problem.R * problem.S
    if taps_of_segment > LARGEST:
        return f"{taps_of_segment} taps of {SEGMENTS[0]} channels; they are numbered in 16 bits"
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    channels, area = problem.C // problem.groups, problem.R * problem.S
    sizes = dict.fromkeys(
        min(size, channels) for size in SEGMENTS if size == SEGMENTS[0] or size * area <= LARGEST
    )
    return [f"{nv}/{size}" for nv in RUNS for size in sizes]


def _numbers(variant: str) -> tuple[int, int]:
    """Vectors of a run, and input channels of a segment."""
    nv, _, segment = variant.partition("/")
    return int(nv), int(segment)


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    """Of each weight and run a copy, of those that meet pixels a product; of each tap and run a test."""
    nv, segment = _numbers(variant)
    runs = problem.N * problem.P * (problem.Q + problem.S - 1) / target.lanes / nv
    segments = -(-problem.C // problem.groups // segment)
    products = (1 - ALL_ZERO) * problem.nonzeros * runs * (1.4 * nv + 1)
    tests = runs * problem.C * problem.R * problem.S * (4 + nv)
    return products + 1.5 * problem.nonzeros * runs + tests + runs * segments * problem.K * (20 + 2 * nv)


@dataclass(frozen=True)
class Lists:
    """The non-zero weights in lists: see `Arg.BOUNDS`, `Arg.PAIRS`, `Arg.NUMBERS`; and the longest list."""

    bounds: Array
    pairs: Array
    numbers: Array
    longest: int


def lists_of(problem: ConvProblem, offsets: Array, size: int) -> Lists:
    """The weights by segment of `size` taps, output channel and tap; `offsets` are (groups, taps)."""
    groups, filters = problem.groups, problem.K // problem.groups
    w = problem.w.reshape(groups, filters, -1)
    bounds, pairs, numbers = [], [], []
    total = longest = 0
    for first in range(0, w.shape[2], size):
        part = w[:, :, first : first + size]
        group, k, tap = np.nonzero(part)
        counts = np.count_nonzero(part, axis=2).reshape(-1)
        filled = -(-counts // UNROLLED) * UNROLLED
        ends = total + np.cumsum(filled)
        bounds.append(np.stack([ends - filled, ends], axis=1))
        place = np.arange(len(tap)) + np.repeat(np.cumsum(filled - counts) - (filled - counts), counts)
        pair, number = np.zeros((filled.sum(), 2), np.int32), np.full(filled.sum(), size, np.uint16)
        pair[place, 0], pair[place, 1] = offsets[group, first + tap], part[group, k, tap].view(np.int32)
        number[place] = tap
        pairs.append(pair)
        numbers.append(number)
        total, longest = total + len(number), max(longest, int(filled.max()))
    return Lists(
        np.concatenate(bounds).astype(np.int32), np.concatenate(pairs), np.concatenate(numbers), longest
    )


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    (nv, segment), lanes, y = _numbers(variant), site.target.lanes, site.y.planar
    panels = taps.panels_of(y, taps.Variant(1, nv), lanes)
    area, filters = problem.R * problem.S, problem.K // problem.groups
    offsets = taps.tap_offsets(problem, site.x.planar).reshape(problem.groups, -1)
    lists = lists_of(problem, offsets, segment * area)
    parts = _parts(problem, panels.count, site.threads)
    bias = np.zeros(problem.K, np.float32) if problem.bias is None else problem.bias
    sums = -(-filters // parts) * panels.nv * lanes * 4
    live = round_up(segment * area + 1, LINE)
    copied = round_up(8 * (lists.longest + 1), LINE)
    values: dict[Arg, Argument] = {
        Arg.INPUT: site.x.address,
        Arg.OUTPUT: site.y.address,
        Arg.RESIDUAL: site.residual.address if site.residual else Address(-1),
        Arg.OUTPUT_PLANE: y.plane,
        Arg.RESIDUAL_PLANE: site.residual.planar.plane if site.residual else 0,
        Arg.BIAS: bias,
        Arg.MASKS: y.masks(lanes),
        Arg.GROUPS: problem.groups,
        Arg.FILTERS: filters,
        Arg.PARTS: parts,
        Arg.TAPS: problem.C // problem.groups * area,
        Arg.SEGMENT: segment * area,
        Arg.OFFSETS: offsets,
        Arg.BOUNDS: lists.bounds,
        Arg.PAIRS: lists.pairs,
        Arg.NUMBERS: lists.numbers,
        Arg.PANELS: panels.count,
        Arg.WIDE: panels.wide,
        Arg.COMPUTED: panels.vectors * lanes * 4,
        Arg.PLANE_END: y.plane,
        Arg.LEAD: y.lead,
        Arg.SUM_BYTES: sums,
        Arg.LIVE_BYTES: live,
        Arg.SCRATCH: Scratch(),
        Arg.SCRATCH_STRIDE: sums + live + copied,
    }
    tile = Tile(panels.nv, problem.activation, site.residual is not None)
    arguments = tuple(values[slot] for slot in Arg)
    tasks = panels.count * problem.groups * parts
    return (Call(tile.kernel(), arguments, tasks, sums + live + copied),)


def _parts(problem: ConvProblem, panels: int, threads: int) -> int:
    """Into how many parts to cut a group's output channels: each tests the taps again."""
    wanted = threads * taps.TASKS_PER_THREAD if threads > 1 else 1
    return max(1, min(-(-wanted // (panels * problem.groups)), problem.K // problem.groups))


ALGORITHM = Algorithm(
    "dual_sparse",
    "sparse weights times runs of pixels, without those runs that are all zero",
    "ours, after SCNN: Parashar et al., ISCA 2017",
    _refuses,
    _variants,
    _cycles,
    _build,
)
