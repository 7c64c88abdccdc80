"""Magnitude: a weight matters as much as it is large."""

from __future__ import annotations

import numpy as np

from zeroskip.compress.criteria.criterion import Criterion
from zeroskip.compress.moments import Moments
from zeroskip.graph.operator import Array


def score(rows: Array, moments: Moments | None) -> Array:
    """|w|."""
    return np.abs(rows)


CRITERION = Criterion(
    name="magnitude",
    description="the smallest absolute weights go first",
    source="Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Networks (2015)",
    score=score,
)
