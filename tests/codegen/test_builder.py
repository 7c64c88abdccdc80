"""The builder's language: integers, control flow, vectors; each against Python or NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

INTEGERS = st.integers(-(2**40), 2**40)
FLOATS = np.array([0.0, -0.0, 1.0, -1.5, 3e38, 1e-40, np.inf, -np.inf, np.nan, 0.1], np.float32)


def truncated(a, b):
    """Division as the machine does it: towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@settings(max_examples=30)
@given(a=INTEGERS, b=INTEGERS.filter(bool), shift=st.integers(0, 20))
def test_integers(host, a, b, shift):
    def together(builder, x, y, s):
        total = (x + y) * 3 - (x - y) + x // y * 5 + x % y
        return total + (x & y) - (x | 7) + (x << 2) + (y >> s)

    quotient = truncated(a, b)
    expected = (a + b) * 3 - (a - b) + quotient * 5 + a - quotient * b
    expected += (a & b) - (a | 7) + (a << 2) + (b >> shift)
    kernel = integers_kernel(host, together)
    assert evaluate(host, kernel, a, b, shift) == expected


_kernels = {}


def integers_kernel(machine, emit):
    """The kernel of a function of three integers, compiled once."""

    def body(b):
        b.store_i64(emit(b, b.arg(0), b.arg(1), b.arg(2)), b.pointer(3))

    return _kernels.setdefault(emit.__qualname__, machine.kernel(body))


def evaluate(machine, kernel, *inputs):
    out = np.zeros(1, np.int64)
    machine.call(kernel, *inputs, out)
    return int(out[0])


@pytest.mark.parametrize("a, b", [(1, 2), (2, 2), (3, 2), (-1, 1)])
def test_comparisons_choose(host, a, b):
    def bits(builder, x, y):
        one = builder.int(1)
        conditions = [x < y, x <= y, x > y, x >= y, x.equals(y)]
        return sum((builder.select(c, one << i, 0) for i, c in enumerate(conditions)), start=builder.int(0))

    expected = [a < b, a <= b, a > b, a >= b, a == b]
    assert host.integers(bits, a, b) == sum(c << i for i, c in enumerate(expected))
    assert host.integers(lambda builder, x, y: builder.maximum(x, y) * 100 + builder.minimum(x, y), a, b) == (
        max(a, b) * 100 + min(a, b)
    )


@pytest.mark.parametrize(
    "start, stop, step", [(0, 0, 1), (0, 1, 1), (5, 3, 1), (0, 10, 3), (-4, 5, 2), (0, 9, 3)]
)
def test_loops_are_ranges(host, start, stop, step):
    def weighed(b, first, last, stride):
        total = b.var(b.int(7))
        with b.loop(first, last, stride) as i:
            total.set(total.get() * 3 + i)
        return total.get()

    expected = 7
    for i in range(start, stop, step):
        expected = expected * 3 + i
    assert host.integers(weighed, start, stop, step) == expected


def test_loops_nest_and_branches_join(host):
    def count(b, n):
        even, odd = b.var(b.int(0)), b.var(b.int(0))
        with b.loop(0, n) as i, b.loop(0, i) as j:
            with b.choose((i + j) % 2 < 1) as (then, otherwise):
                with then:
                    even.set(even.get() + 1)
                with otherwise:
                    odd.set(odd.get() + 1)
            with b.when(i.equals(j + 1)):
                even.set(even.get() + 1000)
        return even.get() * 100000 + odd.get()

    pairs = [(i + j) % 2 for i in range(6) for j in range(i)]
    assert host.integers(count, 6) == (pairs.count(0) + 5 * 1000) * 100000 + pairs.count(1)


def test_task_and_thread_are_the_kernels_own(host):
    out = np.zeros(2, np.int64)

    def body(b):
        b.store_i64(b.task, b.pointer(0))
        b.store_i64(b.thread, b.pointer(0) + 8)

    host.call(host.kernel(body), out, task=41, thread=3)
    assert out.tolist() == [41, 3]


def test_arithmetic_of_floats(machine):
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal(40).astype(np.float32) for _ in range(3))
    for emit, expected in [
        (lambda b, x, y, z: x + y, x + y),
        (lambda b, x, y, z: x - y, x - y),
        (lambda b, x, y, z: x * y, x * y),
        (lambda b, x, y, z: x / y, x / y),
        (lambda b, x, y, z: x * 2.5 + 1.0, x * np.float32(2.5) + np.float32(1)),
        (lambda b, x, y, z: b.select(x < y, z, 0.25), np.where(x < y, z, np.float32(0.25))),
        (lambda b, x, y, z: b.maximum(x, y), np.maximum(x, y)),
        (lambda b, x, y, z: b.minimum(x, 0.5), np.minimum(x, np.float32(0.5))),
        (lambda b, x, y, z: b.unary("floor", x), np.floor(x)),
        (lambda b, x, y, z: b.unary("sqrt", b.unary("fabs", x)), np.sqrt(np.abs(x))),
    ]:
        np.testing.assert_array_equal(machine.vectors(emit, x, y, z), expected)
    exact = x.astype(np.float64) * y + z
    got = machine.vectors(lambda b, x, y, z: b.fma(x, y, z), x, y, z)
    assert (np.abs(got - exact) <= 2.0**-24 * (np.abs(exact) + 2 * np.abs(x * y))).all()


