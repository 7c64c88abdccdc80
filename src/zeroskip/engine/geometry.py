"""Which planar values share a geometry, and how wide and tall it must be.

A tap is one offset only if a convolution's input and output planes have the same pitch and rows. So values
joined by convolutions, additions and concatenations form a component; its pitch and rows are the largest any
member needs.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from zeroskip.codegen import Planar
from zeroskip.codegen.layout import round_up

# Rows that begin at whole vectors make a third of a 3x3 kernel's loads aligned; worth this much more pixels.
ALIGNED_PITCH_COSTS_AT_MOST = 1.04


@dataclass
class _Component:
    pitch: int = 1
    rows: int = 1
    top: int = 0
    left: int = 0


class Geometry:
    """Components of planar values, merged as the network is walked; layouts are asked for afterwards.

    `lanes` are the floats of a vector.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._parent: dict[Hashable, Hashable] = {}
        self._component: dict[Hashable, _Component] = {}

    def _find(self, key: Hashable) -> Hashable:
        if key not in self._parent:
            self._parent[key] = key
            self._component[key] = _Component()
        while self._parent[key] != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def join(self, *keys: Hashable) -> None:
        """The values `keys` have the same geometry."""
        first = self._find(keys[0])
        for key in keys[1:]:
            other = self._find(key)
            if other == first:
                continue
            a, b = self._component[first], self._component.pop(other)
            self._parent[other] = first
            self.need(first, b.pitch, b.rows, b.top, b.left)
            assert a is self._component[first]

    def need(self, key: Hashable, pitch: int, rows: int, top: int = 0, left: int = 0) -> None:
        """The value needs at least this pitch, these rows per image, this padding before its first pixel."""
        component = self._component[self._find(key)]
        component.pitch, component.rows = max(component.pitch, pitch), max(component.rows, rows)
        component.top, component.left = max(component.top, top), max(component.left, left)

    def layout(
        self,
        key: Hashable,
        shape: tuple[int, int, int, int],
        step: tuple[int, int] = (1, 1),
        phases: tuple[tuple[int, int], ...] = ((0, 0),),
    ) -> Planar:
        """The layout of a value of shape (N, C, H, W), all needs being known."""
        component = self._component[self._find(key)]
        pitch = self._pitch(component)
        lead = component.top * pitch + component.left
        images, channels, height, width = shape
        return Planar(images, channels, height, width, pitch, component.rows, lead, step=step, phases=phases)

    def _pitch(self, component: _Component) -> int:
        """The pitch needed, or the next multiple of a vector where that costs next to nothing."""
        aligned = round_up(component.pitch, self._lanes)
        vectors = [round_up(component.rows * pitch, self._lanes) for pitch in (component.pitch, aligned)]
        return aligned if vectors[1] <= ALIGNED_PITCH_COSTS_AT_MOST * vectors[0] else component.pitch
