"""One dimension of Winograd's transforms on vectors, and the filters' transform, which is done beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zeroskip.codegen import Builder, Expr
from zeroskip.conv.problem import Array
from zeroskip.conv.toom_cook import Transforms


def transformed_filters(w: Array, matrices: Transforms, each: int) -> Iterator[Array]:
    """G g G^T of the filters of w (K, C, r, r), of `each` output channels at a time.

    In float64, (alpha^2, each, C), to be rounded once where they are put; channels that are missing in the
    last part are zero. (All at once took 128 MB for 512x512 filters, and a third longer.)
    """
    outputs, inputs = w.shape[:2]
    both = np.kron(matrices.G, matrices.G)
    for first in range(0, outputs, each):
        part = np.zeros((each, inputs, both.shape[1]))
        there = w[first : first + each].reshape(-1, inputs, both.shape[1])
        part[: len(there)] = there
        yield (both @ part.reshape(each * inputs, -1).T).reshape(-1, each, inputs)


def _combine(b: Builder, coefficients: Sequence[float], xs: Sequence[Expr]) -> Expr:
    """The sum of coefficient times vector; some coefficient is not zero."""
    terms = [(float(c), x) for c, x in zip(coefficients, xs, strict=True) if c]
    terms.sort(key=lambda term: term[0] != 1)
    (c, x), *others = terms
    total = x if c == 1 else x * c
    for c, x in others:
        total = total + x if c == 1 else total - x if c == -1 else b.fma(c, x, total)
    return total


def transform_input(b: Builder, matrices: Transforms, d: Sequence[Expr]) -> list[Expr]:
    """B^T d. The rows of points p and -p are an even part plus and minus an odd part."""
    BT = matrices.BT
    rows = [_combine(b, BT[0], d)]
    for row in BT[1:-1:2]:
        even, odd = _combine(b, row[0::2], d[0::2]), _combine(b, row[1::2], d[1::2])
        rows += [even + odd, even - odd]
    return [*rows, _combine(b, BT[-1], d)]


def transform_output(b: Builder, matrices: Transforms, z: Sequence[Expr]) -> list[Expr]:
    """A^T z. Even rows weigh the sum of what belongs to p and -p, odd rows the difference."""
    AT = matrices.AT
    sums = [p + n for p, n in zip(z[1:-1:2], z[2:-1:2], strict=True)]
    differences = [p - n for p, n in zip(z[1:-1:2], z[2:-1:2], strict=True)]
    rows = []
    for i, row in enumerate(AT):
        parts = sums if i % 2 == 0 else differences
        rows.append(_combine(b, [row[0], *row[1:-1:2], row[-1]], [z[0], *parts, z[-1]]))
    return rows
