"""Depthwise convolution: each output channel reads one input channel, row by row, several rows sharing loads.

At stride 2 even and odd columns are separated in registers, so the input is read as it lies.
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem
from zeroskip.ops import depthwise

# Rows of output that share the loads of their common input rows.
TILES = (1, 2, 4)


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    if not problem.depthwise:
        return (
            f"{problem.groups} groups for {problem.C} input channels; depthwise means one channel per group"
        )
    return depthwise.refuses((problem.K, problem.R, problem.S))


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    return [str(tile) for tile in TILES if tile <= problem.P]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    vectors = problem.K * problem.N * problem.P * -(-problem.Q // target.lanes)
    rows = int(variant)
    shared = (rows * problem.strides[0] + problem.R - 1) / (rows * problem.R)
    return vectors * (problem.R * problem.S * max(0.5, shared * problem.strides[1]) + 5.0)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    return (
        depthwise.depthwise(
            site.x,
            site.y,
            weight=problem.w[:, 0],
            bias=problem.bias,
            strides=problem.strides,
            pads=problem.pads,
            dilations=problem.dilations,
            activation=problem.activation,
            residual=site.residual,
            tile=int(variant),
            target=site.target,
            threads=site.threads,
        ),
    )


ALGORITHM = Algorithm(
    "depthwise",
    "one input channel per output channel, rows sharing their loads",
    "Howard et al. 2017",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
)
