"""Files that are whole or not there: written under a temporary name, then moved into place."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zeroskip.errors import InputError


def checked_target(path: str | os.PathLike[str]) -> Path:
    """The file that `path` leads to, if it can be written; so that long work need not end in a refusal.

    Raises:
        InputError: `path` is a folder or a device, or its folder is missing or not writable.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "not a regular file"
        raise InputError(f"cannot write {path}: it is {kind}; name a file instead")
    if not target.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"cannot write {path}: the folder {target.parent} is not writable")
    return target


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is there at the end of the block takes the place of `path`.

    When the block raises (or the process is killed), `path` keeps its old content.

    Raises:
        InputError: `path` is a folder or a device, its folder is missing, or the disk refuses.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "out.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = checked_target(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` in one step: readers see the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write UTF-8 text to `path` in one step; see `write_bytes`."""
    write_bytes(path, content.encode())
