"""Latency of several contenders, fairly: same processors, interleaved rounds, medians."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from zeroskip.bench.worker import turn
from zeroskip.errors import InputError


@dataclass(frozen=True)
class Latency:
    """Times of one contender, in milliseconds.

    Attributes:
        median_ms: median over all calls.
        low_ms: tenth percentile.
        high_ms: ninetieth percentile.
        runs: number of timed calls.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int

    def to_dict(self) -> dict[str, float | int]:
        """The figures as JSON has them."""
        return asdict(self)


@runtime_checkable
class Timed(Protocol):
    """A contender that times itself."""

    def turn(self, seconds: float, warm_up: int) -> list[float]:
        """Seconds of calls that take about so long together, after some that do not count."""


def measure(
    contenders: Mapping[str, Callable[[], object] | Timed],
    *,
    seconds: float = 2.0,
    rounds: int = 5,
    warm_up: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Latency]:
    """Time each contender for about `seconds`, in `rounds` that take turns.

    Slow drifts of the machine (heat, neighbours) then hit all alike.

    Args:
        contenders: name to a call without arguments, or to what times itself.
        seconds: time to spend on each contender, warm-up aside.
        rounds: turns that each contender gets.
        warm_up: untimed calls at the start of each turn; they refill the caches that others emptied.
        progress: called with the number of finished turns and of all turns.

    >>> sorted(measure({"a": lambda: None, "b": lambda: None}, seconds=0.01))
    ['a', 'b']
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    take = {n: c.turn if isinstance(c, Timed) else partial(turn, c) for n, c in contenders.items()}
    turns = rounds * len(contenders)
    for number in range(turns):
        name = list(contenders)[number % len(contenders)]
        times[name] += take[name](seconds / rounds, warm_up)
        if progress is not None:
            progress(number + 1, turns)
    return {name: _summary(t) for name, t in times.items()}


def _summary(times: list[float]) -> Latency:
    tenths = statistics.quantiles(times, n=10, method="inclusive")
    return Latency(statistics.median(times) * 1e3, tenths[0] * 1e3, tenths[-1] * 1e3, len(times))


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...] | None]:
    """Run the block on the first `threads` of the processors that this process may use.

    Yields their numbers, or None where the platform cannot pin.

    Raises:
        InputError: fewer processors are available.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    allowed = os.sched_getaffinity(0)
    if threads < 1 or threads > len(allowed):
        raise InputError(f"threads: got {threads}, but this process may use {len(allowed)} processors")
    chosen = tuple(sorted(allowed)[:threads])
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, allowed)
