"""Targets: what names mean, how wide their vectors are, and what code comes of them."""

from __future__ import annotations

import re

import pytest

from zeroskip.codegen import Kernel, assembly, load, resolve
from zeroskip.codegen.target import X86_LEVELS, runs_here
from zeroskip.errors import InputError


def multiply_add(b):
    acc = b.var(b.vector())
    with b.loop(0, b.arg(1)) as i:
        acc.set(b.fma(b.broadcast(b.pointer(2) + i * 4), b.load_vector(b.pointer(0)), acc.get()))
    b.store(acc.get(), b.pointer(3))


@pytest.mark.parametrize(
    "name, lanes, registers",
    [
        ("x86-64", 4, 16),
        ("x86-64-v2", 4, 16),
        ("x86-64-v3", 8, 16),
        ("x86-64-v4", 16, 32),
        ("aarch64-linux-gnu", 4, 32),
        ("riscv64-unknown-linux-gnu", 4, 16),
        ("wasm32-unknown-unknown", 4, 16),
    ],
)
def test_vectors(name, lanes, registers):
    target = resolve(name)
    assert (target.name, target.lanes, target.registers) == (name, lanes, registers)


@pytest.mark.parametrize(
    "name, largest, too_large",
    [
        ("x86-64", [(6, 2), (2, 4)], [(4, 3), (3, 4)]),
        ("x86-64-v3", [(4, 3), (6, 2)], [(3, 4), (5, 3)]),
        ("x86-64-v4", [(8, 3), (6, 4), (12, 2)], [(10, 3), (15, 2)]),
        ("aarch64-linux-gnu", [(8, 3)], [(10, 3)]),
    ],
)
def test_register_tiles_leave_room_for_operands(name, largest, too_large):
    target = resolve(name)
    assert all(target.holds(*tile) for tile in largest)
    assert not any(target.holds(*tile) for tile in too_large)


def test_the_host_is_itself():
    host = resolve("host")
    assert runs_here(host) and host is resolve("host") and host.cpu
    assert host.lanes in (4, 8, 16)


@pytest.mark.parametrize("name", ["x86-64-v9", "pdp11-dec-none", ""])
def test_unknown_names_are_refused_with_what_is_known(name):
    with pytest.raises(InputError, match="x86-64-v3"):
        resolve(name)


def test_every_target_has_a_key_of_its_own():
    assert len({resolve(name).key for name in X86_LEVELS}) == len(X86_LEVELS)


def test_foreign_code_is_compiled_but_not_loaded():
    kernel = Kernel("foreign", multiply_add)
    foreign = next(t for t in map(resolve, ("aarch64-linux-gnu", "x86-64")) if not runs_here(t))
    assert assembly(kernel, foreign)
    with pytest.raises(InputError, match="cannot run on this machine"):
        load([kernel], foreign)


@pytest.mark.parametrize(
    "name, there, absent",
    [
        ("x86-64", "xmm", "ymm"),
        ("x86-64-v3", "vfmadd.*ymm", "zmm"),
        ("x86-64-v4", "vfmadd.*zmm", "aarch"),
        ("aarch64-linux-gnu", "fmla.*4s", "xmm"),
    ],
)
def test_code_uses_the_vectors_of_its_target(name, there, absent):
    text = assembly(Kernel("multiply_add", multiply_add), resolve(name))
    assert re.search(there, text) and not re.search(absent, text)
