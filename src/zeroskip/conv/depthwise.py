"""Depthwise convolution: each output channel reads one input channel, so its taps are a short list of offsets."""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv import taps
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem
from zeroskip.conv.tap_cost import tap_cycles

WIDTHS = {32: (4, 8, 14), 16: (4, 8)}


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    if not problem.depthwise:
        return f"{problem.groups} groups for {problem.C} input channels; depthwise means one channel per group"
    return None


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    return [str(taps.Variant(1, nv)) for nv in WIDTHS[target.registers]]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    return tap_cycles(problem, taps.parse_variant(variant), problem.w.size, target)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    parsed = taps.parse_variant(variant)
    packed = taps.pack_dense(problem, parsed, site.x.planar)
    return (taps.call(problem, parsed, packed, **vars(site)),)


ALGORITHM = Algorithm(
    "depthwise",
    "one input channel per output channel, taps over runs of pixels",
    "Howard et al. 2017",
    _refuses,
    _variants,
    _cycles,
    _build,
)
