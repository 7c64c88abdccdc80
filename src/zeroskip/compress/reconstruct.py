"""Layer-wise least-squares reconstruction: fit the weights that stay, so that the layer answers as before.

For output channel k with kept taps S, inputs x of the *already pruned* network and outputs y of the
*original* one,

    minimise over w, b:  sum over positions (y - b - sum_{j in S} w_j x_j)^2  +  lambda |w - w0|^2

whose normal equations, with x and y centred on their means, are ``(A[S, S] + lambda I) w = B[S, k] + lambda
w0[S]`` for ``A = sum x x^T`` and ``B = sum x y^T``. A is gathered once per layer; channels with the same S
share one factorisation. Source: He, Zhang, Sun, Channel Pruning for Accelerating Very Deep Neural Networks
(2017), for the reconstruction from inputs of the pruned and outputs of the original network; the
restriction to single weights and the pull towards w0 are ours.

Time on one core of a server, for the largest convolution of ResNet-50 (3x3, 512 to 512 channels: D = 4608)
and 12 544 positions: 10 s at 90 % zeros, 112 s at 50 %, where each channel's system is 2304 wide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zeroskip.compress.layers import Layer, columns, output_positions
from zeroskip.compress.moments import Moments
from zeroskip.compress.walk import Walk
from zeroskip.graph.operator import Array

CHUNK_BYTES = 64 << 20
"""Unrolled inputs handled at a time (as float64)."""


@dataclass(frozen=True)
class Fit:
    """How to fit.

    `damping` is lambda as a share of the mean of A's diagonal. At most about `positions` output positions are
    gathered per layer, spread evenly over the images and drawn at random inside each by `seed`; ``None``
    takes 20 per unknown, at least 100 000.
    """

    damping: float = 1e-3
    positions: int | None = None
    seed: int = 0


def gather(
    layer: Layer, rows: Array, bias: Array, original: Walk, pruned: Walk, images: list[int], fit: Fit
) -> Moments:
    """The moments of `layer`: inputs from `pruned`, wanted outputs from `original`.

    ``rows`` and ``bias`` are the original's. Where the layer adds a residual, the sum is what is wanted, so
    that the layer makes up for what the residual lost. `images` are the batch lengths. Both walks must
    have reached the layer's input.
    """
    source = layer.node.input(0)
    depth = rows.shape[2]
    moments = Moments.empty(rows.shape[0], depth, rows.shape[1])
    limit = fit.positions or max(100_000, 20 * depth)
    per_image = max(1, round(limit / sum(images)))
    generator = np.random.default_rng(fit.seed)
    wanted_rows = rows.transpose(0, 2, 1).astype(np.float32)
    for batch in range(len(images)):
        inputs, wanted = pruned.value(source, batch), original.value(source, batch)
        for part, chosen in _parts(layer, inputs.shape, per_image, depth * rows.shape[0], generator):
            outputs = columns(layer, wanted[part], chosen) @ wanted_rows + bias[:, np.newaxis]
            if layer.residual:
                whole, left = (walk.value(layer.residual, batch)[part] for walk in (original, pruned))
                outputs += _picked(whole - left, chosen, len(rows))
            moments.add(columns(layer, inputs[part], chosen), outputs)
    return moments


def _parts(
    layer: Layer, shape: tuple[int, ...], per_image: int, numbers: int, generator: np.random.Generator
) -> Iterator[tuple[slice, Array | None]]:
    """Slices of a batch whose unrolled inputs fit into `CHUNK_BYTES`, each with its chosen positions."""
    available = output_positions(layer, shape)
    taken = min(available, per_image)
    step = max(1, CHUNK_BYTES // (8 * numbers * taken))
    for start in range(0, shape[0], step):
        part = slice(start, min(start + step, shape[0]))
        if taken == available:
            yield part, None
            continue
        noise = generator.random((part.stop - part.start, available), dtype=np.float32)
        yield part, np.argpartition(noise, taken, axis=1)[:, :taken]


def _picked(outputs: Array, chosen: Array | None, groups: int) -> Array:
    """``[n, K, ...]`` at the chosen positions, as ``[G, positions, K/G]``."""
    flat = outputs.reshape(*outputs.shape[:2], -1)
    if chosen is not None:
        flat = np.take_along_axis(flat, chosen[:, np.newaxis], 2)
    return (
        flat.reshape(len(flat), groups, -1, flat.shape[2])
        .transpose(1, 0, 3, 2)
        .reshape(groups, -1, outputs.shape[1] // groups)
    )


def normal_equations(rows: Array, moments: Moments, damping: float, centred: bool) -> tuple[Array, Array]:
    """``A + lambda I`` as ``[G, D, D]`` and ``B + lambda w0`` as ``[G, D, K/G]``, near to `rows`."""
    xx, xy = moments.xx.copy(), moments.xy.copy()
    if centred:
        mean = moments.x[:, :, np.newaxis] / moments.count
        xx -= mean * moments.x[:, np.newaxis]
        xy -= mean * moments.y[:, np.newaxis]
    strength = damping * np.einsum("gdd->g", xx) / xx.shape[1]
    strength = np.where(strength > 0, strength, 1.0)  # inputs that never change: the weights stay
    depth = np.arange(xx.shape[1])
    xx[:, depth, depth] += strength[:, np.newaxis]
    xy += strength[:, np.newaxis, np.newaxis] * rows.transpose(0, 2, 1)
    return xx, xy


def solve(mask: Array, moments: Moments, normal: tuple[Array, Array], fit_bias: bool) -> tuple[Array, Array]:
    """The best ``rows [G, K/G, D]`` (zero outside `mask`) and ``bias [G, K/G]``, in float64.

    `normal` are the normal equations, centred where `fit_bias`; otherwise the bias is zero.
    """
    fitted = np.zeros(mask.shape)
    for group, (xx, xy) in enumerate(zip(*normal, strict=True)):
        for channels, kept in _same_masks(mask[group]):
            answer = np.linalg.solve(xx[np.ix_(kept, kept)], xy[np.ix_(kept, channels)])
            fitted[group][np.ix_(channels, kept)] = answer.T
    if not fit_bias:
        return fitted, np.zeros(mask.shape[:2])
    bias: Array = (moments.y - np.einsum("gkd,gd->gk", fitted, moments.x)) / moments.count
    return fitted, bias


def _same_masks(mask: Array) -> Iterator[tuple[Array, Array]]:
    """Output channels that keep the same taps, with those taps; channels that keep none are left out."""
    packed = np.packbits(mask, axis=1)
    groups: dict[bytes, list[int]] = {}
    for channel, row in enumerate(packed):
        groups.setdefault(row.tobytes(), []).append(channel)
    for channels in groups.values():
        kept = np.flatnonzero(mask[channels[0]])
        if len(kept):
            yield np.asarray(channels), kept
