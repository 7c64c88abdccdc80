"""The native run loop: programs of kernel calls, and worker threads that wait for them without Python.

A *program* is an array of 64-bit slots: a header, one record per call, then for each thread a counter per
call. Every participating thread walks the same records. It draws task numbers from its own share of a call's
tasks, then from others' until all run out, and unless the call overlaps with the next one, waits at a barrier
for the others. Where tasks are pixels from top to bottom, a thread so reads mostly what it wrote itself, and
what is near. Workers spin for a bounded time between programs and then sleep on a condition variable.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from zeroskip.codegen.builder import Builder
from zeroskip.codegen.compile import Kernel, load
from zeroskip.codegen.expr import I32, I64, PTR, VOID, Expr
from zeroskip.codegen.layout import round_up
from zeroskip.codegen.target import resolve

# About 100 us at 4 GHz: longer than the gap between two runs of a busy caller, shorter than anybody notices.
SPINS = 4000
BARRIER_SPINS = 20000


class Header(IntEnum):
    """Slots before the records."""

    CALLS = 0
    THREADS = 1
    BASE = 2  # arrivals before this run: the count only grows, so that a late thread cannot miss its barrier
    ARRIVED = 8  # a cache line of its own
    RECORDS = 16


class Record(IntEnum):
    """Slots of one call; a record is a cache line."""

    FUNCTION = 0
    ARGUMENTS = 1
    TASKS = 2
    BARRIER = 3  # number of the barrier behind this call, from 1; 0 where there is none
    SIZE = 8


class PoolSlot(IntEnum):
    """Slots of what a pool's threads share."""

    EPOCH = 0  # counts programs published
    PROGRAM = 1
    STOP = 2
    RUN = 3  # address of the run loop
    SLEEPERS = 8
    MUTEX = 16  # pthread objects, generously sized
    CONDITION = 32
    SIZE = 64


