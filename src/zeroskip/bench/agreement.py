"""When two runtimes' answers are the same: a bound derived from the arithmetic, not a guess."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zeroskip.graph import Graph

Array = np.ndarray[Any, Any]

EPSILON = 2.0**-23
"""Spacing of float32 at 1."""


def tolerance(graph: Graph) -> float:
    """Largest difference between two correct float32 runs, as a share of the largest output.

    Summing n products in another order moves a sum by about ``epsilon * sqrt(n)`` of its magnitude: rounding
    errors are nearly independent. Each layer passes on the errors of those before it, so they add up over the
    depth. The factor 8 covers the tail over up to 10^6 outputs (five deviations) and Winograd's larger
    constant.
    """
    lengths = [
        math.prod(graph.values[node.input(1)].sizes) // _outputs(node.op, graph.values[node.input(1)].sizes)
        for node in graph.nodes
        if node.op in ("Conv", "ConvTranspose", "Gemm", "MatMul") and graph.values[node.input(1)].static
    ]
    return 8 * EPSILON * sum(math.sqrt(n) for n in lengths or [1])


def _outputs(op: str, sizes: tuple[int, ...]) -> int:
    """How many sums a weight of these sizes forms for one pixel or row."""
    return sizes[-1] if op == "MatMul" else max(1, sizes[0])


def difference(answer: Array, reference: Array) -> float:
    """Largest absolute difference, as a share of the largest magnitude in `reference`.

    Infinite where the sizes differ or the answer is not finite.

    >>> difference(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    0.5
    """
    if answer.size != reference.size or not np.isfinite(answer).all():
        return math.inf
    scale = float(np.abs(reference).max(initial=0.0)) or 1.0
    return float(np.abs(answer.reshape(-1) - reference.reshape(-1)).max(initial=0.0)) / scale
