"""Direct sparse convolution: each output channel lists its non-zero weights and their offsets into the input.

Park et al., ICLR 2017: CSR rows "stretched" over the padded input, so that the column index of weight
(c, r, s) is its offset; one broadcast weight then serves a whole run of pixels.
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv import taps
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.tap_cost import TAPS_PER_SEGMENT, plain_variants, shifted_variants, tap_cycles
from zeroskip.conv.tap_variant import parse_variant

# Lists side by side, by registers, where a group has so many channels. Four lists leave sixteen registers for
# panels of three vectors: two of six read their weights half as often (10-30 % of layers with AVX2).
LISTS = {32: 4, 16: 2}
# Vectors of a panel, by registers and lists.
WIDTHS = {(32, 4): (3, 5, 7), (32, 1): (8, 14), (16, 2): (4, 6), (16, 1): (6, 10)}
# Low shifted panels leave more channels in the first cache, high ones read fewer weights.
SHIFTED_WIDTHS = {(32, 4): (4, 5, 7), (32, 1): (8, 14), (16, 2): (4, 6), (16, 1): (6, 8)}
SEGMENTS = (0, 16, 32, 64, 128, 256, 512)


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    lists = LISTS[target.registers]
    if problem.K // problem.groups < lists:
        lists = 1
    kind = target.registers, lists
    per_channel = problem.density * problem.R * problem.S
    segments = [s for s in SEGMENTS if s == 0 or s * per_channel >= TAPS_PER_SEGMENT]
    plain = plain_variants(problem, [(1, nv) for nv in WIDTHS[kind]], segments, target, lists)
    shifted = shifted_variants(problem, 1, SHIFTED_WIDTHS[kind], target, lists)
    return [str(variant) for variant in plain + shifted]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    return tap_cycles(problem, parse_variant(variant), problem.nonzeros, target)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    return taps.sparse_calls(problem, parse_variant(variant), site)


ALGORITHM = Algorithm(
    "sparse_direct",
    "direct sparse convolution: CSR weights with offsets into the padded input",
    "Park et al., ICLR 2017",
    _refuses,
    _variants,
    _cycles,
    _build,
    whole=lambda variant: parse_variant(variant).shifted,
    in_place=True,
    pools=lambda variant: parse_variant(variant).shifted,
    skips="weights",
)
