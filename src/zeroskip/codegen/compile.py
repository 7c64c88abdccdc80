"""From kernels to machine code: emit IR, compile what the disk cache lacks, load it into the process."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import llvmlite.binding as llvm

from zeroskip.codegen import cache as disk
from zeroskip.codegen.builder import Builder
from zeroskip.codegen.target import Target, resolve, runs_here
from zeroskip.errors import InputError, ZeroskipError


@dataclass(frozen=True)
class Kernel:
    """A kernel to be built: its name holds every parameter that its code depends on."""

    name: str
    emit: Callable[[Builder], None] = field(compare=False)

    def text(self, target: Target) -> str:
        """The LLVM IR of this kernel for `target`."""
        builder = Builder(self.name, target)
        self.emit(builder)
        return builder.text()


_loaded: dict[tuple[str, str], int] = {}
_coming: dict[tuple[str, str], Future[bytes]] = {}
_keep_alive: list[object] = []
_lock = threading.Lock()


def begin(kernels: Iterable[Kernel], target: Target) -> None:
    """Have kernels compiled in the background, to be loaded later: LLVM works beside Python, in one thread.

    Writing a kernel's IR takes Python about as long as compiling it takes LLVM, so one thread is enough.
    """
    with _lock:
        for kernel in kernels:
            key = (target.key, kernel.name)
            if key in _loaded or key in _coming:
                continue
            body = disk.read(disk.key(kernel.name, target))
            if body is not None:
                _loaded[key] = _link(kernel.name, body)
            else:
                _coming[key] = _background().submit(compile_text, _text(kernel, target), target)


def load(kernels: Iterable[Kernel], target: Target) -> dict[str, int]:
    """The address of each kernel's function, compiled for `target` where no cache has it.

    Raises `InputError` where this machine cannot execute the target's code.
    """
    if not runs_here(target):
        raise InputError(f"target {target.name!r} cannot run on this machine ({resolve().cpu}); use 'host'")
    wanted = {kernel.name: kernel for kernel in kernels}
    begin(wanted.values(), target)
    with _lock:
        for name in wanted:
            coming = _coming.pop((target.key, name), None)
            if coming is not None:
                body = coming.result()
                disk.write(disk.key(name, target), body)
                _loaded[target.key, name] = _link(name, body)
    return {name: _loaded[target.key, name] for name in wanted}


@contextmanager
def uncollected() -> Iterator[None]:
    """Meanwhile nobody looks for dead objects, where many are made that live (7 % of an opening)."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class _Turns:
    """How long a thread keeps Python's lock: a tenth as long as usual while any session asks for it."""

    def __init__(self) -> None:
        self._lock, self._askers, self._usual = threading.Lock(), 0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._askers:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(self._usual / 10)
            self._askers += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._askers -= 1
            if not self._askers:
                sys.setswitchinterval(self._usual)


short_turns = _Turns()
"""A context in which LLVM's thread waits less for Python, to which it comes back a dozen times in each kernel
(a sixth of a cold opening)."""


def _text(kernel: Kernel, target: Target) -> str:
    """The kernel's IR; it would take 40 % longer otherwise."""
    with uncollected():
        text = kernel.text(target)
        gc.collect(0)  # its parts are full of cycles
    return text


@cache
def _background() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "zeroskip-compile")


def _forget_background() -> None:
    """A forked child has no thread of its parent's."""
    _background.cache_clear()
    _coming.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_background)


@cache
def _machine(target: Target, position_independent: bool) -> llvm.TargetMachine:
    reloc = "pic" if position_independent else "default"
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc=reloc, codemodel="default"
    )


def _optimised(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    try:
        module = llvm.parse_assembly(text, context=llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise ZeroskipError(f"generated code is not valid LLVM IR: {error}\n{text}") from error
    # Kernels say themselves what is unrolled, what is a vector, and what is done before a loop. These passes
    # take a twentieth of the time of LLVM's second level; what they make runs as fast (five networks, 1 %).
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return module


def compile_text(text: str, target: Target, position_independent: bool = True) -> bytes:
    """Compile LLVM IR into an object file's bytes."""
    machine = _machine(target, position_independent)
    return bytes(machine.emit_object(_optimised(text, machine)))


def assembly(kernel: Kernel, target: Target) -> str:
    """The kernel's machine code as assembly text."""
    machine = _machine(target, True)
    return str(machine.emit_assembly(_optimised(kernel.text(target), machine)))


@cache
def _jit() -> llvm.LLJIT:
    resolve()
    return llvm.create_lljit_compiler()


def _link(name: str, body: bytes) -> int:
    library = llvm.JITLibraryBuilder().add_object_img(body).add_current_process().export_symbol(name)
    tracker = library.link(_jit(), f"{name}.{len(_keep_alive)}")
    _keep_alive.append(tracker)
    return int(tracker[name])
