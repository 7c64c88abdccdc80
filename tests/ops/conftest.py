"""Runs single calls by hand, in memory whose neighbourhood is checked."""

from __future__ import annotations

import ctypes
import mmap
import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from zeroskip.codegen import (
    SLACK,
    Address,
    Call,
    Layout,
    Operand,
    Plain,
    Planar,
    Scratch,
    Target,
    load,
    resolve,
)
from zeroskip.codegen.layout import round_up

CANARY = np.float32(-12345.5)
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(count: int) -> np.ndarray:
    """Floats that end where a page begins that nobody may touch: reading past them ends the process."""
    page = mmap.PAGESIZE
    size = round_up(max(4 * count, 1), page)
    memory = mmap.mmap(-1, size + page)
    array = np.frombuffer(memory, np.float32)
    assert _libc.mprotect(ctypes.c_void_p(array.ctypes.data + size), ctypes.c_size_t(page), 0) == 0
    return array[size // 4 - count : size // 4]


def free(count: int) -> np.ndarray:
    """Aligned floats between canaries."""
    array = np.full(count + SLACK // 4 + 64, CANARY)
    start = -array.ctypes.data % 64 // 4 + 32
    return array[start - 16 : start + count + SLACK // 4]


def planar(
    images: int,
    channels: int,
    height: int,
    width: int,
    *,
    right: int = 1,
    below: int = 1,
    lead: int = 0,
    **split,
) -> Planar:
    """A planar layout with so many zero columns and rows."""
    return Planar(images, channels, height, width, width + right, height + below, lead, **split)


def plane_view(layout: Planar, floats: np.ndarray) -> np.ndarray:
    """(planes, images, rows, pitch) of a buffer that begins with the lead."""
    body = floats[layout.lead // 4 : layout.bytes // 4].reshape(layout.planes, -1)
    cut = body[:, : layout.images * layout.rows * layout.pitch]
    return cut.reshape(layout.planes, layout.images, layout.rows, layout.pitch)


@dataclass
class Bench:
    """Buffers by number, and calls run over them."""

    target: Target
    threads: int = 1
    buffers: list[np.ndarray] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)

    def _add(self, array: np.ndarray, start: int) -> int:
        self.buffers.append(array)
        self.origins.append(array.ctypes.data + 4 * start)
        return len(self.buffers) - 1

    def input(self, array: np.ndarray, layout: Layout | None = None) -> Operand:
        """The array (N, C, H, W) in memory, in `layout`."""
        array = np.asarray(array, np.float32)
        layout = layout or Plain(array.shape)
        if isinstance(layout, Plain):
            memory = guarded(array.size)
            memory[:] = array.ravel()
            return Operand(self._add(memory, 0), layout)
        memory = free(layout.bytes // 4)
        memory[16 : 16 + layout.bytes // 4] = 0
        pixels = array.reshape(layout.images, layout.planes, layout.height, layout.width).transpose(
            1, 0, 2, 3
        )
        plane_view(layout, memory[16:])[:, :, : layout.height, : layout.width] = pixels
        return Operand(self._add(memory, 16), layout)

    def output(self, layout: Layout) -> Operand:
        """Room for a tensor."""
        count = layout.bytes // 4
        if isinstance(layout, Plain):
            memory = guarded(count)
            memory[:] = CANARY
            return Operand(self._add(memory, 0), layout)
        return Operand(self._add(free(count), 16), layout)

    def run(self, call: Call) -> None:
        """Compile and run all tasks, in a random order."""
        function = _FUNCTION(load([call.kernel], self.target)[call.kernel.name])
        slots = np.zeros(max(1, len(call.arguments)), np.int64)
        scratch = free(call.scratch // 4 * self.threads)
        for i, argument in enumerate(call.arguments):
            match argument:
                case Address(buffer, offset):
                    slots[i] = self.origins[buffer] + offset
                case Scratch():
                    slots[i] = scratch[16:].ctypes.data
                case np.ndarray():
                    assert argument.flags.c_contiguous
                    slots[i] = argument.ctypes.data
                case _:
                    slots[i] = argument
        order = list(range(call.tasks))
        random.Random(0).shuffle(order)
        for task in order:
            function(slots.ctypes.data, task, task % self.threads)

    def result(self, y: Operand) -> np.ndarray:
        """The tensor (N, planes, H, W); checks that all else is zero, and the neighbourhood untouched."""
        memory, layout = self.buffers[y.buffer], y.layout
        if isinstance(layout, Plain):
            assert not np.any(memory == CANARY), "not all was written"
            return memory.reshape(layout.shape).copy()
        count = layout.bytes // 4
        assert np.all(memory[:16] == CANARY) and np.all(memory[16 + count :] == CANARY), "wrote outside"
        view = plane_view(layout, memory[16:])
        pixels = view[:, :, : layout.height, : layout.width].transpose(1, 0, 2, 3).copy()
        rest = memory[16 : 16 + count].copy()
        plane_view(layout, rest)[:, :, : layout.height, : layout.width] = 0
        assert not np.any(rest), f"borders are not zero: {np.flatnonzero(rest)[:8]} of {layout}"
        return pixels


@dataclass
class Tools:
    """What the tests of kernels use."""

    bench: Bench
    planar = staticmethod(planar)
    random = staticmethod(
        lambda *shape: np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    )

    @property
    def lanes(self) -> int:
        """Floats of the target's vector."""
        return self.bench.target.lanes


@pytest.fixture
def kit(target: str) -> Tools:
    """A bench per target; its calls are made for two threads, hence for several tasks."""
    return Tools(Bench(resolve(target), threads=2))
