"""Zero-aware storage formats, one file each: encode, decode, exact size. Needs NumPy only.

The room is also the listing: ``zs.encodings()`` calls this module, because a package's attribute and its
sub-module share one name, and whichever was bound last would hide the other.
"""

import sys
from types import ModuleType
from typing import cast

from zeroskip.encodings import registry
from zeroskip.encodings.base import Encoded, Encoding, Part
from zeroskip.encodings.lowering import conv_memory
from zeroskip.encodings.registry import encode, find


class Room(ModuleType):
    """A module that can be called."""

    def __call__(self) -> dict[str, str]:
        """Names and one-line descriptions of all encodings."""
        return registry.encodings()


sys.modules[__name__].__class__ = Room
encodings = cast(Room, sys.modules[__name__])

__all__ = ["Encoded", "Encoding", "Part", "conv_memory", "encode", "encodings", "find"]