def test_questions_about_floats(machine):
    nan, zero = np.isnan(FLOATS), FLOATS == 0
    np.testing.assert_array_equal(machine.vectors(lambda b, x: b.is_nan(x), FLOATS), nan)
    np.testing.assert_array_equal(machine.vectors(lambda b, x: b.nonzero(x), FLOATS), ~zero)
    np.testing.assert_array_equal(machine.vectors(lambda b, x: x.equals(0.0), FLOATS), zero)
    np.testing.assert_array_equal(machine.vectors(lambda b, x: x < 1.0, FLOATS), FLOATS < 1)


def test_masks_of_lanes(machine):
    lanes = machine.lanes
    numbers = np.arange(lanes)
    for count in (-3, 0, 1, lanes - 1, lanes, lanes + 1, 2**40):
        got = machine.vectors(lambda b, x, count=count: b.lanes_below(count), np.zeros(lanes))
        np.testing.assert_array_equal(got, numbers < count)
    for first, last, stride in [(0, lanes, 1), (1, 3, 1), (-5, 2, 1), (3, 2 * lanes, 2), (2, 2, 1)]:
        got = machine.vectors(
            lambda b, x, f=first, t=last, s=stride: b.lanes_between(f, t, s), np.zeros(lanes)
        )
        np.testing.assert_array_equal(got, (numbers * stride >= first) & (numbers * stride < last))


def test_lanes_move(machine):
    lanes = machine.lanes
    x, y = np.arange(lanes, dtype=np.float32), 100 + np.arange(lanes, dtype=np.float32)
    order = list(range(1, 2 * lanes, 2))
    got = machine.vectors(lambda b, x, y: b.shuffle(x, y, order), x, y)
    np.testing.assert_array_equal(got, np.concatenate([x, y])[order])
    got = machine.vectors(lambda b, x: b.splat(b.lane(x, lanes - 1)), x)
    np.testing.assert_array_equal(got, np.full(lanes, lanes - 1))
    got = machine.vectors(lambda b, x: b.splat(b.reduce_add(x)), x)
    np.testing.assert_array_equal(got, np.full(lanes, x.sum()))
    got = machine.vectors(lambda b, x: b.splat(b.reduce_max(x)), x)
    np.testing.assert_array_equal(got, np.full(lanes, lanes - 1))
    got = machine.vectors(lambda b, x: b.splat(b.float_of(b.int(-7))), x)
    np.testing.assert_array_equal(got, np.full(lanes, -7))


@pytest.mark.parametrize("mask", [0, 1, 0b1011, 1 << 62, -(1 << 63), -1])
def test_bits_are_visited_from_the_lowest(host, mask):
    def weighed(b, bits):
        total = b.var(b.int(1))
        with b.bits(bits) as number:
            total.set(total.get() * 5 + number)
        return total.get()

    expected = 1
    for number in (i for i in range(64) if mask >> i & 1):
        expected = (expected * 5 + number) % 2**64
    assert host.integers(weighed, mask) % 2**64 == expected


def test_mantissa_and_exponent(machine):
    x = np.array([1.0, 0.5, 3.75, 1e-30, 3e38, 2**-126, 0.99999994], np.float32)
    mantissa, exponent = np.frexp(x)
    np.testing.assert_array_equal(machine.vectors(lambda b, x: b.mantissa_exponent(x)[0], x), mantissa)
    np.testing.assert_array_equal(machine.vectors(lambda b, x: b.mantissa_exponent(x)[1], x), exponent)
    powers = np.array([-126, -1, 0, 1, 127], np.float32)
    np.testing.assert_array_equal(
        machine.vectors(lambda b, p: b.scale(b.like(1.5, p), p), powers),
        1.5 * np.exp2(powers.astype(np.float64)),
    )


def test_names_of_intrinsics_do_not_clash(machine):
    """The same function on scalars and on vectors of two lengths in one kernel."""

    def emit(b, x):
        half = b.shuffle(x, x, range(b.lanes // 2))
        scalar = b.unary("floor", b.lane(x, 0))
        return b.unary("floor", x) + b.splat(scalar) + b.splat(b.lane(b.unary("floor", half), 0))

    x = np.full(machine.lanes, 1.75, np.float32)
    np.testing.assert_array_equal(machine.vectors(emit, x), np.full(machine.lanes, 3.0))
