"""Convolutions by the tap micro-kernel: which taps, in which order, over which panels and tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from zeroskip.codegen import Address, Argument, Call, Planar, Scratch, side_by_side
from zeroskip.conv.algorithm import Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.microkernel import GROUP, Arg, Tile
from zeroskip.conv.panels import Panels
from zeroskip.conv.problem import Array, ConvProblem, blocked, rows_of
from zeroskip.conv.shifted_panel import Places, kernel, places, shifts

# With fewer multiply-accumulates a layer is not worth splitting among threads (a barrier costs about 1 us).
MACS_WORTH_A_TASK = 100_000
TASKS_PER_THREAD = 4

# Offsets beside their weights are counted in the first of these units that fits, if 16 bits are enough. Those
# up to 8 cost no instruction on x86: 3 % of sparse layers.
UNITS = (8, 4, 64)


@dataclass(frozen=True)
class Variant:
    """A way to run the taps: the register tile, input channels of a segment (0: all), shifted panels or not.

    As text ``1x4/16s``: 1 channel by 4 vectors, segments of 16 input channels, shifted.
    """

    mr: int
    nv: int
    segment: int = 0
    shifted: bool = False

    def __str__(self) -> str:
        segment = f"/{self.segment}" if self.segment else ""
        return f"{self.mr}x{self.nv}{segment}{'s' if self.shifted else ''}"


def parse_variant(text: str) -> Variant:
    """The inverse of ``str(variant)``."""
    tile, _, segment = text.removesuffix("s").partition("/")
    mr, nv = tile.split("x")
    return Variant(int(mr), int(nv), int(segment or 0), text.endswith("s"))


def panels_of(layout: Planar, variant: Variant, lanes: int) -> Panels:
    """The panels into which a variant cuts the output's planes."""
    return Panels(vectors_of(layout, lanes), variant.nv)


def dense_calls(problem: ConvProblem, variant: Variant, site: Site) -> tuple[Call, ...]:
    """The convolution over all taps."""
    panels = panels_of(site.y.planar, variant, site.target.lanes)
    taps = pack_dense(problem, variant, site.x.planar, split(problem, panels.count, site.threads)[1])
    return (call(problem, variant, taps, site, panels),)


def sparse_calls(problem: ConvProblem, variant: Variant, site: Site) -> tuple[Call, ...]:
    """The convolution over the taps that are not zero."""
    x, y, lanes = site.x.planar, site.y.planar, site.target.lanes
    if not variant.shifted:
        panels = panels_of(y, variant, lanes)
        taps = pack_sparse(problem, variant, x, split(problem, panels.count, site.threads)[1])
        return (call(problem, variant, taps, site, panels),)
    taps, strips = shifted_taps(problem, variant, site)
    calls = (call(problem, variant, taps, site, at) for at in strips)
    return side_by_side(zero_borders(site.y, site.threads), *calls)


