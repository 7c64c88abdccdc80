"""Compiled objects kept on disk, so that a network opens without compiling a second time.

One file per kernel, named by the digest of what determines it: its name, which holds every parameter, the
source files of the kernel generators, the target, LLVM's version. (Not by its IR: to make that takes longer
than all else when a session opens.) The file begins with the digest of its content, so a damaged one is
noticed and made again.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import platformdirs

from zeroskip import __version__
from zeroskip.codegen.target import Target
from zeroskip.errors import CacheWarning, InputError
from zeroskip.files import write_bytes

_DIGEST = 32
_warned: set[str] = set()


def cache_directory() -> Path:
    """Where caches live: ``ZEROSKIP_CACHE_DIR``, or the platform's place for caches."""
    return Path(
        os.environ.get("ZEROSKIP_CACHE_DIR") or platformdirs.user_cache_dir("zeroskip", appauthor=False)
    )


def object_directory() -> Path:
    """Where compiled objects live."""
    return cache_directory() / "objects"


def llvm_version() -> str:
    """The LLVM inside llvmlite, such as ``"20.1.8"``."""
    return ".".join(map(str, llvm.llvm_version_info))


@cache
def generator_digest() -> str:
    """A digest of the source files that kernels come from; of the version where the sources are not there."""
    digest = hashlib.sha256(__version__.encode())
    package = Path(__file__).parent.parent
    for room in ("codegen", "conv", "ops", "bench"):
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def key(name: str, target: Target) -> str:
    """The file name of the kernel called `name`, compiled for this target by this LLVM."""
    text = f"{name}\n{generator_digest()}\n{llvm_version()}\n{target.key}"
    return hashlib.sha256(text.encode()).hexdigest()


def read(name: str) -> bytes | None:
    """The cached object, or None where there is none that is whole."""
    path = object_directory() / f"{name}.o"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(f"compiled kernels in {path.parent} cannot be read ({error.strerror}); compiling anew")
        return None
    digest, body = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        _warn(f"compiled kernels in {path.parent} are damaged; compiling them anew")
        return None
    return body


def write(name: str, body: bytes) -> None:
    """Keep an object; a cache that cannot be written costs time, not correctness."""
    directory = object_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_bytes(directory / f"{name}.o", hashlib.sha256(body).digest() + body)
    except (OSError, InputError) as error:
        hint = "set ZEROSKIP_CACHE_DIR to a writable folder"
        _warn(f"compiled kernels cannot be kept in {directory} ({_reason(error)}); {hint}")


def _reason(error: OSError | InputError) -> str:
    """Why, without the name of the one file in question."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or str(error)


def _warn(message: str) -> None:
    """Say once what is so for all kernels."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, CacheWarning, stacklevel=3)
