"""CPS: CPO with the indices of three or four neighbouring rows folded to prefix and set (Amer et al. 2021).

Workspace: pointers, values and index words for a map without zeros. The layout, with our marking of prefixes,
is `zeroskip.encodings.cps`'s; the product unfolds an index per element, then is CPO's.
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv import strips
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem

FORM = strips.Form("cps", "sets")


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    return strips.cycles(problem, FORM, target)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    return strips.build(problem, FORM, variant, site)


ALGORITHM = Algorithm(
    "cps",
    "compressed pattern sets: CPO with folded indices, encoded at run time",
    "Amer et al. 2021, arXiv 2104.08314",
    strips.refuses,
    strips.variants,
    _cycles,
    _build,
    shifted=False,
)
