"""Where buffers lie in one arena: those that are never alive together may share bytes."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.codegen import SLACK
from zeroskip.codegen.layout import round_up

ALIGNMENT = 64
HUGE_PAGE = 2 << 20


@dataclass(frozen=True)
class Lifetime:
    """A buffer's bytes and the first and last step that touch it."""

    bytes: int
    first: int
    last: int


def place(lifetimes: dict[int, Lifetime]) -> tuple[dict[int, int], int]:
    """Offsets of the buffers and the arena's bytes: largest first, each at the lowest place that is free."""
    offsets: dict[int, int] = {}
    for buffer in sorted(lifetimes, key=lambda b: (-lifetimes[b].bytes, lifetimes[b].first)):
        mine = lifetimes[buffer]
        busy = sorted(
            (offsets[other], offsets[other] + round_up(lifetimes[other].bytes, ALIGNMENT))
            for other in offsets
            if lifetimes[other].first <= mine.last and mine.first <= lifetimes[other].last
        )
        at = 0
        for start, end in busy:
            if at + mine.bytes <= start:
                break
            at = max(at, end)
        offsets[buffer] = at
    total = max((offsets[b] + lifetimes[b].bytes for b in offsets), default=0)
    return offsets, round_up(total, ALIGNMENT)


def allocate(size: int) -> np.ndarray[Any, Any]:
    """`size` zero bytes plus slack on both sides, aligned to cache lines; huge pages where there are any.

    Raises `MemoryError` where the system refuses.
    """
    if size < HUGE_PAGE:
        raw = np.zeros(size + 2 * SLACK + ALIGNMENT, np.uint8)
        start = SLACK + -(raw.ctypes.data + SLACK) % ALIGNMENT
        return raw[start : start + size]
    try:
        pages = mmap.mmap(-1, round_up(size + 2 * SLACK, HUGE_PAGE) + HUGE_PAGE)
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(str(error)) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    raw = np.frombuffer(pages, np.uint8)
    start = SLACK + -(raw.ctypes.data + SLACK) % ALIGNMENT
    return raw[start : start + size]
