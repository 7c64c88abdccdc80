"""What the sweep of algorithms says: series over density, crossovers, values between those measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Entry = dict[str, Any]
Points = list[tuple[float, float]]
"""(density, value), densities rising."""


@dataclass(frozen=True)
class Swept:
    """One layer's measurements, by algorithm.

    Attributes:
        dense: microseconds of the algorithms that have one time.
        sparse: microseconds over density of the others.
        memory: bytes of workspace or encoding over density; one density, 1, where it makes no difference.
        skips: whose zeros each of the sparse ones skips.
    """

    entry: Entry
    dense: dict[str, float]
    sparse: dict[str, Points]
    memory: dict[str, Points]
    skips: dict[str, str]

    @property
    def best_dense(self) -> tuple[str, float]:
        """The fastest algorithm without sparsity, and its microseconds."""
        return min(self.dense.items(), key=lambda item: item[1])

    def crossover(self, algorithm: str) -> float | None:
        """The density below which a sparse algorithm beats the best dense one; 1 always, 0 never."""
        points = self.sparse.get(algorithm)
        return crossing(points, self.best_dense[1]) if points else None


def swept(entry: Entry, densities: Sequence[float], whose: dict[str, str]) -> Swept:
    """The measurements of one shape in order."""
    dense: dict[str, float] = {}
    sparse: dict[str, Points] = {}
    memory: dict[str, Points] = {}
    skips: dict[str, str] = {}
    for found in entry["measured"]:
        if "microseconds" not in found:
            continue
        name, density = found["algorithm"], found.get("density", 1.0)
        if name not in entry["words"]:
            memory.setdefault(name, []).append((density, float(found["workspace_bytes"])))
        if whose[name]:
            skips[name] = whose[name]
            sparse.setdefault(name, []).append((density, found["microseconds"]))
        else:
            dense[name] = found["microseconds"]
    for name, words in entry["words"].items():
        memory[name] = [(x, 4.0 * count) for x, count in zip(densities, words, strict=True)]
    return Swept(entry, dense, sparse, memory, skips)


def crossing(points: Points, level: float) -> float:
    """The density at which a rising series reaches a level, straight between points on logarithmic axes.

    >>> crossing([(0.1, 10.0), (0.4, 40.0)], 20.0)
    0.2
    >>> crossing([(0.1, 10.0)], 5.0), crossing([(0.1, 10.0)], 15.0)
    (0.0, 1.0)
    """
    below = [point for point in points if point[1] <= level]
    if not below or points[0][1] > level:
        return 0.0
    last = max(i for i, (_, value) in enumerate(points) if value <= level)
    if last + 1 == len(points):
        return 1.0
    (x0, y0), (x1, y1) = points[last], points[last + 1]
    share = math.log(level / y0) / math.log(y1 / y0)
    return round(math.exp(math.log(x0) + share * math.log(x1 / x0)), 4)


def at(points: Points, density: float) -> float | None:
    """A series' value at a density between those measured, or None beyond them.

    >>> at([(0.1, 10.0), (0.4, 40.0)], 0.2)
    20.0
    """
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= density <= x1:
            share = math.log(density / x0) / math.log(x1 / x0)
            return round(y0 * (y1 / y0) ** share, 6)
    return None


def layers(found: Entry, many: bool, family: str = "") -> list[Swept]:
    """The layers with many filters or one, of a family or all, in the order measured."""
    chosen = (e for e in found["shapes"] if e["many"] == many and family in ("", e["family"]))
    return [swept(entry, found["densities"], found["algorithms"]) for entry in chosen]
