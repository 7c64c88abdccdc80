"""What one core can do at most, measured: multiply-adds per second, bytes read per second, its clock.

Each number comes from a small generated kernel, so it is the limit of what this package can emit.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import numpy as np

from zeroskip.codegen import Builder, Kernel, Target, load, resolve
from zeroskip.codegen.layout import LINE, round_up

SECONDS = 0.05
"""Time spent on one measurement; the best of the runs that fit counts."""
LEAST_RUN = 0.002
READ_STREAMS = 8


def fma_gflops(target: Target | None = None, seconds: float = SECONDS) -> float:
    """10^9 float32 operations per second of one core that does only multiply-adds, each counted as two.

    >>> fma_gflops(seconds=0.01) > 0.1
    True
    """
    target = target or resolve()
    chains = 3 * target.registers // 4

    def emit(b: Builder) -> None:
        data = b.pointer(0)
        w, x = b.load_vector(data), b.load_vector(data + b.vector_bytes)
        sums = [b.var(b.vector()) for _ in range(chains)]
        with b.loop(0, b.arg(1)):
            for var in sums:
                var.set(b.fma(w, x, var.get()))
        for i, var in enumerate(sums):
            b.store(var.get(), data + i * b.vector_bytes)

    data = np.zeros(chains * target.lanes, np.float32)
    run = _kernel(f"limit_fma_{chains}", emit, target)
    rounds, best = _fastest(lambda n: run(data.ctypes.data, n), seconds)
    return 2 * chains * target.lanes * rounds / best / 1e9


def read_gbs(size: int, target: Target | None = None, seconds: float = SECONDS, *, shift: int = 0) -> float:
    """10^9 bytes per second at which one core reads `size` bytes over and over, in order.

    With a `shift` of some bytes, vectors as long as a cache line straddle two of them.

    >>> read_gbs(16384, seconds=0.01) > 0.1
    True
    """
    target = target or resolve()

    def emit(b: Builder) -> None:
        data, step = b.pointer(0), READ_STREAMS * b.vector_bytes
        sums = [b.var(b.vector()) for _ in range(READ_STREAMS)]
        with b.loop(0, b.arg(2)), b.loop(0, b.arg(1), step) as at:
            for i, var in enumerate(sums):
                var.set(var.get() + b.load_vector(data + at + i * b.vector_bytes))
        for i, var in enumerate(sums):
            b.store(var.get(), data + i * b.vector_bytes)

    step = READ_STREAMS * 4 * target.lanes
    whole = max(1, size // step) * step
    data = np.ones((whole + 2 * LINE) // 4, np.float32)
    start = round_up(data.ctypes.data, LINE) + shift
    run = _kernel("limit_read", emit, target)
    rounds, best = _fastest(lambda n: run(start, whole, n), seconds)
    return whole * rounds / best / 1e9


def clock_ghz(target: Target | None = None, seconds: float = SECONDS) -> float:
    """10^9 cycles per second, from a chain of integer operations that take one cycle each.

    >>> clock_ghz(seconds=0.01) > 0.1
    True
    """
    target = target or resolve()
    links = 16

    def emit(b: Builder) -> None:
        data, mask, step = b.pointer(0), b.arg(1), b.arg(2)
        number = b.var(step)
        with b.loop(0, b.arg(3)):
            for _ in range(links):  # the mask is all ones, which the compiler cannot know
                number.set((number.get() & mask) + step)
        b.store_i64(number.get(), data)

    data = np.zeros(1, np.int64)
    run = _kernel("limit_clock", emit, target)
    rounds, best = _fastest(lambda n: run(data.ctypes.data, -1, 1, n), seconds)
    return 2 * links * rounds / best / 1e9


def _kernel(name: str, emit: Callable[[Builder], None], target: Target) -> Callable[..., None]:
    """The compiled kernel as a function of its arguments."""
    address = load([Kernel(name, emit)], target)[name]
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)

    def run(*arguments: int) -> None:
        block = np.array(arguments, np.int64)
        function(block.ctypes.data, 0, 0)

    return run


def _fastest(run: Callable[[int], None], seconds: float) -> tuple[int, float]:
    """(rounds, seconds) of the fastest of several equal runs that take about `seconds` together."""

    def timed(rounds: int) -> float:
        start = time.perf_counter()
        run(rounds)
        return time.perf_counter() - start

    rounds, took = 1, timed(1)
    while took < min(LEAST_RUN, seconds / 4):
        rounds *= 2
        took = timed(rounds)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        took = min(took, timed(rounds))
    return rounds, took
