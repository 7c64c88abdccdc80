"""Vectors of pixels in a row, cut into panels that register tiles pass over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Panels:
    """Vectors cut into panels of nv or nv - step, as equal as can be; all are multiples of `step`."""

    vectors: int
    widest: int
    step: int = 1

    @cached_property
    def count(self) -> int:
        """Panels."""
        return -(-self._steps // max(1, self.widest // self.step))

    @cached_property
    def nv(self) -> int:
        """Vectors of the wide panels."""
        return self.step * -(-self._steps // self.count)

    @cached_property
    def wide(self) -> int:
        """How many panels are wide."""
        high = self.nv // self.step
        return self._steps - self.count * (high - 1) if high > 1 else self.count

    @property
    def _steps(self) -> int:
        return self.vectors // self.step
