"""Deep Compression's storage of shared weights: a codebook; per non-zero a short code and a relative index.

For arrays whose non-zeros take few distinct values (the lossy step, clustering, belongs to
`zeroskip.compress`). Positions are k-bit distances over the whole array in C order (`relative`); a distance
that is too long stores a placeholder, for which the codebook then has a zero. ``huffman=True`` codes both
streams with Huffman's code.
"""

from __future__ import annotations

import numpy as np

from zeroskip.encodings import huffman as hf
from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, Kind
from zeroskip.encodings.relative import to_positions, to_runs
from zeroskip.errors import InputError


def encode(array: Array, *, run_bits: int = 4, code_bits: int = 0, huffman: bool = False) -> Draft:
    """Codebook, codes and runs. `code_bits` 0 takes as few bits as the codebook needs."""
    flat = array.reshape(-1)
    at = np.flatnonzero(flat)
    runs, values, _ = to_runs(flat[at], np.zeros_like(at), at, 1, run_bits)
    patterns, codes = np.unique(values.view(f"u{values.dtype.itemsize}"), return_inverse=True)
    needed = max(1, int(patterns.size - 1).bit_length())
    if not isinstance(code_bits, int | np.integer) or code_bits < 0 or 0 < code_bits < needed:
        raise InputError(
            f"encoding 'shared_weights': {patterns.size} distinct values need {needed} code_bits, "
            f"got {code_bits!r}; cluster the weights to fewer values first, or give more bits"
        )
    parts: dict[str, tuple[Kind, Array]] = {"codebook": ("value", patterns.view(array.dtype))}
    if huffman:
        parts["entries"] = ("pointer", np.array([runs.size]))
        parts |= _entropy_code("code", codes.reshape(-1))
        parts |= _entropy_code("run", runs)
    else:
        parts["codes"] = (int(code_bits) or needed, codes.reshape(-1))
        parts["runs"] = (int(run_bits), runs)
    return Draft(parts, {"run_bits": run_bits, "code_bits": int(code_bits) or needed, "huffman": huffman})


def decode(encoded: Encoded) -> Array:
    """Each code's value after its run of zeros."""
    out = np.zeros(encoded.shape, encoded.dtype)
    codes, runs = encoded["codes"], encoded["runs"]
    if encoded.options["huffman"]:
        count = int(encoded["entries"][0])
        codes = hf.read(codes, encoded["code_lengths"], count)
        runs = hf.read(runs, encoded["run_lengths"], count)
    _, position = to_positions(runs, np.array([runs.size]))
    out.reshape(-1)[position] = encoded["codebook"][codes]
    return out


def _entropy_code(name: str, symbols: Array) -> dict[str, tuple[Kind, Array]]:
    lengths = hf.code_lengths(np.bincount(symbols))
    return {f"{name}_lengths": (hf.LENGTH_BITS, lengths), f"{name}s": (1, hf.write(symbols, lengths))}


ENCODING = Encoding(
    name="shared_weights",
    description="codebook, and a short code and a relative index per non-zero (Deep Compression)",
    words="codebook, and nnz + placeholders codes and runs, packed",
    source="Han, Mao, Dally (Deep Compression), ICLR 2016",
    encode=encode,
    decode=decode,
)
