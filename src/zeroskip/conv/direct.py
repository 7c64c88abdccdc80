"""Dense direct convolution, no lowering: every tap is an offset into the padded input (cf. Zhang 2018).

Loop order, outermost first: panel of pixels, segment of input channels, block of output channels, tap; the
register tile is MR output channels by NV vectors of pixels. The paper keeps output channels in the vector
(`[C/b][H][W][b]`); here pixels are in the vector, so that the same planes serve sparse weights.
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv import taps
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.tap_cost import plain_variants, tap_cycles
from zeroskip.conv.tap_variant import parse_variant

# (MR, NV): all accumulators, the NV inputs and one weight must fit the registers.
TILES = {32: ((8, 3), (6, 4), (12, 2), (4, 6), (2, 9), (1, 14), (1, 8)), 16: ((4, 3), (6, 2), (2, 4), (1, 8))}
SEGMENTS = (0, 16, 32, 64, 128)


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    return [str(v) for v in plain_variants(problem, TILES[target.registers], SEGMENTS, target)]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    parsed = parse_variant(variant)
    blocks = problem.groups * -(-(problem.K // problem.groups) // parsed.mr)
    all_taps = blocks * (problem.C // problem.groups) * problem.R * problem.S
    return tap_cycles(problem, parsed, all_taps, target)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    return taps.dense_calls(problem, parse_variant(variant), site)


ALGORITHM = Algorithm(
    "direct",
    "dense direct convolution, register-blocked, nothing copied",
    "after Zhang, Franchetti, Low, ICML 2018",
    _refuses,
    _variants,
    _cycles,
    _build,
    in_place=True,
)
