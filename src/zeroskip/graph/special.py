"""The error function, vectorised, accurate to float64; NumPy has none."""

from __future__ import annotations

import numpy as np

from zeroskip.graph.operator import Array

# Rational approximations of W. J. Cody, "Rational Chebyshev approximations for the error function",
# Mathematics of Computation 23 (1969), as in his CALERF (1990): relative error below 1.2e-16.
_SMALL_P = (
    1.85777706184603153e-1,
    3.16112374387056560e00,
    1.13864154151050156e02,
    3.77485237685302021e02,
    3.20937758913846947e03,
)
_SMALL_Q = (
    1.0,
    2.36012909523441209e01,
    2.44024637934444173e02,
    1.28261652607737228e03,
    2.84423683343917062e03,
)
_MIDDLE_P = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e00,
    6.61191906371416295e01,
    2.98635138197400131e02,
    8.81952221241769090e02,
    1.71204761263407058e03,
    2.05107837782607147e03,
    1.23033935479799725e03,
)
_MIDDLE_Q = (
    1.0,
    1.57449261107098347e01,
    1.17693950891312499e02,
    5.37181101862009858e02,
    1.62138957456669019e03,
    3.29079923573345963e03,
    4.36261909014324716e03,
    3.43936767414372164e03,
    1.23033935480374942e03,
)
_LARGE_P = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
_LARGE_Q = (
    1.0,
    2.56852019228982242e00,
    1.87295284992346725e00,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)
_ONE_OVER_SQRT_PI = 5.6418958354775628695e-1


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    total = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        total = total * x + c
    return total


def erf(x: Array) -> Array:
    """The error function of each element, in the type of `x` (float32 is computed in float64).

    >>> round(float(erf(np.array(1.0))), 12)
    0.84270079295
    """
    y = np.minimum(np.abs(np.asarray(x, dtype=np.float64)), 7.0)  # erf(6) is already 1 in float64
    small = np.minimum(y, 0.5) ** 2
    near = y * _horner(_SMALL_P, small) / _horner(_SMALL_Q, small)
    middle = np.clip(y, 0.46875, 4.0)
    complement = _horner(_MIDDLE_P, middle) / _horner(_MIDDLE_Q, middle)
    inverse = 1 / np.maximum(y, 4.0) ** 2
    tail = inverse * _horner(_LARGE_P, inverse) / _horner(_LARGE_Q, inverse)
    tail = (_ONE_OVER_SQRT_PI - tail) / np.maximum(y, 4.0)
    far = 1 - np.exp(-y * y) * np.where(y <= 4.0, complement, tail)
    result = np.where(y <= 0.46875, near, far)
    return np.asarray(np.copysign(result, x), dtype=np.asarray(x).dtype)
