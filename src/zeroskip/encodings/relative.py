"""Positions as k-bit distances, with a stored zero where a distance is too long: for the run-length formats.

An entry ``(run, value)`` means *skip `run` zeros, then comes `value`*. A gap of ``2^k`` zeros or more
stores placeholder entries ``(2^k - 1, 0)``, each of which covers ``2^k`` zeros; so a non-zero after `gap`
zeros costs ``1 + floor(gap / 2^k)`` entries. Positions restart in each segment. Zeros after the last
non-zero of a segment are not stored.
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings.base import Array
from zeroskip.errors import InputError


def to_runs(
    values: Array, segment: Array, position: Array, segments: int, run_bits: int
) -> tuple[Array, Array, Array]:
    """Runs, values with placeholders, entries per segment; of non-zeros sorted by segment and position."""
    if not isinstance(run_bits, int | np.integer) or not 1 <= run_bits <= 31:
        raise InputError(f"run_bits must be a number from 1 to 31, got {run_bits!r}")
    previous = np.full(position.size, -1, np.int64)
    previous[1:] = np.where(segment[1:] == segment[:-1], position[:-1], -1)
    gap = position - previous - 1
    entries = 1 + (gap >> run_bits)
    last = np.cumsum(entries) - 1
    longest = (1 << run_bits) - 1
    runs = np.full(int(entries.sum()), longest, np.int64)
    stored = np.zeros(runs.size, values.dtype)
    runs[last] = gap & longest
    stored[last] = values
    counts = np.zeros(segments, np.int64)
    np.add.at(counts, segment, entries)
    return runs, stored, counts


def to_positions(runs: Array, counts: Array) -> tuple[Array, Array]:
    """Segment and position of every entry (placeholders too): the inverse of `to_runs`."""
    segment = np.repeat(np.arange(counts.size), counts)
    travelled = np.concatenate([[0], np.cumsum(runs.astype(np.int64) + 1)])
    start = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])[:-1]
    return segment, travelled[1:] - travelled[start][segment] - 1
