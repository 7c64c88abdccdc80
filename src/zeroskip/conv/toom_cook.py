"""The matrices of Winograd's minimal filtering, made from their interpolation points (Toom-Cook, transposed).

F(m, r) computes m outputs of an r-tap filter with ``a = m + r - 1`` products: ``y = A^T [(G g) * (B^T d)]``
for a filter g of r and data d of a numbers. With finite points p_j and the point at infinity,

    A^T[i, j] = p_j^i,   G[j, i] = p_j^i / prod over k != j of (p_j - p_k),   B^T[j] = coefficients of
    prod over k != j of (x - p_k),

and the row of infinity is the highest power alone in A^T and G, and all points' product in B^T.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from math import prod

import numpy as np

from zeroskip.conv.problem import Array

# The finite points by products a, 0 and then opposite pairs. Those of a = 6 leave a third of the error of 0,
# 1, -1, 2, -2 (standard deviation over normal data of 256 channels: 1.4e-6 of the result's, against 3.1e-6;
# direct 0.8e-6).
POINTS = {
    4: ("0", "1", "-1"),
    6: ("0", "2/3", "-2/3", "3/2", "-3/2"),
    8: ("0", "1", "-1", "2", "-2", "1/2", "-1/2"),
}


@dataclass(frozen=True, eq=False)
class Transforms:
    """A^T (m, a), G (a, r) and B^T (a, a) of F(m, r), in float64."""

    AT: Array
    G: Array
    BT: Array

    @cached_property
    def growth(self) -> float:
        """How much larger than direct convolution's the bound on a result's rounding error can be, in 2-D.

        The bound is proportional to ``|A^T| [(|G| |g|) * (|B^T| |d|)]``, direct's to the sum of |g| |d|; this
        is the largest ratio for data of equal size, squared for the two dimensions.
        """
        absolute = np.abs(self.AT) @ (np.abs(self.G).sum(axis=1) * np.abs(self.BT).sum(axis=1))
        return float((absolute.max() / self.G.shape[1]) ** 2)


@dataclass(frozen=True)
class Filtering:
    """F(m x m, r x r): m x m outputs of an r x r filter."""

    m: int
    r: int

    @property
    def alpha(self) -> int:
        """Rows and columns of a tile's input, and of its transform."""
        return self.m + self.r - 1

    @property
    def products(self) -> int:
        """Numbers in the transform of a tile."""
        return self.alpha**2

    @property
    def matrices(self) -> Transforms:
        """The transforms of F(m, r)."""
        return transforms(self.m, self.r)


@cache
def transforms(m: int, r: int) -> Transforms:
    """The matrices of F(m, r); m + r - 1 is one of `POINTS`."""
    points = [Fraction(point) for point in POINTS[m + r - 1]]
    others = [[q for q in points if q != p] for p in points]
    infinity = [[Fraction(i == size - 1)] for size in (m, r) for i in range(size)]
    at = [[p**i for p in points] + infinity[i] for i in range(m)]
    g = [
        [p**i / prod((p - q for q in rest), start=Fraction(1)) for i in range(r)]
        for p, rest in zip(points, others, strict=True)
    ]
    g.append([entry for (entry,) in infinity[m:]])
    bt = [[*_expand(rest), Fraction(0)] for rest in others] + [_expand(points)]
    return Transforms(*(np.array(rows, np.float64) for rows in (at, g, bt)))


def _expand(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [
            high - root * low for high, low in zip(shifted, [*coefficients, Fraction(0)], strict=True)
        ]
    return coefficients
