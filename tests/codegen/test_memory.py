"""Loads and stores: every form, at any alignment, and never past the last float that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.codegen import Planar


@pytest.mark.parametrize("at_end", [True, False])
def test_masked_tails_stay_inside(machine, at_end):
    """Copy arrays of every length between forbidden pages; what a mask excludes is not even touched."""
    lanes = machine.lanes

    def body(b):
        source, to, count = b.pointer(0), b.pointer(1), b.arg(2)
        with b.loop(0, count, b.lanes) as i:
            mask = b.lanes_below(count - i)
            b.store_masked(b.load_masked(source + i * 4, mask), to + i * 4, mask)

    kernel = machine.kernel(body)
    for count in range(2 * lanes + 2):
        x = np.arange(count, dtype=np.float32) + 1
        source, to = machine.fenced(x, at_end), machine.fenced(np.zeros(count, np.float32), at_end)
        machine.call(kernel, source, to, count)
        np.testing.assert_array_equal(to, x)


def test_lanes_not_stored_keep_their_floats(machine):
    lanes = machine.lanes
    memory = np.full(3 * lanes, 7.0, np.float32)

    def body(b):
        b.store_masked(b.vector(1.0), b.pointer(0), b.lanes_between(1, 3))

    machine.run(body, memory[lanes:])
    expected = np.full(3 * lanes, 7.0, np.float32)
    expected[lanes + 1 : lanes + 3] = 1
    np.testing.assert_array_equal(memory, expected)


def test_masked_loads_fill_what_they_skip(machine):
    x = np.arange(machine.lanes, dtype=np.float32)
    out = np.zeros_like(x)

    def body(b):
        b.store(b.load_masked(b.pointer(0), b.lanes_below(2), otherwise=-3.0), b.pointer(1))

    machine.run(body, x, out)
    np.testing.assert_array_equal(out, np.where(np.arange(machine.lanes) < 2, x, -3))


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_strided_loads(machine, stride):
    """Without a mask lanes*stride floats may be read; with one, only the lanes that hold."""
    lanes = machine.lanes
    out = np.zeros(lanes, np.float32)
    x = np.random.default_rng(stride).standard_normal(lanes * stride).astype(np.float32)

    def whole(b):
        b.store(b.load_strided(b.pointer(0), stride), b.pointer(1))

    machine.run(whole, machine.fenced(x), out)
    np.testing.assert_array_equal(out, x[::stride])

    def masked(b):
        b.store(b.load_strided(b.pointer(0), stride, b.lanes_below(b.arg(2)), 9.0), b.pointer(1))

    kernel = machine.kernel(masked)
    for count in range(1, lanes + 1):
        short = machine.fenced(x[: (count - 1) * stride + 1])
        machine.call(kernel, short, out, count)
        np.testing.assert_array_equal(out[:count], short[::stride])
        assert (out[count:] == 9).all()


@pytest.mark.parametrize("bits", [16, 32])
def test_gather_and_scatter(machine, bits):
    lanes = machine.lanes
    rng = np.random.default_rng(bits)
    x = rng.standard_normal(50).astype(np.float32)
    indices = rng.permutation(50)[:lanes].astype(np.uint16 if bits == 16 else np.int32)
    indices[0] = 49
    out = np.zeros(50, np.float32)

    def body(b):
        numbers = b.load_indices(b.pointer(1), bits)
        value = b.gather(b.pointer(0), numbers, b.lanes_below(3), otherwise=5.0)
        b.scatter(value, b.pointer(2), numbers, b.lanes_below(4))

    machine.run(body, machine.fenced(x), machine.fenced(indices), machine.fenced(out))
    memory = machine.fenced(out)
    machine.run(body, machine.fenced(x), machine.fenced(indices), memory)
    expected = out.copy()
    expected[indices[:3]] = x[indices[:3]]
    expected[indices[3:4]] = 5
    np.testing.assert_array_equal(memory, expected)


def test_scalars(machine):
    words = np.array([-5, 2**31 - 1, -(2**31)], np.int32)
    out = np.zeros(4, np.int64)
    narrow = np.zeros(2, np.int32)
    single = np.array([1.25], np.float32)
    copied = np.zeros(1, np.float32)

    def body(b):
        for i in range(3):
            b.store_i64(b.load_i32(b.pointer(0) + 4 * i), b.pointer(1) + 8 * i)
        b.store_i64(b.load_i64(b.pointer(1)), b.pointer(1) + 24)
        b.store_i32(b.int(2**40 + 17), b.pointer(2) + 4)
        b.store(b.load_f32(b.pointer(3)), b.pointer(4))

    machine.run(body, machine.fenced(words), out, narrow, machine.fenced(single), copied)
    assert out.tolist() == [-5, 2**31 - 1, -(2**31), -5]
    assert narrow.tolist() == [0, 17] and copied[0] == 1.25


def test_pointers_in_memory_and_broadcasts(machine):
    value = machine.fenced(np.array([2.5], np.float32))
    where = np.array([value.ctypes.data], np.int64)
    out = np.zeros(machine.lanes, np.float32)
    machine.run(lambda b: b.store(b.broadcast(b.load_pointer(b.pointer(0))), b.pointer(1)), where, out)
    assert (out == 2.5).all()


def test_bytes_are_unsigned(machine):
    small = machine.fenced(np.array([0, 200, 255], np.uint8))
    out = np.zeros(2, np.int64)
    flags = machine.fenced(np.zeros(3, np.uint8))

    def body(b):
        b.store_i64(b.load_u8(b.pointer(0) + 1), b.pointer(1))
        b.store_i64(b.load_u8(b.pointer(0) + 2), b.pointer(1) + 8)
        b.store_i8(b.int(256 + 9), b.pointer(2) + 2)

    machine.run(body, small, out, flags)
    assert out.tolist() == [200, 255] and flags.tolist() == [0, 0, 9]


@pytest.mark.parametrize("bits", [16, 32])
def test_pairs(machine, bits):
    """An integer below a float: unsigned in 16 bits, signed in 32."""
    kind = np.dtype([("offset", "<u2" if bits == 16 else "<i4"), ("weight", "<f4")])
    pairs = np.zeros(2, kind)
    pairs["offset"][0], pairs["weight"][0] = (65535 if bits == 16 else -77), -0.5
    number, out = np.zeros(1, np.int64), np.zeros(machine.lanes, np.float32)

    def body(b):
        offset, weight = b.unpack_pair(b.load_i64(b.pointer(0)), bits)
        b.store_i64(offset, b.pointer(1))
        b.store(weight, b.pointer(2))

    machine.run(body, pairs, number, out)
    assert number[0] == (65535 if bits == 16 else -77) and (out == -0.5).all()


def test_masks_from_bits(machine):
    lanes = machine.lanes
    pattern = np.random.default_rng(1).random(lanes) < 0.5
    bits = np.packbits(pattern, bitorder="little")
    memory = machine.fenced(bits.view(np.uint16) if lanes == 16 else bits)
    out = np.zeros(lanes, np.float32)
    machine.run(
        lambda b: b.store(b.select(b.mask_bits(b.pointer(0)), b.vector(1.0), 0.0), b.pointer(1)), memory, out
    )
    np.testing.assert_array_equal(out, pattern)


def test_pixels_are_kept(machine):
    layout = Planar(1, 1, 3, 5, 7, 4, 1)
    masks, value = layout.masks(machine.lanes), np.arange(1, layout.plane // 4 + 1, dtype=np.float32)
    out = np.full_like(value, -1)

    def body(b):
        with b.loop(0, len(value) // machine.lanes) as number:
            at = number * b.vector_bytes
            kept = b.kept(b.load_vector(b.pointer(1) + at), b.pixels(b.pointer(0), number))
            b.store(kept, b.pointer(2) + at)

    machine.run(body, machine.fenced(masks), value, out)
    position = np.arange(len(value))
    there = (position % 7 < 5) & (position // 7 < 3)
    np.testing.assert_array_equal(out, np.where(there, value, 0))


def test_prefetching_nowhere_is_harmless(machine):
    memory = machine.fenced(np.zeros(1, np.float32))
    machine.run(lambda b: b.prefetch(b.pointer(0) + 100_000), memory)
