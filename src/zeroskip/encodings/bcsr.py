"""Blocks of consecutive rows (output channels) that share a column: one load of an activation serves them.

The rows of a group of `block` rows store a column whole, zeros included, where any of them is non-zero;
left-over rows are stored one by one. With ``block="auto"`` the block is chosen by the fill rule of
XNNPACK's subgraph rewriter: the largest block whose non-empty columns are at least 90 % full (3.6 of 4; 1.8
of 2), counted over the rows that full groups cover. Blocks of 8 (7.2 of 8) are our extension by the same 90
%; ``blocks=(4, 2)`` leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zeroskip.encodings.base import Array, Draft, Encoded, Encoding, matrix, pointers
from zeroskip.errors import InputError

BLOCKS = (8, 4, 2)


def encode(array: Array, *, block: int | str = "auto", blocks: Sequence[int] = BLOCKS) -> Draft:
    """Pointers (groups + left-over rows + 1), one column per block, `block` (or 1) values per column."""
    view = matrix(array)
    if block == "auto":
        block = choose_block(view, blocks)
    if not isinstance(block, int | np.integer) or not 1 <= block <= max(1, view.shape[0]):
        raise InputError(
            f"encoding 'bcsr': block must be 'auto' or from 1 to {view.shape[0]} rows, got {block!r}"
        )
    block = int(block)
    groups = view.shape[0] // block
    grouped = _grouped(view, block)
    group, columns = np.nonzero((grouped != 0).any(axis=1))
    rest = view[groups * block :]
    row, rest_columns = np.nonzero(rest)
    values = np.concatenate([grouped[group, :, columns].reshape(-1), rest[row, rest_columns]])
    values[values == 0] = 0  # -0.0 inside a block is a zero like any other
    counts = np.bincount(np.concatenate([group, groups + row]), minlength=groups + rest.shape[0])
    return Draft(
        {
            "pointers": ("pointer", pointers(counts)),
            "columns": ("index", np.concatenate([columns, rest_columns])),
            "values": ("value", values),
        },
        {"block": block},
    )


def decode(encoded: Encoded) -> Array:
    """Each block's values in its rows and column, 0 elsewhere."""
    out = np.zeros(encoded.shape, encoded.dtype)
    view, block = matrix(out), encoded.options["block"]
    groups = view.shape[0] // block
    ptr, columns, values = encoded["pointers"], encoded["columns"], encoded["values"]
    line = np.repeat(np.arange(ptr.size - 1), np.diff(ptr))
    inside = int(ptr[groups])
    rows = line[:inside, None] * block + np.arange(block)
    view[rows, columns[:inside, None]] = values[: inside * block].reshape(inside, block)
    view[groups * block + line[inside:] - groups, columns[inside:]] = values[inside * block :]
    return out


def choose_block(view: Array, blocks: Sequence[int] = BLOCKS) -> int:
    """The first of `blocks` whose non-empty blocks are on average at least 90 % full in `view`, or 1."""
    for block in blocks:
        stored, nonzeros = fill(view, block)
        if block <= view.shape[0] and 10 * nonzeros >= 9 * block * stored:
            return block
    return 1


def fill(view: Array, block: int) -> tuple[int, int]:
    """Non-empty blocks, and the non-zeros in them, over the full groups of `block` rows."""
    mask = _grouped(view, block) != 0
    return int(np.count_nonzero(mask.any(axis=1))), int(np.count_nonzero(mask))


def _grouped(view: Array, block: int) -> Array:
    groups = view.shape[0] // block
    return view[: groups * block].reshape(groups, block, view.shape[1])


ENCODING = Encoding(
    name="bcsr",
    description="compressed sparse rows in blocks of output channels",
    words="(block + 1) blocks + groups + left-over rows + 1 + 2 nnz of left-over rows",
    source="Elsen et al. 2020; block choice: XNNPACK",
    encode=encode,
    decode=decode,
)
