"""The network as data: a `Graph` of `Node`s over named `Value`s.

Graphs are immutable; a pass takes one and returns another. Nodes are kept in topological order.
Operators are *canonical*: the reader rewrites every supported opset to the newest meaning (attributes
that became inputs are inputs), so that later code sees one form of each operator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Dim = int | str | None
"""A size: known, symbolic (a name such as ``"N"``), or unknown."""

Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Value:
    """A tensor's name and what is known of it; ``shape is None`` means not even the rank is known."""

    name: str
    shape: Shape | None
    dtype: np.dtype[Any]

    @property
    def static(self) -> bool:
        """Whether every dimension is a known number."""
        return self.shape is not None and all(isinstance(d, int) for d in self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape as numbers; only for `static` values."""
        assert self.shape is not None and self.static, f"{self.name} has shape {self.shape}"
        return tuple(d for d in self.shape if isinstance(d, int))


@dataclass(frozen=True)
class Node:
    """One operator application. An absent optional input is the empty string.

    Fused producers (``Conv``, ``Gemm``) may carry the attribute ``activation``: a tuple of the activation's
    operator name and its numbers, e.g. ``("Clip", 0.0, 6.0)``; a fused ``Conv`` may carry a fourth input, the
    residual that is added after the bias and before the activation.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def attr(self, key: str, default: Any = None) -> Any:
        """The attribute, or `default` where it is absent."""
        return self.attributes.get(key, default)

    def input(self, index: int) -> str:
        """The input's name, or ``""`` where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def with_(self, **changes: Any) -> Node:
        """A copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Graph:
    """A network: nodes in topological order, constants as arrays, values with their types.

    `values` holds an entry for every input, constant and node output; `constants` never overlap `inputs`.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Value]
    constants: Mapping[str, np.ndarray[Any, Any]]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Graph:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def save(self, path: str | os.PathLike[str], *, sparse: bool = False) -> None:
        """Write the graph as an ONNX model; see `zeroskip.graph.save`."""
        from zeroskip.graph.onnx_writer import save  # the writer reads this module

        save(self, path, sparse=sparse)

    def producers(self) -> dict[str, Node]:
        """Value name to the node that computes it."""
        return {out: node for node in self.nodes for out in node.outputs if out}

    def consumers(self) -> dict[str, list[Node]]:
        """Value name to the nodes that read it (graph outputs are not consumers)."""
        readers: dict[str, list[Node]] = {name: [] for name in self.values}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    readers.setdefault(name, []).append(node)
        return readers
