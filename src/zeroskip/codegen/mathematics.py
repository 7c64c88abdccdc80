"""Vector versions of the elementary functions, accurate to a few units in the last place of float32."""

from __future__ import annotations

from collections.abc import Sequence

from zeroskip.codegen.builder import Builder
from zeroskip.codegen.expr import Expr


def _polynomial(b: Builder, x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's rule, highest power first."""
    total = b.like(coefficients[0], x)
    for coefficient in coefficients[1:]:
        total = b.fma(total, x, b.like(coefficient, x))
    return total


def exp(b: Builder, x: Expr) -> Expr:
    """e**x: 2**n times a degree-7 polynomial on [-ln2/2, ln2/2] (Cephes ``expf``); saturates to 0 and inf."""
    y = b.select(x > 88.37, b.like(float("inf"), x), _finite_exp(b, x))
    return b.select(x < -87.33, b.like(0.0, x), y)


def _finite_exp(b: Builder, x: Expr, sign: float = 1.0) -> Expr:
    """e**(sign*x), where that is a normal number; elsewhere the smallest or largest one."""
    lowest, highest = (-87.33, 88.37) if sign > 0 else (-88.37, 87.33)
    # the comparisons' order lets NaN through
    clamped = b.maximum(b.like(lowest, x), b.minimum(b.like(highest, x), x))
    n = b.unary("floor", b.fma(sign * 1.44269504088896341, clamped, b.like(0.5, x)))
    # sign times what is left: the exponent then needs no negation
    r = b.fma(sign * -0.693359375, n, clamped)
    r = b.fma(sign * 2.12194440e-4, n, r)
    coefficients = (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
        1.0,
        1.0,
    )
    powers = range(len(coefficients) - 1, -1, -1)
    signed = [c * sign**power for c, power in zip(coefficients, powers, strict=True)]
    # n reaches 127: scale in two steps would be needed at 128 only, which the clamp excludes
    return b.scale(_polynomial(b, r, signed), n)


def logistic(b: Builder, x: Expr, factor: Expr) -> Expr:
    """The `factor` over 1 + e**-x, which is at most 2.4e38."""
    return factor / (_finite_exp(b, x, -1.0) + 1.0)


def sigmoid(b: Builder, x: Expr) -> Expr:
    """1 / (1 + e**-x)."""
    return logistic(b, x, b.like(1.0, x))


def tanh(b: Builder, x: Expr) -> Expr:
    """Rational approximation of degree 13/6 on [-7.9, 7.9] (Eigen's ``generic_fast_tanh_float``)."""
    c = b.maximum(b.like(-7.90531110763549805, x), b.minimum(b.like(7.90531110763549805, x), x))
    s = c * c
    p = _polynomial(
        b,
        s,
        (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
         1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
    )  # fmt: skip
    q = _polynomial(
        b, s, (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
    )
    return c * p / q


def erf(b: Builder, x: Expr) -> Expr:
    """Rational approximation of degree 13/8 on [-4, 4] (XLA's ``ErfImpl32``)."""
    c = b.maximum(b.like(-4.0, x), b.minimum(b.like(4.0, x), x))
    s = c * c
    p = _polynomial(
        b,
        s,
        (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
         -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02),
    )  # fmt: skip
    q = _polynomial(
        b,
        s,
        (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
         -1.42647390514189e-02),
    )  # fmt: skip
    return c * p / q


def log(b: Builder, x: Expr) -> Expr:
    """Natural logarithm: a degree-8 polynomial on [sqrt(1/2), sqrt(2)] (Cephes ``logf``); NaN below zero."""
    tiny = x < 1.17549435e-38
    m, e = b.mantissa_exponent(b.select(tiny, x * 8388608.0, x))
    e = b.select(tiny, e - 23.0, e)
    small = m < 0.707106781186547524
    e = b.select(small, e - 1.0, e)
    m = b.select(small, m + m, m) - 1.0
    s = m * m
    p = _polynomial(
        b,
        m,
        (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
         -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    )  # fmt: skip
    y = b.fma(-0.5, s, b.fma(-2.12194440e-4, e, m * s * p))
    y = b.fma(0.693359375, e, m + y)
    y = b.select(x.equals(float("inf")), x, y)
    y = b.select(x < 0.0, b.like(float("nan"), x), y)
    y = b.select(x.equals(0.0), b.like(float("-inf"), x), y)
    return b.select(b.is_nan(x), x, y)


def log1p(b: Builder, u: Expr) -> Expr:
    """log(1 + u) for u >= 0: the rounding of 1 + u is corrected to first order."""
    w = u + 1.0
    return log(b, w) + (u - (w - 1.0)) / w


def softplus(b: Builder, x: Expr) -> Expr:
    """log(1 + e**x), without overflow."""
    positive = b.select(x < 0.0, b.like(0.0, x), x)
    return positive + log1p(b, exp(b, b.like(0.0, x) - b.unary("fabs", x)))


def power(b: Builder, x: Expr, exponent: float) -> Expr:
    """x**exponent: products for integers up to 64, roots for quarters up to 2, else e**(exponent * log x).

    The last errs by about ``abs(exponent * log(x))`` units in the last place.
    """
    if exponent < 0:
        return b.like(1.0, x) / power(b, x, -exponent)
    if exponent == int(exponent) and exponent <= 64:
        return _integer_power(b, x, int(exponent))
    if 4 * exponent == int(4 * exponent) and exponent <= 2:
        root = b.unary("sqrt", x)
        quarters = int(4 * exponent)
        result = _integer_power(b, x, quarters // 4)
        result = result * root if quarters & 2 else result
        return result * b.unary("sqrt", root) if quarters & 1 else result
    return exp(b, log(b, x) * exponent)


def _integer_power(b: Builder, x: Expr, exponent: int) -> Expr:
    """Binary exponentiation."""
    result, square = b.like(1.0, x), x
    while exponent:
        if exponent & 1:
            result = result * square
        square = square * square
        exponent >>= 1
    return result
