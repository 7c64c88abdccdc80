"""Compiles a few lines of the builder's language and runs them, in memory between forbidden pages."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest

from zeroskip.codegen import Builder, Expr, Kernel, Target, load, resolve

FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = count()


def fenced(array: np.ndarray, at_end: bool = True) -> np.ndarray:
    """A copy that ends where a forbidden page begins, or begins where one ends: touching that is fatal."""
    page = mmap.PAGESIZE
    size = -(-max(array.nbytes, 1) // page) * page
    memory = np.frombuffer(mmap.mmap(-1, size + 2 * page), np.uint8)
    for start in (0, size + page):
        assert _libc.mprotect(ctypes.c_void_p(memory.ctypes.data + start), ctypes.c_size_t(page), 0) == 0
    start = page + (size - array.nbytes if at_end else 0)
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclass
class Machine:
    """Runs kernels for one target."""

    target: Target
    kept: list[object] = field(default_factory=list)
    fenced = staticmethod(fenced)

    @property
    def lanes(self) -> int:
        """Floats of a vector."""
        return self.target.lanes

    def kernel(self, emit: Callable[[Builder], None], name: str = "") -> Kernel:
        """A kernel with a name of its own."""
        return Kernel(name or f"test_{next(_numbers)}_{self.target.name}".replace("-", "_"), emit)

    def call(self, kernel: Kernel, *arguments: np.ndarray | int, task: int = 0, thread: int = 0) -> None:
        """Compile and run it once; arrays are passed by address."""
        slots = np.array([a if isinstance(a, int) else a.ctypes.data for a in arguments] or [0], np.int64)
        function = FUNCTION(load([kernel], self.target)[kernel.name])
        function(slots.ctypes.data, task, thread)

    def run(self, emit: Callable[[Builder], None], *arguments: np.ndarray | int, task: int = 0) -> None:
        """Run the kernel that `emit` describes."""
        self.call(self.kernel(emit), *arguments, task=task)

    def vectors(self, emit: Callable[..., Expr], *inputs: np.ndarray) -> np.ndarray:
        """Apply a function of vectors, of floats or a mask as ones and zeros, to whole arrays."""
        rows = [
            np.resize(np.asarray(x, np.float32), -(-np.size(x) // self.lanes) * self.lanes) for x in inputs
        ]
        out = np.zeros_like(rows[0])

        def body(b: Builder) -> None:
            with b.loop(0, b.arg(0), b.vector_bytes) as byte:
                loaded = [b.load_vector(b.pointer(1 + i) + byte) for i in range(len(rows))]
                value = emit(b, *loaded)
                if value.type != b.vec:
                    value = b.select(value, b.vector(1.0), 0.0)
                b.store(value, b.pointer(1 + len(rows)) + byte)

        self.run(body, rows[0].nbytes, *rows, out)
        return out[: np.size(inputs[0])]

    def integers(self, emit: Callable[..., Expr], *inputs: int) -> int:
        """Apply a function of 64-bit integers."""
        out = np.zeros(1, np.int64)

        def body(b: Builder) -> None:
            b.store_i64(emit(b, *(b.arg(i) for i in range(len(inputs)))), b.pointer(len(inputs)))

        self.run(body, *inputs, out)
        return int(out[0])


@pytest.fixture
def machine(target: str) -> Machine:
    """A machine per target that runs here."""
    return Machine(resolve(target))


@pytest.fixture
def host() -> Machine:
    """This machine."""
    return Machine(resolve("host"))
