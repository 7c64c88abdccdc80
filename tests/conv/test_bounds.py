"""No convolution reads or writes outside of its memory and the slack that kernels are promised around it."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

from zeroskip.codegen import SLACK
from zeroskip.codegen.layout import round_up
from zeroskip.conv import ALGORITHMS
from zeroskip.engine import executor

_libc = ctypes.CDLL(None, use_errno=True)
CANARY = 0xA5
LAYERS = [
    {"c": 5, "h": 7, "w": 17, "k": 9, "kernel": (3, 3), "pads": (1, 1, 1, 1)},
    {"c": 17, "h": 1, "w": 1, "k": 3, "kernel": (1, 1)},
    {"c": 3, "h": 9, "w": 33, "k": 17, "kernel": (3, 2), "strides": (2, 3), "pads": (0, 2, 1, 0)},
    {"c": 12, "h": 5, "w": 16, "k": 12, "kernel": (3, 3), "pads": (1, 1, 1, 1), "groups": 12},
    {"n": 2, "c": 4, "h": 8, "w": 15, "k": 8, "kernel": (7, 7), "pads": (3, 3, 3, 3)},
    {"c": 3, "h": 9, "w": 28, "k": 4, "kernel": (3, 3), "pads": (1, 1, 1, 1)},
    {"c": 6, "h": 12, "w": 4, "k": 5, "kernel": (9, 1), "pads": (4, 0, 4, 0), "strides": (1, 2)},
]


@pytest.fixture(params=["end", "start"])
def fences(request, monkeypatch):
    """Memory whose slack ends, or begins, at a page that nobody may touch; checks what is in the slack."""
    made: list[tuple[np.ndarray, int, int]] = []

    def allocate(size: int) -> np.ndarray:
        page = mmap.PAGESIZE
        whole = round_up(size + 2 * SLACK, page)
        memory = np.frombuffer(mmap.mmap(-1, whole + 2 * page), np.uint8)
        for start in (0, whole + page):
            place = ctypes.c_void_p(memory.ctypes.data + start)
            assert _libc.mprotect(place, ctypes.c_size_t(page), 0) == 0
        inside = memory[page : page + whole]
        start = SLACK if request.param == "start" else whole - SLACK - round_up(size, 64)
        inside[...] = CANARY
        inside[start : start + size] = 0
        made.append((inside, start, size))
        own = (ctypes.c_uint8 * size).from_address(inside.ctypes.data + start)
        return np.ctypeslib.as_array(own)  # not a view of the forbidden pages

    def check() -> None:
        for inside, start, size in made:
            assert (inside[:start] == CANARY).all(), "wrote before its memory"
            assert (inside[start + size :] == CANARY).all(), "wrote past its memory"

    monkeypatch.setattr(executor, "allocate", allocate)
    return check


@pytest.mark.parametrize("name", ALGORITHMS)
def test_memory_around_the_arena_stays_as_it_was(runner, kit, fences, name):
    tried = 0
    for shape in LAYERS:
        layer = kit.Layer(**shape, density=0.6)
        problem = layer.problem()
        if ALGORITHMS[name].refuses(problem, runner.target):
            continue
        for text in ALGORITHMS[name].variants(problem, runner.target)[::2]:
            runner.run(kit.alone(layer), kit.always(name, text), layer.inputs(), borders=("y",))
            tried += 1
    assert tried
    fences()
