"""Depthwise convolution: each output channel reads one input channel, down its rows, each loaded once.

At stride 2 even and odd columns are separated in registers, so the input is read as it lies.
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem
from zeroskip.ops import depthwise


def _refuses(problem: ConvProblem, target: Target) -> str | None:
    if not problem.depthwise:
        return (
            f"{problem.groups} groups for {problem.C} input channels; depthwise means one channel per group"
        )
    return depthwise.refuses((problem.K, problem.R, problem.S))


def _variants(problem: ConvProblem, target: Target) -> list[str]:
    return ["down"]


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    """Fitted: a start for each column of vectors; at stride 1, rows of half a vector or less take longer."""
    columns = problem.K * problem.N * -(-problem.Q // target.lanes)
    loads = problem.strides[0] * problem.S * problem.strides[1]
    vector = max(problem.R * problem.S / 2, loads) + (7.0 if problem.R > 1 else 13.0)
    narrow = 14.0 if not problem.strided and target.lanes >= 2 * problem.Q else 0.0
    return columns * (problem.P * (vector + narrow) + 25.0)


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
            target=site.target,
            threads=site.threads,
        ),
    )


ALGORITHM = Algorithm(
    "depthwise",
    "one input channel per output channel, down the rows with sums in registers",
    "Howard et al. 2017",
    _refuses,
    _variants,
    _cycles,
    _build,
    shifted=False,
    borders=False,
)
