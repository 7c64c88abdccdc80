"""CSCC: the activation map in the CSR form of its MEC-lowered matrix (Fan et al., IEEE Access 2019).

A non-zero is stored once per strip it is part of: Ow + 1 pointers and two words each. Workspace: that, for a
map without zeros. The layout is `zeroskip.encodings.cscc`'s.
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv import strips
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem

FORM = strips.Form("cscc", "rows")


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    return strips.cycles(problem, FORM, target)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    return strips.build(problem, FORM, variant, site)


ALGORITHM = Algorithm(
    "cscc",
    "activations in CSR over vertical strips, encoded at run time",
    "Fan et al., IEEE Access 2019",
    strips.refuses,
    strips.variants,
    _cycles,
    _build,
    shifted=False,
)
