"""From text to code: now or in the background, and what goes wrong on the way."""

from __future__ import annotations

import gc
import os
import sys
import threading

import numpy as np
import pytest

from zeroskip.codegen import assembly, load, resolve
from zeroskip.codegen import compile as compiler
from zeroskip.codegen.compile import begin, compile_text, short_turns
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


def test_what_was_begun_is_loaded(host):
    kernels = [host.kernel(constant(100 + i)) for i in range(7)]
    begin(kernels[:5], host.target)
    begin(kernels[:5], host.target)
    assert results(host, kernels) == list(range(100, 107))
    assert not any((host.target.key, kernel.name) in compiler._coming for kernel in kernels)


def test_invalid_code_is_reported_where_it_is_loaded(host, monkeypatch):
    bad, good = host.kernel(constant(200)), host.kernel(constant(201))
    with monkeypatch.context() as patch:
        patch.setattr(compiler.Kernel, "text", lambda kernel, target: "define void @f() { ret i32 0 }")
        begin([bad], host.target)
    with pytest.raises(ZeroskipError, match="not valid LLVM IR"):
        load([bad], host.target)
    assert results(host, [good, bad]) == [201, 200], "later it is compiled anew"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_compiles_too(host):
    load([host.kernel(constant(400))], host.target)
    kernel = host.kernel(constant(401))
    child = os.fork()
    if child == 0:
        os._exit(0 if results(host, [kernel]) == [401] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_writing_kernels_leaves_the_garbage_collector_as_it_was(host):
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            load([host.kernel(constant(500 + enabled))], host.target)
            assert gc.isenabled() is enabled
        finally:
            gc.enable()


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


def test_turns_are_short_until_the_last_session_is_open():
    usual = sys.getswitchinterval()
    with short_turns:
        with short_turns:
            short = sys.getswitchinterval()
        assert sys.getswitchinterval() == short < usual / 5
    assert sys.getswitchinterval() == usual
