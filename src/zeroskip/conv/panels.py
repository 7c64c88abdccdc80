"""Vectors of pixels in a row, cut into panels that register tiles pass over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Panels:
    """Vectors cut into panels of nv or nv-1, as equal as can be."""

    vectors: int
    widest: int

    @cached_property
    def count(self) -> int:
        """Panels."""
        return -(-self.vectors // self.widest)

    @cached_property
    def nv(self) -> int:
        """Vectors of the wide panels."""
        return -(-self.vectors // self.count)

    @cached_property
    def wide(self) -> int:
        """How many panels are wide."""
        return self.vectors - self.count * (self.nv - 1) if self.nv > 1 else self.count