def _declare(b: Builder, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
    found = b.module.globals.get(name)
    return found or ir.Function(b.module, ir.FunctionType(result, arguments), name=name)


def _slot(base: Expr, index: int) -> Expr:
    return base + 8 * index


def _atomic_load(b: Builder, pointer: Expr) -> Expr:
    return Expr(b, b.ir.load_atomic(pointer.value, "acquire", 8, typ=I64))


def _atomic_add(b: Builder, pointer: Expr, amount: int) -> Expr:
    return Expr(b, b.ir.atomic_rmw("add", b.typed(pointer, I64), ir.Constant(I64, amount), "acq_rel"))


def _pause(b: Builder) -> None:
    arch = b.target.triple.split("-")[0]
    if arch in ("x86_64", "i686", "i386"):
        b.ir.call(_declare(b, "llvm.x86.sse2.pause", VOID), [])
    elif arch in ("aarch64", "arm64"):
        b.ir.call(_declare(b, "llvm.aarch64.hint", VOID, I32), [ir.Constant(I32, 1)])


def _spin_until(b: Builder, ready: Callable[[], Expr], spins: int) -> Expr:
    """Poll `ready()` up to `spins` times; whether it came true."""
    tries = b.var(b.int(0))
    loop, done = (b.function.append_basic_block(name) for name in ("spin", "spun"))
    b.ir.branch(loop)
    b.ir.position_at_end(loop)
    _pause(b)
    tries.set(tries.get() + 1)
    come = ready()
    b.ir.cbranch((come | (tries.get() > spins)).value, done, loop)
    b.ir.position_at_end(done)
    return come


def _emit_run(b: Builder) -> None:
    """``run(program, _, thread)``: this thread's part of a program."""
    program = b.args
    threads = b.load_i64(_slot(program, Header.THREADS))
    arrived = _slot(program, Header.ARRIVED)
    base = b.load_i64(_slot(program, Header.BASE))
    calls = b.load_i64(_slot(program, Header.CALLS))

    def invoke(record: Expr, task: Expr) -> None:
        function = b.load_pointer(_slot(record, Record.FUNCTION))
        b.call(function, b.load_pointer(_slot(record, Record.ARGUMENTS)), task, b.thread)

    with b.loop(0, calls) as i:
        record = _slot(program, Header.RECORDS) + i * (8 * Record.SIZE)
        tasks = b.load_i64(_slot(record, Record.TASKS))
        with b.choose(threads.equals(1)) as (alone, together):
            with alone, b.loop(0, tasks) as task:
                invoke(record, task)
            with together:
                with b.loop(0, threads) as further:
                    owner = (b.thread + further) % threads
                    first = owner * tasks // threads
                    count = (owner + 1) * tasks // threads - first
                    counter = _counter(program, calls, owner) + i * 8
                    with b.when(_atomic_load(b, counter) < count):
                        draw, work, finished = (
                            b.function.append_basic_block(n) for n in ("draw", "work", "finished")
                        )
                        b.ir.branch(draw)
                        b.ir.position_at_end(draw)
                        task = _atomic_add(b, counter, 1)
                        b.ir.cbranch((task < count).value, work, finished)
                        b.ir.position_at_end(work)
                        invoke(record, first + task)
                        b.ir.branch(draw)
                        b.ir.position_at_end(finished)
                number = b.load_i64(_slot(record, Record.BARRIER))
                with b.when(number > 0):
                    leaves = (i + 1).equals(calls) & (b.thread > 0)
                    _barrier(b, arrived, base + number * threads, leaves)


def _counter(program: Expr, calls: Expr, thread: Expr) -> Expr:
    """A thread's counters, in cache lines of their own."""
    lines = (calls + 7) // 8
    return _slot(program, Header.RECORDS) + (calls * Record.SIZE + thread * lines * 8) * 8


def _barrier(b: Builder, arrived: Expr, everybody: Expr, leaves: Expr) -> None:
    """Wait until `everybody` has arrived; yield the processor where that takes long.

    A thread that `leaves` only says that it came. Workers do so after the last call: as soon as all have
    come, the caller may free the program, which they must not look at any more.
    """
    _atomic_add(b, arrived, 1)
    wait, late, through = (b.function.append_basic_block(n) for n in ("wait", "late", "through"))
    b.ir.cbranch(leaves.value, through, wait)
    b.ir.position_at_end(wait)
    come = _spin_until(b, lambda: _atomic_load(b, arrived) >= everybody, BARRIER_SPINS)
    b.ir.cbranch(come.value, through, late)
    b.ir.position_at_end(late)
    if os.name == "posix":
        b.ir.call(_declare(b, "sched_yield", I32), [])
    b.ir.branch(wait)
    b.ir.position_at_end(through)


def _emit_worker(b: Builder) -> None:
    """``worker(pool, _, thread)``: run each published program until told to stop."""
    pool = b.args
    epoch = _slot(pool, PoolSlot.EPOCH)
    mutex, condition, sleepers = (
        _slot(pool, s) for s in (PoolSlot.MUTEX, PoolSlot.CONDITION, PoolSlot.SLEEPERS)
    )
    seen = b.var(b.int(0))
    idle, sleep, doze, awake, busy, leave = (
        b.function.append_basic_block(n) for n in ("idle", "sleep", "doze", "awake", "busy", "leave")
    )
    b.ir.branch(idle)
    b.ir.position_at_end(idle)
    last = seen.get()
    published = _spin_until(b, lambda: _atomic_load(b, epoch) > last, SPINS)
    b.ir.cbranch(published.value, busy, sleep)
    b.ir.position_at_end(sleep)
    b.ir.call(_declare(b, "pthread_mutex_lock", I32, PTR), [mutex.value])
    _atomic_add(b, sleepers, 1)
    b.ir.branch(doze)
    b.ir.position_at_end(doze)
    nothing_new, wait = _atomic_load(b, epoch) <= last, b.function.append_basic_block("await")
    b.ir.cbranch(nothing_new.value, wait, awake)
    b.ir.position_at_end(wait)
    b.ir.call(_declare(b, "pthread_cond_wait", I32, PTR, PTR), [condition.value, mutex.value])
    b.ir.branch(doze)
    b.ir.position_at_end(awake)
    _atomic_add(b, sleepers, -1)
    b.ir.call(_declare(b, "pthread_mutex_unlock", I32, PTR), [mutex.value])
    b.ir.branch(busy)
    b.ir.position_at_end(busy)
    seen.set(seen.get() + 1)
    work = b.function.append_basic_block("work")
    b.ir.cbranch(_atomic_load(b, _slot(pool, PoolSlot.STOP)).equals(0).value, work, leave)
    b.ir.position_at_end(work)
    _call_run(b, pool, b.thread)
    b.ir.branch(idle)
    b.ir.position_at_end(leave)


def _call_run(b: Builder, pool: Expr, thread: Expr) -> None:
    program = b.load_pointer(_slot(pool, PoolSlot.PROGRAM))
    b.call(b.load_pointer(_slot(pool, PoolSlot.RUN)), program, b.int(0), thread)


def _emit_launch(b: Builder) -> None:
    """``launch(pool, join, _)``: publish the pool's program and take part; without `join`, its stop."""
    pool = b.args
    with b.when(b.task > 0):
        program = b.load_pointer(_slot(pool, PoolSlot.PROGRAM))
        b.store_i64(b.load_i64(_slot(program, Header.ARRIVED)), _slot(program, Header.BASE))
        calls, threads = (b.load_i64(_slot(program, slot)) for slot in (Header.CALLS, Header.THREADS))
        with b.loop(0, threads) as thread, b.loop(0, calls) as i:
            b.store_i64(b.int(0), _counter(program, calls, thread) + i * 8)
    mutex, condition = (_slot(pool, s).value for s in (PoolSlot.MUTEX, PoolSlot.CONDITION))
    b.ir.call(_declare(b, "pthread_mutex_lock", I32, PTR), [mutex])
    _atomic_add(b, _slot(pool, PoolSlot.EPOCH), 1)
    with b.when(_atomic_load(b, _slot(pool, PoolSlot.SLEEPERS)) > 0):
        b.ir.call(_declare(b, "pthread_cond_broadcast", I32, PTR), [condition])
    b.ir.call(_declare(b, "pthread_mutex_unlock", I32, PTR), [mutex])
    with b.when(b.task > 0):
        _call_run(b, pool, b.int(0))


def _emit_prepare(b: Builder) -> None:
    """``prepare(pool, _, _)``: initialise the mutex and the condition variable."""
    pool, null = b.args, ir.Constant(PTR, None)
    mutex, condition = (_slot(pool, s).value for s in (PoolSlot.MUTEX, PoolSlot.CONDITION))
    b.ir.call(_declare(b, "pthread_mutex_init", I32, PTR, PTR), [mutex, null])
    b.ir.call(_declare(b, "pthread_cond_init", I32, PTR, PTR), [condition, null])


_EMITTERS = {
    "zeroskip_run": _emit_run,
    "zeroskip_worker": _emit_worker,
    "zeroskip_launch": _emit_launch,
    "zeroskip_prepare": _emit_prepare,
}
_Function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

can_thread = os.name == "posix"
"""Whether worker threads can be had here (they park on POSIX condition variables)."""


@cache
def _native(name: str) -> Any:
    """A function of the run loop; calling it releases the interpreter's lock."""
    names = ["zeroskip_run"] if not can_thread else list(_EMITTERS)
    addresses = load([Kernel(n, _EMITTERS[n]) for n in names], resolve())
    return _Function(addresses[name])


def run_alone(program: int) -> None:
    """Run the program at this address on the calling thread only."""
    _native("zeroskip_run")(program, 0, 0)


class ThreadPool:
    """Workers 1 .. threads-1; the thread that calls `run` is number 0.

    One program runs at a time (the caller holds the pool). A forked child starts workers of its own.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._owner = os.getpid()
        shared = np.zeros(PoolSlot.SIZE, np.int64)
        shared[PoolSlot.RUN] = ctypes.cast(_native("zeroskip_run"), ctypes.c_void_p).value or 0
        _native("zeroskip_prepare")(shared.ctypes.data, 0, 0)
        worker = _native("zeroskip_worker")
        workers = [
            threading.Thread(
                target=_work, args=(worker, shared, number), name=f"zeroskip-{number}", daemon=True
            )
            for number in range(1, self.threads)
        ]
        for thread in workers:
            thread.start()
        self._shared = shared
        self._finalizer = weakref.finalize(self, _stop, shared, workers, self._owner)

    def run(self, program: int) -> None:
        """Run the program at this address on all threads."""
        if self._owner != os.getpid():
            self._finalizer.detach()
            self._start()
        self._shared[PoolSlot.PROGRAM] = program
        _native("zeroskip_launch")(self._shared.ctypes.data, 1, 0)


def _work(worker: Any, shared: np.ndarray[Any, Any], number: int) -> None:
    worker(shared.ctypes.data, 0, number)


def _stop(shared: np.ndarray[Any, Any], workers: list[threading.Thread], owner: int) -> None:
    if owner != os.getpid() or sys.is_finalizing():
        return
    shared[PoolSlot.STOP] = 1
    _native("zeroskip_launch")(shared.ctypes.data, 0, 0)
    for thread in workers:
        thread.join()


def program_slots(calls: int, threads: int) -> int:
    """How many 64-bit slots a program of `calls` calls takes."""
    return Header.RECORDS + Record.SIZE * calls + threads * round_up(calls, 8)
