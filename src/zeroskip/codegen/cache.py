"""Compiled objects kept on disk, so that a network opens without compiling a second time.

One file per kernel, named by the digest of its IR, its target and LLVM's version; the file begins with the
digest of its content, so a damaged one is noticed, dropped and made again.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import llvmlite.binding as llvm
import platformdirs

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


def key(text: str, target: Target) -> str:
    """The name of the object compiled from this IR for this target by this LLVM."""
    return hashlib.sha256(f"{llvm_version()}\n{target.key}\n{text}".encode()).hexdigest()


def read(name: str) -> bytes | None:
    """The cached object, or None where there is none that is whole."""
    path = object_directory() / f"{name}.o"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(f"compiled kernels in {path.parent} cannot be read ({error}); compiling anew")
        return None
    digest, body = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        _warn(f"compiled kernel {path} is damaged; compiling it anew")
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
        _warn(f"compiled kernels cannot be kept in {directory} ({error}); {hint}")


def _warn(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, CacheWarning, stacklevel=3)
