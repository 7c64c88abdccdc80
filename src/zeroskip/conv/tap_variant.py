"""How the taps of a convolution are run: the variants of the algorithms on the tap micro-kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Variant:
    """A way to run the taps: the register tile, input channels of a segment (0: all), shifted panels or not.

    As text ``1x4/16s``: 1 channel by 4 vectors, segments of 16 input channels, shifted; ``4*1x4``: four
    channels side by side, each with taps of its own.
    """

    mr: int
    nv: int
    segment: int = 0
    shifted: bool = False
    lists: int = 1

    def __str__(self) -> str:
        segment = f"/{self.segment}" if self.segment else ""
        lists = f"{self.lists}*" if self.lists > 1 else ""
        return f"{lists}{self.mr}x{self.nv}{segment}{'s' if self.shifted else ''}"


@cache  # selectors ask again and again
def parse_variant(text: str) -> Variant:
    """The inverse of ``str(variant)``."""
    lists, _, tile = text.rpartition("*")
    tile, _, segment = tile.removesuffix("s").partition("/")
    mr, nv = tile.split("x")
    return Variant(int(mr), int(nv), int(segment or 0), text.endswith("s"), int(lists or 1))
