"""A model of the tap micro-kernel's time, good enough to drop candidates that cannot win.

Fitted on a Zen 5 core (48 KiB first cache, two loads and two multiply-adds of 512 bits per cycle): an output
vector costs 5 cycles to write into the second cache, a vector read from there 2.3 cycles instead of 0.5, and
starting a block 20 cycles.
"""

from __future__ import annotations

from zeroskip.codegen import Target
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.taps import Panels, Variant

FIRST_CACHE = 32 * 1024
STORE, FAR_LOAD, NEAR_LOAD, START = 5.0, 2.3, 0.5, 20.0
PACK = 2.5  # cycles to copy a vector into a packed panel


def pixel_vectors(problem: ConvProblem, target: Target) -> int:
    """About how many vectors of a plane hold pixels."""
    pitch = problem.Q + problem.pads[1]
    return -(-problem.N * problem.P * pitch // target.lanes)


def tap_cycles(problem: ConvProblem, variant: Variant, taps: float, target: Target) -> float:
    """Predicted cycles when blocks of `variant.mr` output channels have `taps` taps in all."""
    panels = Panels(pixel_vectors(problem, target), variant.nv)
    vectors, count, mr = panels.vectors, panels.count, variant.mr
    channels = problem.C // problem.groups
    segment = min(variant.segment or channels, channels)
    segments = -(-channels // segment)
    blocks = -(-problem.K // mr)
    lines = panels.nv + (1 if problem.S > 1 else 0)
    shifts = problem.R if panels.nv * target.lanes < 2 * (problem.Q + 1) * problem.R else 1
    footprint = segment * lines * min(problem.R, shifts + 1) * target.lanes * 4
    load = NEAR_LOAD if footprint <= FIRST_CACHE else FAR_LOAD
    pack = 0.0
    if variant.packed:
        load = NEAR_LOAD
        pack = PACK * problem.C * problem.R * problem.S * vectors
    elif problem.misaligned:
        load *= 1.6  # most shifted vectors straddle two cache lines
    multiply = taps * vectors * mr / 2
    loads = taps * (vectors * load + count * (mr + 1) * NEAR_LOAD)
    spill = blocks * mr * vectors * 2.0 * (segments - 1)
    overhead = STORE * problem.K * vectors + START * blocks * count * segments
    return pack + max(multiply, loads) + overhead + spill


def packed_segment(problem: ConvProblem, nv: int, target: Target) -> int:
    """The input channels whose packed taps fill the first cache; 0 where all of them fit."""
    channels = problem.C // problem.groups
    bytes_per_channel = problem.R * problem.S * nv * target.lanes * 4
    fitting = max(1, FIRST_CACHE // bytes_per_channel)
    return 0 if fitting >= channels else fitting
