"""Exact memory, in words, of what convolution algorithms build from the activation map, and density bounds.

Formulas of Cho and Brand 2017 (im2col, MEC) and Amer et al. 2021 (the rest), symbols as in `strips`; one
word per value, index and pointer. Counts of non-zeros are of elements that some window reads, which is what
an encoder stores; where strides leave no remainder these are all elements, as in the papers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from zeroskip.encodings.base import Array
from zeroskip.encodings.registry import nearest
from zeroskip.encodings.strips import Pair, Strips, pair, strips_of
from zeroskip.errors import AlgorithmError, InputError

GROUP = 4
"""Rows of a CPS group."""


@dataclass(frozen=True)
class Census:
    """What the sizes depend on: non-zeros stored once, in the lowered map, and index words of CPS (P)."""

    nnz: int
    lowered: int
    index_words: int


def census(strips: Strips, x: Array | None) -> Census:
    """Count a padded map (C, H, W); without one, a map that has no zeros (the worst case)."""
    Ic, Ih, Iw = strips.Ic, strips.Ih, strips.Iw
    full, tail = divmod(Ih, GROUP)
    if x is None:
        per_column = np.full(Iw, Ic * Ih)
        words = np.full(Iw, Ic * (2 * full + min(tail, 2)))
    else:
        mask = x != 0
        per_column = np.count_nonzero(mask, axis=(0, 1))
        starts = np.arange(0, Ih, GROUP)
        groups = np.add.reduceat(
            mask, starts, axis=1, dtype=np.int64
        )  # non-zeros per channel, group and column
        words = np.minimum(groups, 2).sum(axis=(0, 1))
    read = strips.pattern >= 0
    return Census(
        nnz=int(per_column[read].sum()),
        lowered=int((per_column * (strips.pattern + 1))[read].sum()),
        index_words=int(words[read].sum()),
    )


def im2col_words(s: Strips) -> int:
    """Every window written out: Oh Ow Kh Kw Ic."""
    return s.Oh * s.Ow * s.Kh * s.Kw * s.Ic


def mec_words(s: Strips) -> int:
    """Lowered in width only: Ow Kw Ih Ic."""
    return s.Ow * s.Kw * s.Ih * s.Ic


def indirection_words(s: Strips) -> int:
    """A pointer for every output pixel and cell of the kernel: Oh Ow Kh Kw (Dukhan 2019)."""
    return s.Oh * s.Ow * s.Kh * s.Kw


def cscc_words(s: Strips, lowered: int) -> int:
    """CSR of the lowered map: Ow + 1 + 2 non-zeros of it."""
    return s.Ow + 1 + 2 * lowered


def cpo_words(s: Strips, nnz: int, *, short_npo: bool = False) -> int:
    """Each non-zero once: n (Ow + 1) + 2 nnz; `short_npo` is described at `pattern_pointers`."""
    return pattern_pointers(s, short_npo) + 2 * nnz


def cps_words(s: Strips, nnz: int, index_words: int, *, short_npo: bool = False) -> int:
    """CPO with folded indices: n (Ow + 1) + nnz + P, P = N1 + 2 (N2 + N3 + N4)."""
    return pattern_pointers(s, short_npo) + nnz + index_words


def pattern_pointers(s: Strips, short_npo: bool = False) -> int:
    """Pointer words: n (Ow + 1), or (n - 1)(Ow + 1) + min(Ow + 1, 3) where pattern 0 keeps three entries."""
    if short_npo and s.n > 1:
        return (s.n - 1) * (s.Ow + 1) + min(s.Ow + 1, 3)
    return s.n * (s.Ow + 1)


WORDS: dict[str, Callable[[Strips, Census], int]] = {
    "im2col": lambda s, count: im2col_words(s),
    "mec": lambda s, count: mec_words(s),
    "cscc": lambda s, count: cscc_words(s, count.lowered),
    "cpo": lambda s, count: cpo_words(s, count.nnz),
    "cps": lambda s, count: cps_words(s, count.nnz, count.index_words),
    "coo": lambda s, count: 3 * count.nnz,
    "sparse_tensor": lambda s, count: 3 * count.nnz,
    "indirect": lambda s, count: indirection_words(s),
    "direct": lambda s, count: 0,
    "channel_direct": lambda s, count: 0,
    "depthwise": lambda s, count: 0,
    "sparse_direct": lambda s, count: 0,
    "block_sparse": lambda s, count: 0,
    "dual_sparse": lambda s, count: 0,
}
"""Words for one image, by algorithm; the last five lower nothing."""


def conv_memory(
    algorithm: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    stride: Pair = 1,
    padding: int | tuple[int, ...] = 0,
    x: ArrayLike | None = None,
) -> int:
    """Words that `algorithm` needs for its lowered or encoded form of the input, over the whole batch.

    `x_shape` is (N, C, H, W) or (C, H, W), before padding; `w_shape` (K, C / groups, R, S); `padding` a
    number, a pair (height, width) or four (top, left, bottom, right). The size of the sparse forms depends
    on the map: give it as `x`, of shape `x_shape`; without it they are counted for a map without zeros,
    padding included, the worst case. Raises `AlgorithmError` for an unknown name, `InputError` for shapes
    that do not go together.

    >>> [conv_memory(name, (256, 12, 12), (512, 256, 3, 3)) for name in ("im2col", "mec")]
    [230400, 92160]
    """
    if algorithm not in WORDS:
        raise AlgorithmError(f"no lowering or encoding named {algorithm!r}; {nearest(algorithm, WORDS)}")
    strips, images = layer_strips(x_shape, w_shape, stride, padding)
    if x is None:
        return images * WORDS[algorithm](strips, census(strips, None))
    data = np.asarray(x)
    if data.shape != tuple(x_shape):
        raise InputError(f"x must have the shape x_shape = {tuple(x_shape)}, got {data.shape}")
    top, left, bottom, right = four_sided(padding)
    padded = np.pad(data.reshape(images, *data.shape[-3:]), ((0, 0), (0, 0), (top, bottom), (left, right)))
    return sum(WORDS[algorithm](strips, census(strips, image)) for image in padded)


def compression_ratio(algorithm: str, s: Strips, count: Census) -> float:
    """CR: words of im2col over words of `algorithm`."""
    return im2col_words(s) / WORDS[algorithm](s, count)


def density_bounds(s: Strips, lowered_density: float = 1.0) -> dict[str, float]:
    """Density of the padded map below which CPO takes less memory than im2col, MEC and CSCC.

    `lowered_density` is that of the MEC-lowered map, on which the bound against CSCC depends. A bound above
    1 means always.
    """
    pointer_words, elements = s.n * (s.Ow + 1), s.Ih * s.Iw * s.Ic
    per_row = 2 * s.Ih * s.Ic
    return {
        "im2col": (im2col_words(s) - pointer_words) / (2 * elements),
        "mec": (mec_words(s) - pointer_words) / (2 * elements),
        "cscc": (s.Kw * s.Ow * lowered_density + (s.Ow + 1) / per_row - pointer_words / per_row) / s.Iw,
    }


def four_sided(padding: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    """Padding as (top, left, bottom, right)."""
    if isinstance(padding, tuple | list) and len(padding) == 4:
        top, left = pair("padding", (padding[0], padding[1]), 0)
        return top, left, *pair("padding", (padding[2], padding[3]), 0)
    both: Any = padding
    height, width = pair("padding", both, 0)
    return height, width, height, width


def layer_strips(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Pair, padding: int | tuple[int, ...]
) -> tuple[Strips, int]:
    """A layer's strips and its number of images; arguments and errors as in `conv_memory`."""
    if len(x_shape) not in (3, 4) or min(x_shape) < 1:
        raise InputError(f"x_shape must be (N, C, H, W) or (C, H, W), each at least 1, got {x_shape}")
    if len(w_shape) != 4 or min(w_shape) < 1:
        raise InputError(f"w_shape must be (K, C / groups, R, S), each at least 1, got {w_shape}")
    images, (Ic, H, W) = (x_shape[0] if len(x_shape) == 4 else 1), x_shape[-3:]
    if Ic % w_shape[1]:
        raise InputError(f"x has {Ic} channels, which are not a multiple of the weights' {w_shape[1]}")
    top, left, bottom, right = four_sided(padding)
    return strips_of((Ic, H + top + bottom, W + left + right), (w_shape[2], w_shape[3]), stride), images
