"""Plots as SVG text: logarithmic axes, colours, words. No library: equal data gives equal files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c510a", "#7570b3",
    "#66a61e", "#e31a1c", "#999999", "#00ced1", "#00441b", "#b2df8a",
)  # fmt: skip
"""The first six are told apart by all kinds of colour vision (Okabe & Ito 2008)."""
INK, GRID = "#444", "#ddd"


class Scale:
    """A logarithmic axis from the data to pixels, between whole powers of two."""

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        known = list(values)
        self.low, self.high = math.floor(math.log2(min(known))), math.ceil(math.log2(max(known)))
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        share = (math.log2(value) - self.low) / max(1, self.high - self.low)
        return self.start + (self.end - self.start) * share

    def ticks(self, most: int = 64) -> list[float]:
        """The powers of two that it spans; of too many every second, third ... one."""
        step = -(-(self.high - self.low) // most) or 1
        return [2.0**power for power in range(self.low, self.high + 1, step)]


def text(x: float, y: float, words: str, anchor: str = "middle", extra: str = "") -> str:
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(words)}</text>'


def document(width: float, height: float, parts: Iterable[str], font: int = 12) -> str:
    """The whole file, on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'font-family="sans-serif" font-size="{font}" fill="{INK}">'
        '<rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"
