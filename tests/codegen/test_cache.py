"""The cache of objects: found again, damaged, unwritable; it costs time at worst."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from zeroskip.codegen import cache, resolve
from zeroskip.codegen import compile as compiler
from zeroskip.errors import CacheWarning


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A cache of its own for each test, which may warn again."""
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_warned", set())


@pytest.fixture
def compiled(monkeypatch):
    """How many kernels LLVM compiled so far."""
    seen: list[str] = []
    real = compiler.compile_text

    def counting(text, *rest):
        seen.append(text)
        return real(text, *rest)

    monkeypatch.setattr(compiler, "compile_text", counting)
    return seen


def answer(b):
    b.store_i64(b.int(42), b.pointer(0))


def run_anew(host, kernel):
    """As another process would: nothing is loaded yet."""
    compiler._loaded.pop((host.target.key, kernel.name), None)
    out = np.zeros(1, np.int64)
    host.call(kernel, out)
    assert out[0] == 42


def only_object():
    (path,) = cache.object_directory().glob("*.o")
    return path


def test_what_was_compiled_is_not_compiled_again(host, compiled):
    kernel = host.kernel(answer)
    run_anew(host, kernel)
    run_anew(host, kernel)
    assert len(compiled) == 1 and only_object().stem == cache.key(kernel.name, host.target)


@pytest.mark.parametrize("damage", ["changed", "cut", "empty"])
def test_a_damaged_object_is_made_again(host, compiled, damage):
    kernel = host.kernel(answer)
    run_anew(host, kernel)
    path = only_object()
    whole = path.read_bytes()
    path.write_bytes({"changed": whole[:-9] + b"x" + whole[-8:], "cut": whole[:100], "empty": b""}[damage])
    with pytest.warns(CacheWarning, match="damaged"):
        run_anew(host, kernel)
    assert len(compiled) == 2 and path.read_bytes() == whole
    run_anew(host, kernel)
    assert len(compiled) == 2


@pytest.mark.filterwarnings("ignore:compiled kernels in .* cannot be read")
def test_a_folder_that_cannot_be_made_is_said_once(host, compiled, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.warns(CacheWarning, match="ZEROSKIP_CACHE_DIR") as caught:
        run_anew(host, host.kernel(answer))
        run_anew(host, host.kernel(answer))
    assert len([w for w in caught if "kept" in str(w.message)]) == 1 and len(compiled) == 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights(host):
    cache.object_directory().mkdir(parents=True)
    cache.object_directory().chmod(0o500)
    with pytest.warns(CacheWarning, match="cannot be kept"):
        run_anew(host, host.kernel(answer))


def test_an_object_that_cannot_be_read(host, compiled):
    kernel = host.kernel(answer)
    (cache.object_directory() / f"{cache.key(kernel.name, host.target)}.o").mkdir(parents=True)
    with pytest.warns(CacheWarning):
        run_anew(host, kernel)
    assert len(compiled) == 1


def test_keys_tell_names_and_targets_apart():
    targets = [resolve(name) for name in ("x86-64", "x86-64-v3")]
    keys = {cache.key(name, target) for name in ("a", "b") for target in targets}
    assert len(keys) == 4


def test_no_temporary_files_stay(host):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_anew(host, host.kernel(answer))
    assert [path.suffix for path in cache.object_directory().iterdir()] == [".o"]


def test_processes_share_a_cache_they_fill_at_once():
    code = (
        "import numpy as np, zeroskip as zs\n"
        "x, w = np.ones((1, 4, 9, 9), np.float32), np.ones((5, 4, 3, 3), np.float32)\n"
        "for name in ('direct', 'im2col', 'mec'):\n"
        "    assert (zs.conv2d(x, w, algorithm=name) == 36).all()\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert {path.suffix for path in cache.object_directory().iterdir()} == {".o"}
