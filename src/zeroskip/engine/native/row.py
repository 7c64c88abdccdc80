"""What a natively lowered operator tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zeroskip.engine.network import Network
from zeroskip.graph.ir import Node


def never(network: Network, node: Node) -> bool:
    """No."""
    return False


def nothing(network: Network, node: Node) -> None:
    """No demands on the geometry."""


@dataclass(frozen=True)
class Row:
    """How one operator is lowered: when it can be, what it does, what geometry it wants, what it writes.

    `is_view` says that the outputs lie within the input's memory, so they cannot be written elsewhere.
    """

    accepts: Callable[[Network, Node], bool]
    emit: Callable[[Network, Node], None]
    shape_geometry: Callable[[Network, Node], None] = nothing
    planar: bool | Callable[[Network, Node], bool] = False
    label: str = "native"
    is_view: Callable[[Network, Node], bool] = never

    def is_planar(self, network: Network, node: Node) -> bool:
        """Whether the outputs are planes."""
        return self.planar if isinstance(self.planar, bool) else self.planar(network, node)
