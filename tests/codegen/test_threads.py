"""The run loop and its workers: each task once, calls in order, many programs, many callers, forks."""

from __future__ import annotations

import gc
import os
import threading
import time

import numpy as np
import pytest

from zeroskip.codegen import load
from zeroskip.codegen.runtime import Header, Record, ThreadPool, can_thread, program_slots, run_alone

pytestmark = pytest.mark.skipif(not can_thread, reason="worker threads need POSIX condition variables")


def mark(b):
    """``marks[task] += 1``, ``by[task] = thread``."""
    place = b.pointer(0) + b.task * 8
    b.store_i64(b.load_i64(place) + 1, place)
    b.store_i64(b.thread, b.pointer(1) + b.task * 8)


def double(b):
    """``y[task] = 2 * x[task + 1]``, cyclically: wrong unless all tasks of the call before are done."""
    tasks = b.arg(2)
    source = b.pointer(0) + (b.task + 1) % tasks * 8
    b.store_i64(b.load_i64(source) * 2, b.pointer(1) + b.task * 8)


class Program:
    """Calls in the run loop's form."""

    def __init__(self, host, calls, threads, overlap=False):
        kernels = [kernel for kernel, _, _ in calls]
        addresses = load(kernels, host.target)
        size = program_slots(len(calls), threads)
        raw = np.zeros(size + 8, np.int64)
        start = -(raw.ctypes.data // 8) % 8
        self.slots = raw[start : start + size]
        self.slots[Header.CALLS], self.slots[Header.THREADS] = len(calls), threads
        self.keep = [raw]
        for number, (kernel, arguments, tasks) in enumerate(calls):
            block = np.array([a if isinstance(a, int) else a.ctypes.data for a in arguments], np.int64)
            self.keep += [block, *(a for a in arguments if not isinstance(a, int))]
            record = Header.RECORDS + number * Record.SIZE
            self.slots[record + Record.FUNCTION] = addresses[kernel.name]
            self.slots[record + Record.ARGUMENTS] = block.ctypes.data
            self.slots[record + Record.TASKS] = tasks
            last = number == len(calls) - 1
            self.slots[record + Record.BARRIER] = last if overlap else number + 1

    @property
    def address(self):
        return self.slots.ctypes.data


@pytest.fixture
def marking(host):
    return host.kernel(mark, "test_mark"), host.kernel(double, "test_double")


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("tasks", [0, 1, 7, 1000])
def test_each_task_once(host, marking, threads, tasks):
    pool = ThreadPool(threads)
    marks, by = np.zeros(tasks + 1, np.int64), np.full(tasks + 1, -1)
    program = Program(host, [(marking[0], (marks, by), tasks)], threads)
    for _ in range(20):
        pool.run(program.address)
    assert (marks[:tasks] == 20).all() and marks[tasks] == 0
    assert ((by[:tasks] >= 0) & (by[:tasks] < threads)).all()


def test_calls_wait_for_each_other(host, marking):
    """A ring shifted and doubled by each call: any call that starts early reads what is not there yet."""
    threads, size, calls = 3, 64, 50
    rings = [np.arange(size), np.zeros(size, np.int64)]
    steps = [(marking[1], (rings[i % 2], rings[1 - i % 2], size), size) for i in range(calls)]
    program = Program(host, steps, threads)
    expected = rings[0].copy()
    for _ in range(calls):
        expected = 2 * np.roll(expected, -1)
    ThreadPool(threads).run(program.address)
    np.testing.assert_array_equal(rings[0], expected)


def test_calls_that_overlap(host, marking):
    """None waits for the other, and the program ends when all are done."""
    threads, tasks = 3, 40
    marks, by = np.zeros((8, tasks), np.int64), np.full((8, tasks), -1)
    program = Program(
        host, [(marking[0], pair, tasks) for pair in zip(marks, by, strict=True)], threads, True
    )
    pool = ThreadPool(threads)
    for run in range(1, 31):
        pool.run(program.address)
        assert (marks == run).all()


def test_alone_is_the_same(host, marking):
    marks, by = np.zeros(9, np.int64), np.full(9, -1)
    program = Program(host, [(marking[0], (marks, by), 9)], 1)
    run_alone(program.address)
    assert (marks == 1).all() and (by == 0).all()


def test_workers_wake_after_they_fell_asleep(host, marking):
    pool = ThreadPool(2)
    marks, by = np.zeros(100, np.int64), np.zeros(100, np.int64)
    program = Program(host, [(marking[0], (marks, by), 100)], 2)
    for run in range(1, 4):
        time.sleep(0.05)  # workers spin for 100 us
        pool.run(program.address)
        assert (marks == run).all()


def test_callers_take_turns_by_the_lock(host, marking):
    """Several Python threads share a pool, each with its own program."""
    pool = ThreadPool(2)
    marks = [np.zeros(50, np.int64) for _ in range(4)]
    by = np.zeros(50, np.int64)
    programs = [Program(host, [(marking[0], (own, by), 50)], 2) for own in marks]

    def caller(program):
        for _ in range(30):
            with pool.lock:
                pool.run(program.address)

    threads = [threading.Thread(target=caller, args=(program,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert all((own == 30).all() for own in marks)


def test_pools_run_at_the_same_time(host, marking):
    """Each Python thread with a pool of its own; the interpreter's lock is not held meanwhile."""
    failures = []

    def caller():
        pool = ThreadPool(2)
        marks, by = np.zeros(200, np.int64), np.zeros(200, np.int64)
        program = Program(host, [(marking[0], (marks, by), 200)], 2)
        for _ in range(30):
            pool.run(program.address)
        if not (marks == 30).all():
            failures.append(marks)

    threads = [threading.Thread(target=caller) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert not failures


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("zeroskip-")]


def test_a_pool_takes_its_workers_with_it(host, marking):
    before = len(workers())
    pool = ThreadPool(4)
    assert len(workers()) == before + 3
    marks, by = np.zeros(10, np.int64), np.zeros(10, np.int64)
    pool.run(Program(host, [(marking[0], (marks, by), 10)], 4).address)
    del pool
    gc.collect()
    assert len(workers()) == before


def test_an_exception_in_the_caller_leaves_the_pool_usable(host, marking):
    pool = ThreadPool(2)
    marks, by = np.zeros(10, np.int64), np.zeros(10, np.int64)
    program = Program(host, [(marking[0], (marks, by), 10)], 2)
    with pytest.raises(ZeroDivisionError), pool.lock:
        pool.run(program.address)
        1 / 0  # noqa: B018
    with pool.lock:
        pool.run(program.address)
    assert (marks == 2).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own(host, marking):
    pool = ThreadPool(2)
    marks, by = np.zeros(100, np.int64), np.zeros(100, np.int64)
    program = Program(host, [(marking[0], (marks, by), 100)], 2)
    pool.run(program.address)
    child = os.fork()
    if child == 0:
        pool.run(program.address)
        os._exit(0 if (marks == 2).all() else 1)
    deadline = time.monotonic() + 30
    done, status = 0, -1
    while not done and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    assert done == child and os.waitstatus_to_exitcode(status) == 0
    pool.run(program.address)
    assert (marks == 2).all()
