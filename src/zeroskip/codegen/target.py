"""The machine that kernels are compiled for: a triple, a CPU, and what that CPU's vectors look like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

from zeroskip.errors import InputError

SECOND_CACHE = 1 << 20
"""Bytes that are taken to stay near one core."""
X86_LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")
_LEVEL_NEEDS = {"x86-64-v2": "sse4.2", "x86-64-v3": "avx2", "x86-64-v4": "avx512bw"}


@dataclass(frozen=True)
class Target:
    """What the code generator knows of a machine.

    `lanes` is the number of float32 values in the widest vector worth using, `registers` how many such
    vectors there are.
    """

    name: str
    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int

    @property
    def key(self) -> str:
        """Everything that changes the code generated for this target."""
        return f"{self.triple}/{self.cpu}/{self.features}/{self.lanes}"

    @property
    def fused(self) -> bool:
        """Whether one instruction multiplies and adds: of x86's, those with vectors of 8 floats or more."""
        return self.lanes > 4 or not self.triple.startswith(("x86_64", "i386", "i686", "wasm"))

    @property
    def looks_up(self) -> bool:
        """Whether one instruction picks the floats of a vector from two others: AVX-512's does."""
        return self.lanes == 16

    def holds(self, mr: int, nv: int) -> bool:
        """Whether MR x NV sums, NV vectors and a factor fit the registers, and a product that is not fused.

        Without the latter a tile of 4 x 3 on sixteen registers runs at 31 GFLOP/s, one of 2 x 4 at 48.
        """
        return mr * nv + nv + (1 if self.fused else 2) <= self.registers


@cache
def _initialise_llvm() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()


@cache
def host_features() -> frozenset[str]:
    """The CPU features of this machine, by LLVM's names."""
    return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)


def _vectors(arch: str, features: frozenset[str]) -> tuple[int, int]:
    if arch in ("x86_64", "i386", "i686"):
        if {"avx512f", "avx512vl", "avx512bw"} <= features:
            return 16, 32
        return (8, 16) if "avx2" in features else (4, 16)
    return (4, 32) if arch in ("aarch64", "arm64", "arm64e") else (4, 16)


@cache
def resolve(name: str = "host") -> Target:
    """The target called `name`: ``"host"``, an x86-64 level such as ``"x86-64-v3"``, or an LLVM triple.

    Raises `InputError` for a name that LLVM does not know, or for a level this machine cannot run.
    """
    _initialise_llvm()
    host_triple = llvm.get_process_triple()
    arch = host_triple.split("-")[0]
    if name == "host":
        lanes, registers = _vectors(arch, host_features())
        return Target(
            "host",
            host_triple,
            llvm.get_host_cpu_name(),
            llvm.get_host_cpu_features().flatten(),
            lanes,
            registers,
        )
    if name in X86_LEVELS:
        triple = host_triple if arch == "x86_64" else "x86_64-unknown-linux-gnu"
        lanes, registers = {"x86-64-v3": (8, 16), "x86-64-v4": (16, 32)}.get(name, (4, 16))
        return Target(name, triple, name, "", lanes, registers)
    try:
        llvm.Target.from_triple(name)
    except RuntimeError as error:
        levels = ", ".join(X86_LEVELS)
        raise InputError(
            f"target {name!r} is unknown; expected 'host', one of {levels}, or an LLVM triple"
        ) from error
    lanes, registers = _vectors(name.split("-")[0], frozenset())
    return Target(name, name, "", "", lanes, registers)


def runs_here(target: Target) -> bool:
    """Whether this machine can execute code compiled for `target`."""
    if target.name == "host":
        return True
    host_arch = llvm.get_process_triple().split("-")[0]
    if target.triple.split("-")[0] != host_arch:
        return False
    return target.name not in _LEVEL_NEEDS or _LEVEL_NEEDS[target.name] in host_features()
