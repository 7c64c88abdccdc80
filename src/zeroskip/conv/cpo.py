"""CPO: each non-zero activation once, by how many strips see it (Amer et al. 2021).

n (Ow + 1) pointers and two words per non-zero. Workspace: that, for a map without zeros. The layout is
`zeroskip.encodings.cpo`'s, the product its published loop.
"""

from __future__ import annotations

from zeroskip.codegen import Call, Target
from zeroskip.conv import strips
from zeroskip.conv.algorithm import Algorithm, Site
from zeroskip.conv.problem import ConvProblem

FORM = strips.Form("cpo", "columns")


def _cycles(problem: ConvProblem, variant: str, target: Target) -> float:
    return strips.cycles(problem, FORM, target)


def _build(problem: ConvProblem, variant: str, site: Site) -> tuple[Call, ...]:
    return strips.build(problem, FORM, variant, site)


ALGORITHM = Algorithm(
    "cpo",
    "compressed pattern overlap: each non-zero activation once, encoded at run time",
    "Amer et al. 2021, arXiv 2104.08314",
    strips.refuses,
    strips.variants,
    _cycles,
    _build,
    shifted=False,
)
