"""Run-length coding: how many zeros, then the value; a run too long for its k bits stores a zero value.

- Eyeriss: ``run_bits=5, value_bits=16, pairs_per_word=3``: three (run, level) pairs and one last-word flag
  fill 64 bits.
- SCNN: ``run_bits=4, value_bits=16, segment=...``: each block of weights (output-channel group x one input
  channel) or tile of activations is coded apart, its entries counted in front.
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, Kind
from zeroskip.encodings.relative import to_positions, to_runs
from zeroskip.errors import InputError


def encode(array: Array, *, run_bits: int = 4, segment: int = 0, pairs_per_word: int = 0) -> Draft:
    """Runs and values in C order.

    `segment` > 0 codes that many elements at a time (the last segment may be shorter) and adds one entry
    count per segment. `pairs_per_word` > 0 fills the stream with zero pairs to whole words, each with a
    last-word flag.
    """
    for name, number in (("segment", segment), ("pairs_per_word", pairs_per_word)):
        if not isinstance(number, int | np.integer) or number < 0:
            raise InputError(
                f"encoding 'run_length': {name} must be 0 (none) or a positive number, got {number!r}"
            )
    flat = array.reshape(-1)
    length = segment or max(1, flat.size)
    at = np.flatnonzero(flat)
    segments = -(-flat.size // length)
    runs, values, counts = to_runs(flat[at], at // length, at % length, segments, run_bits)
    extra: dict[str, tuple[Kind, Array]] = {"counts": ("pointer", counts)} if segment else {}
    if pairs_per_word:
        words = -(-runs.size // pairs_per_word)
        fill = words * pairs_per_word - runs.size
        runs, values = np.pad(runs, (0, fill)), np.pad(values, (0, fill))
        extra["last"] = (1, np.arange(words) == words - 1)
    return Draft(
        {**extra, "runs": (int(run_bits), runs), "values": ("value", values)},
        {"run_bits": run_bits, "segment": segment, "pairs_per_word": pairs_per_word},
    )


def decode(encoded: Encoded) -> Array:
    """Each value after its run of zeros."""
    out = np.zeros(encoded.shape, encoded.dtype)
    segment, runs, values = encoded.options["segment"], encoded["runs"], encoded["values"]
    counts = encoded["counts"] if segment else np.array([runs.size])
    where, position = to_positions(runs[: counts.sum()], counts)
    position = where * segment + position
    kept = position < out.size  # the pairs that fill a word up lie beyond the end
    out.reshape(-1)[position[kept]] = values[: position.size][kept]
    return out


ENCODING = Encoding(
    name="run_length",
    description="k-bit run of zeros before each value",
    words="nnz + placeholders, and as many runs of k bits",
    source="Chen et al. (Eyeriss), JSSC 2017; Parashar et al. (SCNN), ISCA 2017",
    encode=encode,
    decode=decode,
)
