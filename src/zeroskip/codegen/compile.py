"""From kernels to machine code: emit IR, compile what the disk cache lacks, load it into the process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

import llvmlite.binding as llvm

from zeroskip.codegen import cache as disk
from zeroskip.codegen.builder import Builder
from zeroskip.codegen.target import Target, resolve, runs_here
from zeroskip.errors import InputError, ZeroskipError

# Starting a helper process costs about as much as compiling this many kernels (0.25 s against 25 ms each).
KERNELS_PER_HELPER = 12


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
_keep_alive: list[object] = []
_lock = threading.Lock()


def load(kernels: Iterable[Kernel], target: Target) -> dict[str, int]:
    """The address of each kernel's function, compiled for `target` where no cache has it.

    Raises `InputError` where this machine cannot execute the target's code.
    """
    if not runs_here(target):
        raise InputError(f"target {target.name!r} cannot run on this machine ({resolve().cpu}); use 'host'")
    wanted = {kernel.name: kernel for kernel in kernels}
    with _lock:
        missing = [kernel for name, kernel in wanted.items() if (target.key, name) not in _loaded]
        for name, body in _objects(missing, target).items():
            _loaded[target.key, name] = _link(name, body)
    return {name: _loaded[target.key, name] for name in wanted}


def _objects(kernels: list[Kernel], target: Target) -> dict[str, bytes]:
    keys = {kernel.name: disk.key(kernel.name, target) for kernel in kernels}
    found = {name: body for name in keys if (body := disk.read(keys[name])) is not None}
    texts = _texts([kernel for kernel in kernels if kernel.name not in found], target)
    for name, body in _compile_all(list(texts.values()), list(texts), target).items():
        disk.write(keys[name], body)
        found[name] = body
    return found


def _texts(kernels: list[Kernel], target: Target) -> dict[str, str]:
    """The kernels' IR by name. While one is built, its many objects live: to look for dead ones took 40 %."""
    texts = {}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for kernel in kernels:
            texts[kernel.name] = kernel.text(target)
            gc.collect(0)  # it is made of cycles
    finally:
        if collecting:
            gc.enable()
    return texts


def _compile_all(texts: list[str], names: list[str], target: Target) -> dict[str, bytes]:
    """Compile here and, when there is enough to do, in helper processes (LLVM's binding holds one lock)."""
    helpers = min((os.cpu_count() or 1) - 1, len(texts) // KERNELS_PER_HELPER)
    shares = [list(range(start, len(texts), helpers + 1)) for start in range(helpers + 1)]
    running = [(share, _start_helper([texts[i] for i in share], target)) for share in shares[1:]]
    bodies = {names[i]: compile_text(texts[i], target) for i in shares[0]}
    for share, helper in running:
        bodies |= {names[i]: body for i, body in zip(share, _collect(helper, len(share)), strict=False)}
    return {
        name: bodies.get(name) or compile_text(text, target) for name, text in zip(names, texts, strict=True)
    }


def _start_helper(texts: list[str], target: Target) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "zeroskip.codegen.helper", target.name]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    helper = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert helper.stdin is not None
    message = b"".join(len(text.encode()).to_bytes(8, "little") + text.encode() for text in texts)
    threading.Thread(target=_feed, args=(helper, message), daemon=True).start()
    return helper


def _feed(helper: subprocess.Popen[bytes], message: bytes) -> None:
    assert helper.stdin is not None
    try:
        helper.stdin.write(message)
        helper.stdin.close()
    except OSError:
        pass  # the helper died: what it did not send back is compiled here


def _collect(helper: subprocess.Popen[bytes], count: int) -> list[bytes]:
    """The objects a helper sent back; fewer than `count` where it failed."""
    assert helper.stdout is not None
    with helper.stdout:
        output = helper.stdout.read()
    helper.wait()
    bodies = list(split_messages(output))
    return bodies[:count]


def split_messages(stream: bytes) -> Iterable[bytes]:
    """The length-prefixed messages in `stream`; a truncated last one is dropped."""
    at = 0
    while at + 8 <= len(stream):
        size = int.from_bytes(stream[at : at + 8], "little")
        if at + 8 + size > len(stream):
            return
        yield stream[at + 8 : at + 8 + size]
        at += 8 + size


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