def shifted_taps(problem: ConvProblem, variant: Variant, site: Site) -> tuple[PackedTaps, list[Places]]:
    """The taps that are not zero, on shifted panels, and where these panels lie."""
    x, lanes = site.x.planar, site.target.lanes
    strips = places(x, site.y.planar, problem.strides, variant.nv, lanes)
    runs = split(problem, min(at.count for at in strips), site.threads, copied=True)[1]
    return pack_shifted(problem, variant, x, runs, max(at.nv for at in strips), lanes), strips


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
    bases = [int(part.min()) if part.size else 0 for part in offsets]
    near = np.concatenate([part - base for part, base in zip(offsets, bases, strict=True)])
    largest, bits = near.max(initial=0), np.bitwise_or.reduce(near, initial=0)
    unit = next((u for u in UNITS if bits % u == 0 and largest < u << 16), 0)
    width = 2 if unit else 4
    blocks[:, :, 1] = np.array(bases)[:, None]
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
    data.view(np.uint16 if unit else np.int32)[place] = near >> max(0, unit.bit_length() - 1)
    return PackedTaps(blocks, NONE, data, rows, bounds, unit)


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
    their loops (in a network; alone, it learns even random ones by heart).
    """
    w = blocked(problem, variant.mr)
    groups, per_group, mr, width = w.shape
    there = (w[:, :, 0] != 0 if mr == 1 else w.any(axis=2)).reshape(-1, width)
    counts = np.count_nonzero(there, axis=1)
    bounds = _bounds(counts, runs)
    numbers = np.arange(len(there))
    task = np.searchsorted(bounds, numbers, side="right") * groups + numbers // per_group
    # a block's taps in a segment follow each other among all that are there
    found = np.flatnonzero(there).astype(np.int32 if there.size < 2**31 else np.int64)
    cuts = _segments(problem, variant)
    edges = np.array([cut.start for cut in cuts] + [width])
    firsts = np.searchsorted(found, (numbers * width + edges[:, None]).astype(found.dtype))
    sizes = np.diff(firsts, axis=0)
    order = np.stack([np.lexsort([size, task]) for size in sizes])
    segment = np.arange(len(order))[:, None]
    sizes, firsts = sizes[segment, order], firsts[segment, order]
    ends = np.cumsum(sizes).reshape(sizes.shape)
    starts = ends - sizes
    moved = np.repeat((firsts - starts).astype(np.int32).reshape(-1), sizes.reshape(-1))
    found = found[moved + np.arange(len(found), dtype=np.int32)]
    block = np.repeat(order.astype(np.int32).reshape(-1), sizes.reshape(-1))
    tap = found - block * width
    group = block // per_group if groups > 1 else 0
    values = w.reshape(-1)[found] if mr == 1 else w[group, block % per_group, :, tap].reshape(-1)
    blocks = np.stack([starts, starts, sizes, order], axis=2)
    parts, rows = np.split(offsets[group, tap], ends[:-1, -1]), rows_of(problem, mr)
    if mr > 1:
        return _listed(blocks, parts, values, rows, bounds, mr)
    return _grouped(blocks, parts, values, rows, bounds)


def _bounds(work: Array, runs: int) -> Array:
    """Block numbers that cut the blocks into at most `runs` runs of about equal work."""
    total = np.concatenate([[0], np.cumsum(work + 1)])
    cuts = np.searchsorted(total, np.linspace(0, total[-1], min(runs, len(work)) + 1)[1:-1])
    return np.concatenate([[0], np.maximum.accumulate(cuts), [len(work)]]).astype(np.int32)


def tile_of(
    problem: ConvProblem, variant: Variant, taps: PackedTaps, site: Site, panels: Panels | Places
) -> Tile:
    """The micro-kernel that the taps of a layer need on these panels."""
    at = panels if isinstance(panels, Places) else None
    return Tile(
        variant.mr,
        panels.nv,
        problem.activation,
        site.residual is not None,
        taps.segments > 1,
        at.groups if at else 0,
        taps.unit,
        problem.strides[1] if at else 1,
        panels.wide == panels.count,
    )


def call(
    problem: ConvProblem, variant: Variant, taps: PackedTaps, site: Site, panels: Panels | Places
) -> Call:
    """The convolution as one kernel call: y = activation(taps(x) + bias [+ residual])."""
    x, y, residual, target, threads = site.x, site.y, site.residual, site.target, site.threads
    lanes, layout = target.lanes, y.planar
    at = panels if isinstance(panels, Places) else None
    tile = tile_of(problem, variant, taps, site, panels)
    total = int(taps.blocks.shape[1])
    chunks, groups = split(problem, panels.count, threads, copied=at is not None)
    bounds = taps.bounds if groups > 1 else taps.bounds[[0, -1]]
    reach, run_bytes = shifts(problem).reach if at else 0, taps.run_vectors * lanes * 4
    packed = int(np.diff(taps.run_bounds).max(initial=0)) * run_bytes
    highest = taps.run_vectors - reach if at else panels.nv  # of all strips: their scratch memory is one
    scratch = packed + (total * variant.mr * highest * lanes * 4 if tile.segmented else 0)
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
        Arg.GROUPS: len(bounds) - 1,
        Arg.GROUP_BOUNDS: bounds,
        Arg.SEGMENTS: taps.segments,
        Arg.TOTAL_BLOCKS: total,
        Arg.COMPUTED: vectors_of(layout, lanes) * lanes * 4,
        Arg.PLANE_END: layout.plane,
        Arg.LEAD: layout.lead,
        Arg.CONV_GROUP: total // problem.groups,
        Arg.PLACES: at.table if at else NONE,
        Arg.RUN_BOUNDS: taps.run_bounds,
        Arg.RUNS: taps.runs,
        Arg.REACH: reach,
        Arg.RUN_BYTES: run_bytes,
        Arg.INPUT_STEP: 4 * x.planar.pitch * problem.strides[0],
        Arg.OUTPUT_PITCH: 4 * layout.pitch,
        Arg.PACKED_BYTES: packed,
    }
    arguments = tuple(values[arg] for arg in Arg)
    tasks = (len(bounds) - 1) * -(-panels.count // -(-panels.count // chunks))
    return Call(kernel(tile), arguments, tasks, scratch)


def split(problem: ConvProblem, panels: int, threads: int, copied: bool = False) -> tuple[int, int]:
    """Into how many runs of panels, and how many runs of blocks (if there are so many), to cut the work.

    Every run of blocks copies its panels anew where they are `copied`: then there are no more than needed.
    """
    if threads == 1:
        return 1, 1
    wanted = min(threads * TASKS_PER_THREAD, max(1, problem.macs // MACS_WORTH_A_TASK))
    chunks = min(panels, wanted)
    return chunks, -(-min(wanted, threads if copied else wanted) // chunks)
