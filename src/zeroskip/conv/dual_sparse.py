"""Sparse weights and skipped zero activations together: ours, SCNN's Cartesian product for a CPU.

SCNN (Parashar et al. 2017) multiplies the non-zero activations of a channel only by its non-zero weights. On
a CPU, whose unit of work is a vector, activations come as runs of NV vectors of pixels, and a product is a
tap (k, c, r, s) times a run: the shifted panels of `sparse_direct`. Of a panel and a segment of its channels
each tap's run is tested once: is it all zero? Then each output channel's list of non-zero weights (CSR) is
copied without the taps that are: without a branch, about 1.5 cycles per weight. What remains is multiplied,
with the sums in registers. Dead channels and regions cost a test per panel; runs with any non-zero pixel
cost all of it. Where less than a third of the runs is zero, the lists are read as they are.

SCNN's own order (a run times all weights of its channel, sums in the first cache) needs no lists, but a load
and a store per product: it was 1.5 times slower than `sparse_direct` on maps without zeros.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zeroskip.codegen import Call, Target, side_by_side
from zeroskip.codegen.layout import LINE, round_up
from zeroskip.conv import taps
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.borders import zero_borders
from zeroskip.conv.dual_sparse_kernel import Arg, kernel
from zeroskip.conv.microkernel import Arg as Common
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.shifted_panel import LARGEST_STRIDE, Places, shifts
from zeroskip.conv.tap_cost import shifted_panels, shifted_sizes, tap_cycles
from zeroskip.conv.tap_lists import PackedTaps
from zeroskip.conv.tap_variant import Variant, parse_variant

# Vectors of pixels, by registers: short runs are all zero more often, long ones are worth more copying.
RUNS = {32: (14, 8), 16: (8, 4)}
# What a panel takes: in the first cache, or twice that, for longer lists to be copied.
PANEL_BYTES = (40 << 10, 80 << 10)
# Predictions take this share of the runs to be all zero; measurements tell.
ALL_ZERO = 0.15


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    if problem.strides[1] > LARGEST_STRIDE:
        return f"column stride {problem.strides[1]}; panels are made of every pixel, or of every second"
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    sizes = shifted_sizes(problem, RUNS[target.registers], PANEL_BYTES, target)
    return [str(Variant(1, nv, segment, shifted=True)) for nv, segment in sizes]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    """As `sparse_direct`, less the weights whose runs are zero; of each weight a copy, of each tap a test."""
    parsed = parse_variant(variant)
    panels = sum(cut.count for cut in shifted_panels(problem, parsed.nv, target))
    tests = problem.C * shifts(problem).channel_vectors(parsed.nv) * parsed.nv / 2
    copies = 1.5 * problem.nonzeros
    return tap_cycles(problem, parsed, (1 - ALL_ZERO) * problem.nonzeros, target) + panels * (tests + copies)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    parsed = parse_variant(variant)
    packed, strips = taps.shifted_taps(problem, parsed, site)
    calls = (_call(problem, parsed, packed, site, at) for at in strips)
    return side_by_side(zero_borders(site.y, site.threads), *calls)


def _call(problem: ConvProblem, variant: Variant, packed: PackedTaps, site: Site, at: Places) -> Call:
    call = taps.call(problem, variant, packed, site, at)
    tile = taps.tile_of(problem, variant, packed, site, at)
    longest = int(packed.blocks[:, :, 2].max(initial=0))
    vectors = int(np.diff(packed.run_bounds).max(initial=0)) * packed.run_vectors
    live, pairs = round_up(vectors, LINE), round_up(8 * (longest + 1), LINE)
    # between the panel and the partial sums
    arguments = list(call.arguments)
    panel, stride = arguments[Common.PACKED_BYTES], arguments[Common.SCRATCH_STRIDE]
    assert isinstance(panel, int)
    assert isinstance(stride, int)
    arguments[Common.PACKED_BYTES] = panel + live + pairs
    arguments[Common.SCRATCH_STRIDE] = stride + live + pairs
    own = {Arg.LIVE: panel, Arg.PAIRS: panel + live}
    arguments += [own[slot] for slot in Arg]
    return replace(call, kernel=kernel(tile), arguments=tuple(arguments), scratch=call.scratch + live + pairs)


ALGORITHM = Algorithm(
    "dual_sparse",
    "sparse weights times runs of pixels, without those runs that are all zero",
    "ours, after SCNN: Parashar et al., ISCA 2017",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
    in_place=True,
    pools=lambda variant: True,
    skips="both",
)
