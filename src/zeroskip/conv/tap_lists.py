"""The taps of a convolution as the micro-kernel reads them: which, in which order, and how packed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from zeroskip.codegen import Planar
from zeroskip.conv.microkernel import GROUP, OFFSETS_AHEAD
from zeroskip.conv.problem import Array, ConvProblem, blocked, rows_of
from zeroskip.conv.shifted_panel import shifts
from zeroskip.conv.tap_variant import Variant

# Offsets beside their weights are counted in the first of these units that fits, if 16 bits are enough. Those
# up to 8 cost no instruction on x86: 3 % of sparse layers.
UNITS = (8, 4, 64)


def tap_offsets(problem: ConvProblem, x: Planar) -> Array:
    """Bytes from an output pixel's position to each tap's input pixel: int32 (C, R, S).

    On an input split by strides, tap (r, s) lies in the plane of its residues (r mod stride, s mod stride).
    """
    c = np.arange(problem.C)[:, None, None]
    r = (np.arange(problem.R) * problem.dilations[0])[:, None]
    s = np.arange(problem.S) * problem.dilations[1]
    if x.step == (1, 1):
        pixel = (r - problem.pads[0]) * x.pitch + (s - problem.pads[1])
        plane = c
    else:
        sy, sx = x.step
        pixel = (r // sy) * x.pitch + s // sx
        index = np.zeros((problem.R, problem.S), int)
        for i, (a, b) in enumerate(x.phases):
            index[(r % sy == a) & (s % sx == b)] = i
        plane = c * len(x.phases) + index
    offsets = plane * x.plane + 4 * pixel
    assert np.abs(offsets).max(initial=0) < 2**31, "input planes span more than 2 GiB"
    return offsets.astype(np.int32)


NONE = np.zeros(0, np.int32)


@dataclass(frozen=True)
class PackedTaps:
    """The micro-kernel's arrays: see `Arg.BLOCKS`, `Arg.OFFSETS`, `Arg.VALUES`, `Arg.ROWS`, `Arg.RUNS`.

    `bounds` cut the blocks into runs of about equal work, for threads to share. Of shifted panels a run of
    pixels takes `run_vectors`.
    """

    blocks: Array
    offsets: Array
    values: Array
    rows: Array
    bounds: Array
    unit: int = 0
    run_bounds: Array = field(default_factory=lambda: NONE)
    runs: Array = field(default_factory=lambda: NONE)
    run_vectors: int = 0

    @property
    def segments(self) -> int:
        """Segments."""
        return int(self.blocks.shape[0])


def _segments(problem: ConvProblem, variant: Variant) -> list[slice]:
    """The tap columns of each segment (taps are ordered channel by channel)."""
    channels, area = problem.C // problem.groups, problem.R * problem.S
    size = variant.segment or channels
    return [slice(c * area, min(c + size, channels) * area) for c in range(0, channels, size)]


def pack_dense(problem: ConvProblem, variant: Variant, x: Planar, runs: int) -> PackedTaps:
    """Every tap; the blocks of a group share one offset list."""
    w = blocked(problem, variant.mr, natural=True)
    groups, blocks, _, _ = w.shape
    rows = rows_of(problem, variant.mr, natural=True)
    offsets = tap_offsets(problem, x).reshape(groups, -1)
    parts, lists, entries = [], [], []
    first_value = first_offset = 0
    for cut in _segments(problem, variant):
        part = w[:, :, :, cut].transpose(0, 1, 3, 2)
        taps = part.shape[2]
        numbers = np.arange(groups * blocks)
        first_values, first_offsets = first_value + numbers * taps, first_offset + numbers // blocks * taps
        entries.append(np.stack([first_values, first_offsets, np.full_like(numbers, taps), numbers], axis=1))
        parts.append(part.reshape(-1))
        lists.append(offsets[:, cut].reshape(-1))
        first_value += groups * blocks * taps
        first_offset += groups * taps
    bounds = _bounds(np.ones(groups * blocks, int), runs)
    values = np.concatenate(parts)
    if variant.mr > 1:
        return _listed(np.stack(entries), lists, values, rows, bounds, variant.mr)
    lists = [np.repeat(part.reshape(groups, 1, -1), blocks, axis=1).reshape(-1) for part in lists]
    return _grouped(np.stack(entries), lists, values, rows, bounds)


def _listed(
    blocks: Array, offsets: list[Array], values: Array, rows: Array, bounds: Array, mr: int
) -> PackedTaps:
    """For blocks of `mr` output channels: a list of offsets beside the weights."""
    blocks[:, :, 0] *= 4 * mr
    return PackedTaps(_narrow(blocks), np.concatenate(offsets), values, rows, bounds)


def _grouped(blocks: Array, offsets: list[Array], values: Array, rows: Array, bounds: Array) -> PackedTaps:
    """For one output channel at a time: groups of weights and offsets; the latter in 16 bits if possible."""
    bases, near, unit = _compact(offsets)
    width = 2 if unit else 4
    blocks[:, :, 1] = bases
    counts = blocks[:, :, 2].reshape(-1)
    starts = np.concatenate([[0], np.cumsum(-(-counts * (4 + width) // 4) * 4)])
    blocks[:, :, 0] = starts[:-1].reshape(blocks.shape[:2])
    blocks = _narrow(blocks)
    data = np.zeros(int(starts[-1]) + 4, np.uint8)  # the last offset is read as 4 bytes
    ends = np.cumsum(counts)
    firsts, ends, starts = (a.astype(np.int32) for a in (ends - counts, ends, starts[:-1]))
    tap = np.arange(len(near), dtype=np.int32)
    lane = tap - np.repeat(firsts, counts)
    group = lane & -GROUP
    lane -= group
    size = np.minimum(np.repeat(ends, counts) - (tap - lane), GROUP)
    at = np.repeat(starts, counts) + group * (4 + width)
    data.view(np.float32)[(at >> 2) + lane] = values
    place = (at + 4 * size >> width // 2) + lane
    data.view(np.uint16 if unit else np.int32)[place] = near
    return PackedTaps(blocks, NONE, data, rows, bounds, unit)


def _side_by_side(
    sizes: Array, seats: Array, offsets: list[Array], values: Array, rows: Array, bounds: Array, lists: int
) -> PackedTaps:
    """For so many output channels at a time: groups of a tap or two of each.

    `sizes` and `seats` are (segments, rows). The lists of a block become as long as its longest: a weight is
    cut in halves, which add up exactly, and a row that is empty (beside others that are not, only rows
    without a channel are) gets zeros.
    """
    bases, near, unit = _compact(offsets)
    each = GROUP // lists
    longest = -(-sizes.reshape(len(sizes), -1, lists).max(axis=2) // each) * each
    ends = np.cumsum(longest // each).reshape(longest.shape)
    firsts = ends - longest // each
    data = np.zeros(
        int(ends[-1, -1]) + OFFSETS_AHEAD,
        [("weights", np.float32, GROUP), ("offsets", np.uint16 if unit else np.int32, GROUP)],
    )
    weights, places = (np.zeros((len(data), GROUP), array.dtype) for array in (values, near))
    flat_weights, flat_places = weights.reshape(-1), places.reshape(-1)
    # the taps of a row stand as far apart as there are lists
    start = (firsts[:, :, None] * GROUP + np.arange(lists)).reshape(-1)
    size = sizes.reshape(-1)
    before = (start - lists * (np.cumsum(size) - size)).astype(np.int32)
    at = np.repeat(before, size) + lists * np.arange(len(values), dtype=np.int32)
    flat_weights[at], flat_places[at] = values, near
    missing = np.repeat(longest, lists) - size
    short = np.flatnonzero((size > 0) & (missing > 0))
    missing, last = missing[short], start[short] + lists * (size[short] - 1)
    nth = np.arange(missing.sum()) - np.repeat(np.cumsum(missing) - missing, missing) + 1
    halvings = np.minimum(nth + 1, np.repeat(missing, missing))
    copied = np.repeat(last, missing)
    flat_weights[copied + lists * nth] = np.ldexp(flat_weights[copied], -halvings)
    flat_places[copied + lists * nth] = flat_places[copied]
    flat_weights[last] /= 2
    data["weights"], data["offsets"] = weights, places
    entries = [firsts * data.itemsize, np.broadcast_to(bases, firsts.shape), longest * lists]
    blocks = np.concatenate([np.stack(entries, axis=2), seats.reshape(*firsts.shape, lists)], axis=2)
    return PackedTaps(_narrow(blocks), NONE, data.view(np.uint8), rows, bounds, unit)


def _compact(offsets: list[Array]) -> tuple[Array, Array, int]:
    """Of each segment the smallest offset, (segments, 1); all from there on, in units of so many bytes.

    The unit is 0 where 16 bits are too few for that.
    """
    bases = [int(part.min()) if part.size else 0 for part in offsets]
    near = np.concatenate([part - base for part, base in zip(offsets, bases, strict=True)])
    largest, bits = near.max(initial=0), np.bitwise_or.reduce(near, initial=0)
    unit = next((u for u in UNITS if bits % u == 0 and largest < u << 16), 0)
    return np.array(bases)[:, None], near >> max(0, unit.bit_length() - 1), unit


def _narrow(blocks: Array) -> Array:
    assert blocks.max(initial=0) < 2**31, "the weights take more than 2 GiB"
    return blocks.astype(np.int32)


def pack_sparse(problem: ConvProblem, variant: Variant, x: Planar, runs: int) -> PackedTaps:
    """The taps at which any channel of the block is not zero; each block has its own offset list."""
    return _pack_nonzeros(problem, variant, tap_offsets(problem, x).reshape(problem.groups, -1), runs)


def pack_shifted(
    problem: ConvProblem, variant: Variant, x: Planar, runs: int, nv: int, lanes: int
) -> PackedTaps:
    """The same with offsets into a shifted panel of `nv` vectors, and the runs that fill it."""
    layer, area = shifts(problem), problem.R * problem.S
    cuts = _segments(problem, variant)
    channels = np.arange((cuts[0].stop - cuts[0].start) // area)[:, None]
    offsets = 4 * lanes * (channels * layer.channel_vectors(nv) + layer.places(nv)).reshape(-1)
    own = np.concatenate([offsets[: cut.stop - cut.start] for cut in cuts]).astype(np.int32)
    taps = _pack_nonzeros(problem, variant, np.tile(own, (problem.groups, 1)), runs)
    sources = layer.sources(x, problem.pads).reshape(problem.groups, -1, len(layer.runs))
    parts = [group[cut.start // area : cut.stop // area].reshape(-1) for group in sources for cut in cuts]
    bounds = np.cumsum([0, *(len(part) for part in parts)])
    assert np.abs(sources).max() < 2**31, "input planes span more than 2 GiB"
    return replace(
        taps,
        run_bounds=_narrow(bounds),
        runs=np.concatenate(parts).astype(np.int32),
        run_vectors=nv + layer.reach,
    )


def _pack_nonzeros(problem: ConvProblem, variant: Variant, offsets: Array, runs: int) -> PackedTaps:
    """The taps that are not zero; `offsets` (groups, taps of a group) are those of the taps.

    Blocks of a task and segment stand in the order of their taps, so that the processor foresees the ends of
    their loops (in a network; alone, it learns even random ones by heart). Lists side by side are then also
    almost equally long.
    """
    w = blocked(problem, variant.mr)
    groups, per_group, mr, width = w.shape
    there = (problem.there if mr == 1 else w.any(axis=2)).reshape(-1, width)
    numbers = np.arange(len(there))
    # a block's taps in a segment follow each other among all that are there
    found = np.flatnonzero(there).astype(np.int32 if there.size < 2**31 else np.int64)
    cuts = _segments(problem, variant)
    edges = np.array([cut.start for cut in cuts] + [width])
    firsts = np.searchsorted(found, (numbers * width + edges[:, None]).astype(found.dtype))
    sizes = np.diff(firsts, axis=0)
    seats = _Seats.of(sizes, per_group, variant.lists, runs)
    order = seats.order(sizes)
    sizes, firsts = (np.take_along_axis(seats.spread(array), order, axis=1) for array in (sizes, firsts[:-1]))
    ends = np.cumsum(sizes).reshape(sizes.shape)
    starts = ends - sizes
    moved = np.repeat((firsts - starts).astype(np.int32).reshape(-1), sizes.reshape(-1))
    found = found[moved + np.arange(len(found), dtype=np.int32)]
    block = np.repeat(seats.spread(numbers.astype(np.int32))[order].reshape(-1), sizes.reshape(-1))
    tap = found - block * width
    group = block // per_group if groups > 1 else 0
    values = w.reshape(-1)[found] if mr == 1 else w[group, block % per_group, :, tap].reshape(-1)
    parts = np.split(offsets[group, tap], ends[:-1, -1])
    rows = seats.spread(rows_of(problem, mr).reshape(-1, mr).T, problem.K).T.reshape(-1)
    if variant.lists > 1:
        return _side_by_side(sizes, order, parts, values, rows, seats.bounds, variant.lists)
    blocks = np.stack([starts, starts, sizes, order], axis=2)
    return (
        _listed(blocks, parts, values, rows, seats.bounds, mr)
        if mr > 1
        else _grouped(blocks, parts, values, rows, seats.bounds)
    )


@dataclass(frozen=True)
class _Seats:
    """Where blocks stand: those of a task and a group of the convolution, its *table*, together.

    Lists side by side are blocks of so many rows. Vacant seats, rows without a channel, fill up each table;
    they are enough for rows without taps in a segment not to stand beside others.
    """

    taken: Array  # the seat of each row
    table: Array  # the table of each seat
    bounds: Array  # seats, or blocks of `lists` seats, at which tasks begin and end

    @classmethod
    def of(cls, sizes: Array, per_group: int, lists: int, runs: int) -> _Seats:
        """For rows of so many taps (segments, rows), in at most so many runs of about equal work."""
        rows = sizes.shape[1]
        tasks = _bounds(sizes.sum(axis=0), runs)
        first = np.array(sorted({*tasks.tolist(), *range(0, rows, per_group)})[:-1])
        vacant = _vacancies(sizes, first, per_group, lists)
        before = np.concatenate([[0], np.cumsum(vacant)])
        guests = np.diff(np.append(first, rows))
        tables = np.arange(len(first))
        bounds = tasks + before[np.searchsorted(first, tasks)]
        return cls(
            np.arange(rows) + np.repeat(before[:-1], guests),
            np.repeat(tables, guests + vacant),
            (bounds // lists).astype(np.int32),
        )

    def spread(self, values: Array, vacant: int = 0) -> Array:
        """Values of rows (the last axis) as values of seats."""
        spread = np.full((*values.shape[:-1], len(self.table)), vacant, values.dtype)
        spread[..., self.taken] = values
        return spread

    def order(self, sizes: Array) -> Array:
        """The seats in the order of their taps in each segment, (segments, seats); empty rows first."""
        vacant = np.ones(len(self.table), bool)
        vacant[self.taken] = False
        return np.stack([np.lexsort([vacant, size, self.table]) for size in self.spread(sizes)])


def _vacancies(sizes: Array, first: Array, per_group: int, lists: int) -> Array:
    """The vacant seats of each table, whose rows begin at `first`; groups have equally many seats."""
    if lists == 1:
        return np.zeros(len(first), int)
    guests = np.diff(np.append(first, sizes.shape[1]))
    empty = np.add.reduceat(sizes == 0, first, axis=1, dtype=int)
    fitting, needed = -guests % lists, (-empty % lists).max(axis=0)
    vacant: Array = fitting + -(-np.maximum(needed - fitting, 0) // lists) * lists
    group = first // per_group
    seats = np.bincount(group, guests + vacant).astype(int)
    last = np.searchsorted(group, np.arange(len(seats)), side="right") - 1
    vacant[last] += seats.max() - seats
    return vacant


def _bounds(work: Array, runs: int) -> Array:
    """Block numbers that cut the blocks into at most `runs` runs of about equal work, none of them empty."""
    total = np.concatenate([[0], np.cumsum(work + 1)])
    cuts = np.searchsorted(total, np.linspace(0, total[-1], min(runs, len(work)) + 1)[1:-1])
    return np.array(sorted({0, *cuts.tolist(), len(work)}), np.int32)  # np.unique would import numpy.ma
