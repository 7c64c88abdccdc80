"""LAMP: magnitude that can be compared between layers, for ``scope="global"``.

A weight's score is its square over the sum of the squares of all weights of its layer that are not smaller:
the share of the remaining energy that pruning it would cost. Scaling a layer (as folding BatchNormalization
does) changes no score, and the last weight of every layer scores 1, so no layer empties before the others do.
"""

from __future__ import annotations

import numpy as np

from zeroskip.compress.criteria.criterion import Criterion
from zeroskip.compress.moments import Moments
from zeroskip.graph.operator import Array


def score(rows: Array, moments: Moments | None) -> Array:
    """w^2 / sum of w'^2 over |w'| >= |w|; equal weights count in the order of their positions."""
    squares = rows.reshape(-1).astype(np.float64) ** 2
    order = np.argsort(squares, kind="stable")
    remaining = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros_like(squares)
    shares = np.divide(squares[order], remaining, out=np.zeros_like(squares), where=remaining > 0)
    scores[order] = shares
    return scores.reshape(rows.shape)


CRITERION = Criterion(
    name="lamp",
    description="magnitude relative to the layer's larger weights, comparable between layers",
    source="Lee, Park, Mo, Ahn, Shin: Layer-adaptive Sparsity for the Magnitude-based Pruning (2021)",
    score=score,
)
