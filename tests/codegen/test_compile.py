"""From text to code: one at a time, many in helper processes, and what goes wrong on the way."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from zeroskip.codegen import assembly, load, resolve
from zeroskip.codegen import compile as compiler
from zeroskip.codegen.compile import compile_text, split_messages
from zeroskip.errors import ZeroskipError


def constant(value):
    return lambda b: b.store_i64(b.int(value), b.pointer(0))


def results(host, kernels):
    out = np.zeros(1, np.int64)
    found = []
    for kernel in kernels:
        host.call(kernel, out)
        found.append(int(out[0]))
    return found


def test_a_kernel_is_loaded_once(host):
    kernel = host.kernel(constant(1))
    assert load([kernel], host.target) == load([kernel], host.target)


def test_objects_are_of_the_targets_machine():
    kernel_text = 'target triple = "{}"\ndefine void @f() {{\n ret void\n}}\n'
    machines = {"x86-64": 62, "aarch64-linux-gnu": 183, "riscv64-unknown-linux-gnu": 243}
    for name, number in machines.items():
        target = resolve(name)
        body = compile_text(kernel_text.format(target.triple), target)
        if "linux" in target.triple:
            assert body[:4] == b"\x7fELF" and int.from_bytes(body[18:20], "little") == number


def test_invalid_code_is_shown():
    with pytest.raises(ZeroskipError, match="not valid LLVM IR") as caught:
        compile_text("define void @f() { ret i32 0 }", resolve("host"))
    assert "@f" in str(caught.value)


def test_assembly_names_the_kernel(host):
    assert "ret" in assembly(host.kernel(constant(3), "three"), host.target)
    assert "three" in assembly(host.kernel(constant(3), "three"), host.target)


@pytest.fixture
def helped(monkeypatch):
    """As if there were three processors and helpers were cheap; how many were started."""
    started = []
    real = compiler._start_helper

    def counting(texts, target):
        started.append(len(texts))
        return real(texts, target)

    monkeypatch.setattr(compiler, "KERNELS_PER_HELPER", 2)
    monkeypatch.setattr(compiler.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(compiler, "_start_helper", counting)
    return started


def test_many_kernels_share_helpers(host, helped):
    kernels = [host.kernel(constant(100 + i)) for i in range(7)]
    load(kernels, host.target)
    assert helped == [2, 2]
    assert results(host, kernels) == list(range(100, 107))


@pytest.mark.parametrize("failure", ["dies", "stops half-way", "talks nonsense"])
def test_helpers_that_fail_are_made_up_for(host, helped, monkeypatch, failure):
    real = subprocess.Popen
    code = {
        "dies": "raise SystemExit(3)",
        "stops half-way": "import os; os.write(1, (5).to_bytes(8, 'little') + b'abc')",
        "talks nonsense": "import os; os.write(1, b'?' * 7)",
    }[failure]

    def broken(command, **options):
        assert command[1:3] == ["-m", "zeroskip.codegen.helper"]
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(compiler.subprocess, "Popen", broken)
    kernels = [host.kernel(constant(200 + i)) for i in range(6)]
    assert results(host, kernels) == list(range(200, 206))
    load(kernels, host.target)


def test_messages_are_whole_or_dropped():
    stream = b"".join(len(m).to_bytes(8, "little") + m for m in (b"one", b"", b"three"))
    assert list(split_messages(stream)) == [b"one", b"", b"three"]
    for cut in range(1, 8 + 5):
        assert list(split_messages(stream[:-cut])) == [b"one", b""]


def test_several_threads_load_the_same_kernels(host):
    kernels = [host.kernel(constant(300 + i)) for i in range(4)]
    addresses = []
    threads = [
        threading.Thread(target=lambda: addresses.append(load(kernels, host.target))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(addresses) == 4 and all(found == addresses[0] for found in addresses)
