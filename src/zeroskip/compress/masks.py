"""Which weights stay: from scores and a number of zeros to masks, of weights or blocks of channels."""

from __future__ import annotations

import numpy as np

from zeroskip.graph.operator import Array


def zeros_for(sparsity: float, size: int) -> int:
    """The number of zeros nearest to that share of `size` weights."""
    return int(np.floor(sparsity * size + 0.5))


def keep_mask(scores: Array, zeros: int, block: int) -> Array:
    """Which weights of one layer stay, bool ``[G, K/G, D]``: all but `zeros` of the lowest scores.

    A block is `block` neighbouring output channels of one group at one tap, and stays or goes as one; its
    score is the mean of its weights'. As many of the lowest blocks go as fit into `zeros`, which with single
    weights is exactly `zeros`. The last block of a group is smaller where `block` does not divide K/G.
    """
    return keep_masks([scores], zeros, block)[0]


def keep_masks(scores: list[Array], zeros: int, block: int) -> list[Array]:
    """`keep_mask` with one threshold over several layers."""
    means = [_block_means(score, block) for score in scores]
    sizes = [np.broadcast_to(_block_sizes(score.shape[1], block)[:, np.newaxis], mean.shape[1:])
             for score, mean in zip(scores, means, strict=True)]  # fmt: skip
    flat = np.concatenate([mean.reshape(-1) for mean in means])
    weights = np.concatenate(
        [np.broadcast_to(size, mean.shape).reshape(-1) for size, mean in zip(sizes, means, strict=True)]
    )
    order = np.argsort(flat, kind="stable")  # ties go by position, so that masks repeat
    gone = order[: int(np.searchsorted(np.cumsum(weights[order]), zeros, side="right"))]
    keep = np.ones(flat.shape, dtype=bool)
    keep[gone] = False
    masks, start = [], 0
    for score, mean in zip(scores, means, strict=True):
        part = keep[start : start + mean.size].reshape(mean.shape)
        masks.append(np.repeat(part, _block_sizes(score.shape[1], block), axis=1))
        start += mean.size
    return masks


def _block_sizes(channels: int, block: int) -> Array:
    starts = np.arange(0, channels, block)
    return np.minimum(block, channels - starts)


def _block_means(scores: Array, block: int) -> Array:
    if block == 1:
        return scores
    channels = scores.shape[1]
    sums = np.add.reduceat(scores, np.arange(0, channels, block), axis=1)
    return sums / _block_sizes(channels, block)[:, np.newaxis]
