"""Block-sparse convolution: blocks of 2, 4 or 8 output channels share one list of taps.

Elsen et al., CVPR 2020, and XNNPACK: an input vector is loaded once for the whole block; weights of a block
that are zero are stored and multiplied, so it pays where blocks are nearly full or nearly empty. Channels
with similar zeros are put together first (`conv.clustering`).
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv import taps
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.tap_cost import plain_variants, shifted_variants, tap_cycles
from zeroskip.conv.tap_variant import parse_variant

TILES = {32: ((2, 9), (2, 6), (4, 6), (4, 4), (8, 3)), 16: ((2, 4), (4, 3), (8, 1))}
# Shifted panels are for blocks of 2: larger ones are not bound by loads.
SHIFTED_WIDTHS = {32: (4, 6, 9), 16: (4,)}
SEGMENTS = (0, 16, 32, 64, 128)


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    per_group = problem.K // problem.groups
    if per_group < 2:
        return f"a group has {per_group} output channel; blocks need at least 2"
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    tiles = [t for t in TILES[target.registers] if t[0] <= problem.K // problem.groups]
    plain = plain_variants(problem, tiles, SEGMENTS, target)
    shifted = shifted_variants(problem, 2, SHIFTED_WIDTHS[target.registers], target)
    return [str(variant) for variant in plain + shifted]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    parsed = parse_variant(variant)
    return tap_cycles(problem, parsed, problem.block_taps(parsed.mr), target)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    return taps.sparse_calls(problem, parse_variant(variant), site)


ALGORITHM = Algorithm(
    "block_sparse",
    "sparse convolution in blocks of 2, 4 or 8 output channels",
    "Elsen et al., CVPR 2020; XNNPACK",
    _refuses,
    _variants,
    _cycles,
    _build,
    whole=lambda variant: parse_variant(variant).shifted,
    in_place=True,
    pools=lambda variant: parse_variant(variant).shifted,
    skips="weights",
)
