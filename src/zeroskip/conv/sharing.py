"""How threads share a layer: into how many tasks its work is cut, and how large they are."""

from __future__ import annotations

from zeroskip.codegen.layout import round_up
from zeroskip.ops.planes import TASKS_PER_THREAD


def tasks_for(threads: int, units: int = 1) -> int:
    """Tasks for each of so many units of work: one for a single thread, else a few per thread in all."""
    return 1 if threads == 1 else -(-TASKS_PER_THREAD * threads // units)


def shares(total: int, tasks: int, multiple: int = 1, least: int = 1) -> tuple[int, int]:
    """Into how many parts to cut `total`, at most so many, and each one's size: at least that, a multiple."""
    share = round_up(max(-(-total // tasks), min(least, total)), multiple)
    return -(-total // share), share
