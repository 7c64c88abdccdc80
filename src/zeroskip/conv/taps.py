"""Convolutions by the tap micro-kernel: which taps, in which order, over which panels and tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Operand, Planar, Scratch, Target
from zeroskip.conv.algorithm import Site
from zeroskip.conv.microkernel import Arg, Tile
from zeroskip.conv.problem import Array, ConvProblem, blocked, rows_of

# Below this many multiply-accumulates a layer is not worth splitting among threads (a barrier costs about 1 us).
MACS_WORTH_A_TASK = 100_000
TASKS_PER_THREAD = 4


@dataclass(frozen=True)
class Variant:
    """A way to run the taps: the register tile, and how many input channels make a segment (0: all)."""

    mr: int
    nv: int
    segment: int = 0

    def __str__(self) -> str:
        return f"{self.mr}x{self.nv}" + (f"/{self.segment}" if self.segment else "")


def parse_variant(text: str) -> Variant:
    """The inverse of ``str(variant)``."""
    tile, _, segment = text.partition("/")
    mr, nv = tile.split("x")
    return Variant(int(mr), int(nv), int(segment or 0))


@dataclass(frozen=True)
class Panels:
    """A plane's vectors cut into panels of nv or nv-1, as equal as can be."""

    vectors: int
    widest: int

    @cached_property
    def count(self) -> int:
        """Panels."""
        return -(-self.vectors // self.widest)

    @cached_property
    def nv(self) -> int:
        """Vectors of the wide panels."""
        return -(-self.vectors // self.count)

    @cached_property
    def wide(self) -> int:
        """How many panels are wide."""
        return self.vectors - self.count * (self.nv - 1) if self.nv > 1 else self.count


def vectors_of(layout: Planar, lanes: int) -> int:
    """Vectors of a plane that hold any pixel."""
    return -(-layout.computed // lanes)


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


@dataclass(frozen=True)
class PackedTaps:
    """The micro-kernel's arrays: see `Arg.BLOCKS`, `Arg.OFFSETS`, `Arg.VALUES`, `Arg.ROWS`."""

    blocks: Array
    offsets: Array
    values: Array
    rows: Array

    @property
    def segments(self) -> int:
        """Segments."""
        return int(self.blocks.shape[0])

    @property
    def work(self) -> Array:
        """Taps of each block of output channels."""
        return np.asarray(self.blocks[:, :, 2].sum(axis=0))


def _segments(problem: ConvProblem, variant: Variant) -> list[slice]:
    """The tap columns of each segment (taps are ordered channel by channel)."""
    channels, area = problem.C // problem.groups, problem.R * problem.S
    size = variant.segment or channels
    return [slice(c * area, min(c + size, channels) * area) for c in range(0, channels, size)]


def pack_dense(problem: ConvProblem, variant: Variant, x: Planar) -> PackedTaps:
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
        entry = np.stack(
            [first_value + numbers * taps, first_offset + numbers // blocks * taps, np.full_like(numbers, taps)],
            axis=1,
        )
        entries.append(entry)
        parts.append(part.reshape(-1))
        lists.append(offsets[:, cut].reshape(-1))
        first_value += groups * blocks * taps
        first_offset += groups * taps
    if variant.mr > 1:
        return _packed(entries, np.concatenate(lists), np.concatenate(parts), rows)
    lists = [np.repeat(part.reshape(groups, 1, -1), blocks, axis=1).reshape(-1) for part in lists]
    return _paired(entries, np.concatenate(lists), np.concatenate(parts), rows)


def _packed(entries: list[Array], offsets: Array, values: Array, rows: Array) -> PackedTaps:
    return PackedTaps(np.stack(entries).astype(np.int32), offsets, np.ascontiguousarray(values), rows)


def _paired(entries: list[Array], offsets: Array, values: Array, rows: Array) -> PackedTaps:
    """For blocks of one output channel: (offset, weight) pairs, which one load fetches."""
    pairs = np.stack([offsets, np.ascontiguousarray(values).view(np.int32)], axis=1)
    return _packed(entries, np.zeros(0, np.int32), pairs, rows)


def pack_sparse(problem: ConvProblem, variant: Variant, x: Planar) -> PackedTaps:
    """The taps at which any channel of the block is not zero; each block has its own offset list."""
    w = blocked(problem, variant.mr)
    groups, blocks, _, _ = w.shape
    there = w.any(axis=2)
    offsets = tap_offsets(problem, x).reshape(groups, -1)
    values, lists, entries = [], [], []
    first = 0
    for cut in _segments(problem, variant):
        group, block, tap = np.nonzero(there[:, :, cut])
        tap = tap + cut.start
        values.append(w[group, block, :, tap].reshape(-1))
        lists.append(offsets[group, tap])
        counts = np.count_nonzero(there[:, :, cut], axis=2).reshape(-1)
        starts = first + np.concatenate([[0], np.cumsum(counts)[:-1]])
        entries.append(np.stack([starts, starts, counts], axis=1))
        first += tap.size
    pack = _packed if variant.mr > 1 else _paired
    return pack(entries, np.concatenate(lists), np.concatenate(values), rows_of(problem, variant.mr))


def _group_bounds(work: Array, groups: int) -> Array:
    """Block numbers that cut the blocks into `groups` runs of about equal work."""
    total = np.concatenate([[0], np.cumsum(work + 1)])
    cuts = np.searchsorted(total, np.linspace(0, total[-1], groups + 1)[1:-1])
    return np.concatenate([[0], np.maximum.accumulate(cuts), [len(work)]]).astype(np.int32)


def call(problem: ConvProblem, variant: Variant, taps: PackedTaps, site: Site) -> Call:
    """The convolution as one kernel call: y = activation(taps(x) + bias [+ residual])."""
    x, y, residual, target, threads = site.x, site.y, site.residual, site.target, site.threads
    lanes, layout = target.lanes, y.planar
    panels = Panels(vectors_of(layout, lanes), variant.nv)
    tile = Tile(variant.mr, panels.nv, problem.activation, residual is not None, taps.segments > 1)
    total = int(taps.blocks.shape[1])
    chunks, groups = split(problem, panels.count, total, threads)
    scratch = total * variant.mr * panels.nv * lanes * 4 if tile.segmented else 0
    bias = np.zeros(problem.K + 1, np.float32)
    if problem.bias is not None:
        bias[:-1] = problem.bias
    none = Address(-1)
    values: dict[Arg, Argument] = {
        Arg.INPUT: x.address,
        Arg.OUTPUT: y.address,
        Arg.RESIDUAL: residual.address if residual else none,
        Arg.BIAS: bias[taps.rows],
        Arg.ROWS: taps.rows,
        Arg.BLOCKS: taps.blocks,
        Arg.OFFSETS: taps.offsets,
        Arg.VALUES: taps.values,
        Arg.MASKS: layout.masks(lanes),
        Arg.SCRATCH: Scratch(),
        Arg.SCRATCH_STRIDE: scratch,
        Arg.CHANNELS: problem.K,
        Arg.OUTPUT_PLANE: layout.plane,
        Arg.RESIDUAL_PLANE: residual.planar.plane if residual else 0,
        Arg.PANELS: panels.count,
        Arg.WIDE: panels.wide,
        Arg.PANELS_PER_TASK: -(-panels.count // chunks),
        Arg.GROUPS: groups,
        Arg.GROUP_BOUNDS: _group_bounds(taps.work, groups),
        Arg.SEGMENTS: taps.segments,
        Arg.TOTAL_BLOCKS: total,
        Arg.COMPUTED: panels.vectors * lanes * 4,
        Arg.PLANE_END: layout.plane,
        Arg.LEAD: layout.lead,
    }
    arguments = tuple(values[arg] for arg in Arg)
    tasks = groups * -(-panels.count // -(-panels.count // chunks))
    return Call(tile.kernel(), arguments, tasks, scratch)


def split(problem: ConvProblem, panels: int, blocks: int, threads: int) -> tuple[int, int]:
    """Into how many runs of panels, and how many groups of blocks, to cut the work."""
    if threads == 1:
        return 1, 1
    wanted = min(threads * TASKS_PER_THREAD, max(1, problem.macs // MACS_WORTH_A_TASK))
    chunks = min(panels, wanted)
    groups = min(blocks, -(-wanted // chunks)) if chunks < wanted else 1
    return chunks, groups
