"""Where buffers lie in one arena: those that are never alive together may share bytes."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zeroskip.codegen import SLACK
from zeroskip.codegen.layout import round_up

ALIGNMENT = 64
HUGE_PAGE = 2 << 20
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory a container may take: control groups of version 2, and of version 1."""
# Unless told otherwise Python shares anonymous memory with child processes; Linux has no huge pages for that.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}


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


def memory_limit() -> int | None:
    """Bytes this process may have: the machine's, or fewer where a container has less; None if unknown."""
    limits = []
    with suppress(ValueError, OSError, AttributeError):
        limits.append(int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES")))
    for path in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # the file says "max" where there is no limit
            limits.append(int(path.read_text()))
    return min(limits, default=None)


def give_back() -> None:
    """Return freed memory to the system where the C library keeps it: up to 100 MB after planning."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def give_back_tail(memory: np.ndarray[Any, Any], used: int) -> None:
    """Return the pages behind the first `used` bytes to the system; they are zeros when used again."""
    if not hasattr(mmap, "MADV_DONTNEED") or memory.nbytes < HUGE_PAGE:
        return
    first = round_up(int(memory.ctypes.data) + used, mmap.PAGESIZE)
    last = (int(memory.ctypes.data) + memory.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < last:
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def whole_pages(size: int) -> int:
    """The bytes that `allocate` should be asked for: in huge pages, which are resident as a whole, or few.

    A plane's rows, or the same pixels of many planes, lie in more pages than the processor has at hand. With
    the last half megabyte of its activations in small ones a MobileNet v1 took 8 % longer.
    """
    return size if size < HUGE_PAGE // 2 else round_up(size, HUGE_PAGE)


def allocate(size: int) -> np.ndarray[Any, Any]:
    """`size` zero bytes plus slack on both sides, aligned to cache lines; huge pages where they are filled.

    Raises `MemoryError` where the system refuses.
    """
    if size < HUGE_PAGE:
        raw = np.zeros(size + 2 * SLACK + ALIGNMENT, np.uint8)
        start = SLACK + -(raw.ctypes.data + SLACK) % ALIGNMENT
        return raw[start : start + size]
    try:
        pages = mmap.mmap(-1, size + 2 * SLACK + HUGE_PAGE, **_PRIVATE)
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(str(error)) from error
    raw = np.frombuffer(pages, np.uint8)
    start = SLACK + -(raw.ctypes.data + SLACK) % HUGE_PAGE
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE, start, size // HUGE_PAGE * HUGE_PAGE)
    return raw[start : start + size]
