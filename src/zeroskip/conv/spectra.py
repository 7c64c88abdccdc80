"""Fourier transforms of 2^k or 3 * 2^k numbers as straight-line code: vectors in, vectors out.

A complex number is a pair of vectors. Every level of a recursion splits into even and odd members (Cooley &
Tukey 1965), down to one number or three; of real data half the spectrum is computed, the other half are its
conjugates. Inverses are not scaled: they return n times the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin, sqrt

from zeroskip.codegen import Builder, Expr

Complex = tuple[Expr, Expr]


def add(x: Complex, y: Complex) -> Complex:
    """The sum of two complex numbers."""
    return x[0] + y[0], x[1] + y[1]


def subtract(x: Complex, y: Complex) -> Complex:
    """Their difference."""
    return x[0] - y[0], x[1] - y[1]


def negative(b: Builder, x: Expr) -> Expr:
    """The negative of x."""
    return b.like(-0.0, x) - x


def conjugate(b: Builder, x: Complex) -> Complex:
    """The conjugate of x."""
    return x[0], negative(b, x[1])


def turn(b: Builder, x: Complex, k: int, n: int) -> Complex:
    """Multiply x by exp(2 pi i k / n); quarters and eighths of a turn without products, or with two."""
    k %= n
    if k == 0:
        return x
    if 4 * k == n:
        return negative(b, x[1]), x[0]
    if 2 * k == n:
        return negative(b, x[0]), negative(b, x[1])
    if 4 * k == 3 * n:
        return x[1], negative(b, x[0])
    c, s = cos(2 * pi * k / n), sin(2 * pi * k / n)
    if 8 * k == n:
        return (x[0] - x[1]) * c, (x[0] + x[1]) * c
    if 8 * k == 7 * n:
        return (x[0] + x[1]) * c, (x[1] - x[0]) * c
    return b.fma(-s, x[1], x[0] * c), b.fma(s, x[0], x[1] * c)


def transform(b: Builder, x: Sequence[Complex], sign: int = -1) -> list[Complex]:
    """X[k] = sum over j of x[j] exp(sign * 2 pi i j k / n); with sign 1 the inverse, times n."""
    n = len(x)
    if n == 1:
        return list(x)
    if n == 3:
        return _transform_three(b, x, sign)
    even, odd = (transform(b, x[start::2], sign) for start in (0, 1))
    turned = [turn(b, value, sign * k, n) for k, value in enumerate(odd)]
    pairs = list(zip(even, turned, strict=True))
    return [add(e, o) for e, o in pairs] + [subtract(e, o) for e, o in pairs]


def _transform_three(b: Builder, x: Sequence[Complex], sign: int) -> list[Complex]:
    both, apart = add(x[1], x[2]), subtract(x[1], x[2])
    middle = tuple(b.fma(-0.5, part, first) for part, first in zip(both, x[0], strict=True))
    scale = sign * sqrt(3) / 2  # i times the difference, scaled
    turned = apart[1] * -scale, apart[0] * scale
    real, imaginary = middle
    return [add(x[0], both), add((real, imaginary), turned), subtract((real, imaginary), turned)]


def transform_real(b: Builder, x: Sequence[Expr]) -> list[Complex]:
    """X[0] ... X[n/2] of real data."""
    n = len(x)
    if n == 1:
        return [(x[0], b.like(0.0, x[0]))]
    if n == 2:
        zero = b.like(0.0, x[0])
        return [(x[0] + x[1], zero), (x[0] - x[1], zero)]
    if n == 3:
        both = x[1] + x[2]
        return [(x[0] + both, b.like(0.0, both)), (b.fma(-0.5, both, x[0]), (x[2] - x[1]) * (sqrt(3) / 2))]
    even, odd = (transform_real(b, x[start::2]) for start in (0, 1))
    result: list[Complex | None] = [None] * (n // 2 + 1)
    for k in range(n // 4 + 1):
        turned = turn(b, odd[k], -k, n)
        result[n // 2 - k] = conjugate(b, subtract(even[k], turned))
        result[k] = add(even[k], turned)
    return [value for value in result if value is not None]


def inverse_real(b: Builder, x: Sequence[Complex], n: int) -> list[Expr]:
    """The n real numbers, times n, whose X[0] ... X[n/2] are given (X[0] and X[n/2] are taken to be real)."""
    if n == 2:
        return [x[0][0] + x[1][0], x[0][0] - x[1][0]]
    if n == 3:
        (first, _), (real, imaginary) = x
        rest = first - real
        return [b.fma(2.0, real, first), *(b.fma(s * sqrt(3), imaginary, rest) for s in (-1, 1))]
    half = range(n // 4 + 1)
    mirrored = [conjugate(b, x[n // 2 - k]) for k in half]
    even = inverse_real(b, [add(x[k], mirrored[k]) for k in half], n // 2)
    odd = inverse_real(b, [turn(b, subtract(x[k], mirrored[k]), k, n) for k in half], n // 2)
    return [value for pair in zip(even, odd, strict=True) for value in pair]
