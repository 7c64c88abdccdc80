"""`Cost`: the one vocabulary in which every reader of a graph answers what running it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isclose
from typing import Any

import numpy as np

from zeroskip.errors import InputError
from zeroskip.graph.infer import operator_of
from zeroskip.graph.ir import Graph, Node

_NUMBERS = ("dense_macs", "effectual_macs", "cycles", "seconds", "picojoules")


@dataclass(frozen=True)
class Cost:
    """What a piece of work takes; a tree in which every number is the sum of its parts' numbers.

    `dense_macs` counts every multiply-accumulate, `effectual_macs` those whose operands are not zero (as
    far as the estimate looked: weights, or weights and activations). `bytes_moved` is traffic by memory
    level, e.g. ``{"dram": 4096}``. A number that was not estimated is 0.

    Raises:
        InputError: the numbers given contradict those of the parts.
    """

    name: str
    dense_macs: int = 0
    effectual_macs: int = 0
    bytes_moved: Mapping[str, int] = field(default_factory=dict)
    cycles: float = 0
    seconds: float = 0
    picojoules: float = 0
    parts: tuple[Cost, ...] = ()

    def __post_init__(self) -> None:
        if not self.parts:
            return
        for key in _NUMBERS:
            own, summed = getattr(self, key), sum(getattr(part, key) for part in self.parts)
            if not isclose(own, summed, rel_tol=1e-9):
                raise InputError(
                    f"the cost of {self.name} does not add up: {key} is {own}, its parts sum to {summed}"
                )
        if dict(self.bytes_moved) != _traffic(self.parts):
            raise InputError(
                f"the cost of {self.name} does not add up: its bytes_moved differ from its parts'"
            )

    def __iter__(self) -> Iterator[Cost]:
        """The cost itself and all below it, parents first."""
        yield self
        for part in self.parts:
            yield from part

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        numbers = {key: getattr(self, key) for key in _NUMBERS}
        parts = [part.to_dict() for part in self.parts]
        return {"name": self.name, **numbers, "bytes_moved": dict(self.bytes_moved), "parts": parts}


def total(name: str, parts: Iterable[Cost]) -> Cost:
    """The sum of costs, which become its parts.

    >>> total("net", [Cost("a", dense_macs=3), Cost("b", dense_macs=4)]).dense_macs
    7
    """
    parts = tuple(parts)
    numbers = {key: sum(getattr(part, key) for part in parts) for key in _NUMBERS}
    return Cost(name, bytes_moved=_traffic(parts), parts=parts, **numbers)


def _traffic(parts: Iterable[Cost]) -> dict[str, int]:
    traffic: Counter[str] = Counter()
    for part in parts:
        traffic.update(dict(part.bytes_moved))
    return dict(traffic)


def macs_of(node: Node, graph: Graph) -> tuple[int, int]:
    """Multiply-accumulates of one node of a bound graph: all, and those whose weight is not zero.

    A weight takes part equally often wherever it stands (padding counts as pixels), so the second number is
    the first times the weights' density.
    """
    row = operator_of(node)
    if row.macs is None:
        return 0, 0
    shapes = [graph.values[name].sizes if name else () for name in node.inputs]
    dense = row.macs(node, shapes, graph.values[node.outputs[0]].sizes)
    weights = graph.constants.get(node.input(row.parameters[0])) if row.parameters else None
    if weights is None or weights.size == 0:
        return dense, dense
    return dense, dense * int(np.count_nonzero(weights)) // weights.size


def arithmetic_cost(graph: Graph) -> Cost:
    """The multiply-accumulates of a bound graph, one part per node that has any.

    >>> from zeroskip.graph.ir import Value
    >>> arithmetic_cost(Graph("empty", (), (), (), {}, {})).dense_macs
    0
    """
    parts = []
    for node in graph.nodes:
        dense, effectual = macs_of(node, graph)
        if dense:
            parts.append(Cost(node.name or node.outputs[0], dense_macs=dense, effectual_macs=effectual))
    return total(graph.name, parts)
