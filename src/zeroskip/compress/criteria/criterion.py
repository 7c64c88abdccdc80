"""What a pruning criterion is: a name, a source, and a function from weights to scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zeroskip.compress.moments import Moments
from zeroskip.graph.operator import Array

Score = Callable[[Array, Moments | None], Array]
"""From rows ``[G, K/G, D]`` and the moments of the layer's inputs (``None`` without calibration) to scores of
the same shape, at least 0; the lowest are pruned first."""


@dataclass(frozen=True)
class Criterion:
    """One row of the registry. `needs_inputs`: the score needs calibration images."""

    name: str
    description: str
    source: str
    score: Score
    needs_inputs: bool = False
