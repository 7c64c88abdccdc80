"""The tuning store: what was measured, or else predicted, for a layer on this CPU, remembered in SQLite."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from zeroskip.codegen import Target
from zeroskip.codegen.cache import cache_directory, generator_digest
from zeroskip.engine.plan import Candidate
from zeroskip.errors import CacheWarning

_SCHEMA = """
CREATE TABLE IF NOT EXISTS choices (
    key TEXT PRIMARY KEY,
    candidates TEXT NOT NULL
)"""
_BUSY_SECONDS = 10
_FIELDS = tuple(field.name for field in fields(Candidate))


@dataclass(frozen=True)
class LayerKey:
    """What a measurement depends on."""

    cpu: str
    target: str
    threads: int
    signature: str
    digest: str

    @property
    def text(self) -> str:
        """The key as one string; the kernels' sources are part of it, for other kernels have other times."""
        kernels = generator_digest()[:12]
        return "|".join([kernels, self.cpu, self.target, str(self.threads), self.signature, self.digest])


Remembered = dict[LayerKey, tuple[Candidate, ...]]


def unfinished(key: LayerKey) -> LayerKey:
    """What a layer's measurements are remembered under until none is missing."""
    return replace(key, signature=f"{key.signature} unfinished")


def predicted(key: LayerKey) -> LayerKey:
    """What a layer's predictions are remembered under: a sixth of a warm opening."""
    return replace(key, signature=f"{key.signature} predicted")


def store_path() -> Path:
    """Where the store is."""
    return cache_directory() / "tuning.sqlite"


def layer_key(target: Target, threads: int, signature: str, digest: str) -> LayerKey:
    """The key of a layer for this target and number of threads."""
    return LayerKey(target.cpu, target.key, threads, signature, digest)


def read(keys: Iterable[LayerKey]) -> Remembered:
    """Remembered candidates, measured ones fastest first; a damaged store is put aside and begun anew."""
    path = store_path()
    if not path.exists():
        return {}
    found: Remembered = {}
    try:
        with closing(_connect(path)) as connection:
            for key in keys:
                row = connection.execute(
                    "SELECT candidates FROM choices WHERE key = ?", (key.text,)
                ).fetchone()
                entries = json.loads(row[0]) if row is not None else ()
                if entries:
                    found[key] = tuple(Candidate(**entry) for entry in entries)
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such table"):  # another process has just begun it
            return {}
        _warn(f"the tuning store {path} cannot be read ({error}); layers are tuned anew")
    except (sqlite3.DatabaseError, ValueError, TypeError) as error:
        _warn(
            f"the tuning store {path} is damaged ({error}); "
            f"it was moved to {path}.damaged, layers are tuned anew"
        )
        _put_aside(path)
        return {}
    return found


def write(choices: Remembered) -> None:
    """Remember candidates, or forget a layer that has none.

    A store that cannot be written costs the next session its tuning time.
    """
    if not choices:
        return
    path = store_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(path)) as connection, connection:
            connection.execute(_SCHEMA)
            rows = [(key.text, json.dumps([_entry(c) for c in found])) for key, found in choices.items()]
            connection.executemany("INSERT OR REPLACE INTO choices VALUES (?, ?)", rows)
            connection.execute("DELETE FROM choices WHERE candidates = '[]'")
    except (sqlite3.Error, OSError) as error:
        _warn(
            f"the tuning store {path} cannot be written ({error}); "
            "set ZEROSKIP_CACHE_DIR to a writable folder"
        )


def _entry(candidate: Candidate) -> dict[str, object]:
    return {name: getattr(candidate, name) for name in _FIELDS}  # `asdict` takes ten times as long


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_SECONDS)


def _put_aside(path: Path) -> None:
    with suppress(OSError):  # the next write will say that the store cannot be written
        path.replace(path.with_name(path.name + ".damaged"))


def _warn(message: str) -> None:
    warnings.warn(message, CacheWarning, stacklevel=3)
