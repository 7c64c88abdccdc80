"""Convolutions by the tap micro-kernel: which taps, in which order, over which panels and tasks."""

from __future__ import annotations

import numpy as np

from zeroskip.codegen import Address, Argument, Asking, Call, Planar, Scratch, side_by_side
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.codegen.target import SECOND_CACHE
from zeroskip.conv.algorithm import Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.microkernel import Arg, Tile
from zeroskip.conv.panels import Panels
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.sharing import tasks_for
from zeroskip.conv.shifted_panel import Places, kernel, places, shifts
from zeroskip.conv.tap_lists import NONE, PackedTaps, pack_dense, pack_shifted, pack_sparse
from zeroskip.conv.tap_variant import Variant

# With fewer multiply-accumulates a layer is not worth splitting among threads (a barrier costs about 1 us).
MACS_WORTH_A_TASK = 100_000
# Tasks are so many times as fine as elsewhere: a panel is enough for one. Threads rarely take equally long.
FINER = 4
# Of the threads' time; fetching panels twice costs a layer of 256 channels 5 %.
IDLE_AT_MOST = 0.06
# Bytes. Two threads that share the pixels of 14x14 maps are 1.4 times as fast as one, those that share the
# channels 1.6 times; of 28x28 the pixels are better shared.
SMALL_PLANE = 1024
# A line that a later call reads may be asked for every so many multiply-adds of vectors: about 20 GB/s.
PRODUCTS_PER_LINE = 8


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
    strips = places(x, site.y.planar, problem.strides, variant.nv, lanes, site.threads, problem.cell)
    runs = max(split(problem, at.count, site.threads)[1] for at in strips)
    return pack_shifted(problem, variant, x, runs, max(at.nv for at in strips), lanes), strips


def vectors_of(layout: Planar, lanes: int) -> int:
    """Vectors of a plane that hold any pixel."""
    return -(-layout.computed // lanes)


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
        variant.lists,
        problem.pooled and at is not None,
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
    chunks, groups = split(problem, panels.count, threads)
    bounds = taps.bounds if groups > 1 else taps.bounds[[0, -1]]
    reach, run_bytes = shifts(problem).reach if at else 0, taps.run_vectors * lanes * 4
    packed = int(np.diff(taps.run_bounds).max(initial=0)) * run_bytes
    highest = taps.run_vectors - reach if at else panels.nv  # of all strips: their scratch memory is one
    sums = len(taps.rows) * highest * lanes * 4 if tile.segmented else 0
    scratch = round_up(packed + sums, LINE)  # threads share no line
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
        Arg.ASK: none,
        Arg.ASK_TASK: 0,
        Arg.ASK_TURN: LINE,
        Arg.COMPUTED: vectors_of(layout, lanes) * lanes * 4,
        Arg.PLANE_END: layout.plane,
        Arg.LEAD: layout.lead,
        Arg.CONV_GROUP: total // problem.groups,
        Arg.PLACES: at.table if at else NONE,
        Arg.RUN_BOUNDS: taps.run_bounds,
        Arg.RUNS: taps.runs,
        Arg.REACH: reach,
        Arg.RUN_BYTES: run_bytes,
        Arg.CHANNEL_RUNS: len(shifts(problem).runs) if at else 0,
        # rows asked for ahead: 128 channels of 112x112 take a quarter less time so, what is near 3 % more
        Arg.FAR: int(x.planar.bytes > SECOND_CACHE),
        Arg.INPUT_STEP: 4 * x.planar.pitch * problem.strides[0],
        Arg.OUTPUT_PITCH: 4 * layout.pitch,
        Arg.PACKED_BYTES: packed,
    }
    arguments = tuple(values[arg] for arg in Arg)
    tasks = (len(bounds) - 1) * -(-panels.count // -(-panels.count // chunks))
    lines = problem.nonzeros * panels.count * panels.nv // PRODUCTS_PER_LINE
    asking = None
    if variant.lists > 1 and lines:
        asking = Asking(Arg.ASK, panels.count * taps.segments * total, lines * LINE)
    return Call(kernel(tile), arguments, tasks, scratch, asking=asking)


def split(problem: ConvProblem, panels: int, threads: int) -> tuple[int, int]:
    """Into how many runs of panels, and how many runs of blocks (if there are so many), to cut the work.

    Every run of blocks fetches its panels anew. There is one for each thread where a few panels would leave
    some idle, and where planes are so small that threads would write what lies side by side.
    """
    if threads == 1:
        return 1, 1
    wanted = min(FINER * tasks_for(threads), max(1, problem.macs // MACS_WORTH_A_TASK))
    if 4 * problem.N * problem.P * problem.Q < SMALL_PLANE:
        return 1, min(wanted, threads)
    share = -(-panels // wanted)
    runs = -(-panels // share)
    idle = 1 - panels / (threads * -(-runs // threads) * share)
    return runs, min(wanted, threads) if idle > IDLE_AT_MOST else 1
